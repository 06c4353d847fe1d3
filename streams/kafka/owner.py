"""
One owned partition, from taking it to giving it up.

An `Owner` joins the partition's transactional producer, the alignment of its topics and the role's own state
(`Work`), and holds the rule that makes them exactly once: what is folded, what it caused and the offsets it came
from are committed together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Literal, Protocol

import structlog
from confluent_kafka import Message

from streams import metrics
from streams.errors import FencedError
from streams.kafka.alignment import Aligner, Slice
from streams.kafka.bulk_read import read_to_end
from streams.kafka.deadline import Deadline
from streams.kafka.transactions import OutRecord, PartitionTransactions
from streams.kafka.transport import Run
from streams.settings import Settings

_LOG = structlog.get_logger(__name__)

#: A million states restore in about ten seconds; ten minutes is a disk that died, not a large partition.
_RESTORE_S = 600.0

#: Key of a partition's control record on a role's changelog; no user id or item id can hold a control character.
CONTROL_KEY = b"\x00partition"

State = Literal["taking", "catching_up", "live", "closed"]


class Work(Protocol):
    """
    What a role keeps for one partition.

    `restore` runs in a thread before anything else; every other method runs on the event loop and must not block.
    """

    #: Kafka's name of the topic this state is restored from.
    changelog: str

    def restore(self, messages: Sequence[Message]) -> None:
        """Take in changelog records, in offset order."""

    def opened(self, owner: Owner) -> Iterable[OutRecord]:
        """Begin; return the records that the first transaction writes (the control record)."""

    def fold(self, pieces: Sequence[Slice]) -> None:
        """Take in records, in offset order within a topic."""

    def caught_up(self) -> None:
        """Everything that lay in the topics when the partition was taken has been folded."""

    def gather(self) -> Iterable[OutRecord]:
        """Copy what the next transaction must hold, changed state and what is owed with it; a thread iterates it."""

    def close(self) -> None:
        """Let go: the partition is no longer ours."""


class Owner:
    """
    A partition number over all topics of a role.

    Attributes
    ----------
    state
        `taking` (fencing, restoring), `catching_up` (below the ends seen when taken), `live`, `closed`.
    consumed
        Topic to the offset behind the newest folded record; what the next commit commits.

    """

    def __init__(
        self,
        settings: Settings,
        role: str,
        partition: int,
        topics: Sequence[str],
        work: Work,
        executor: Executor,
        remaining: Callable[[str, int, int], int],
        on_fenced: Callable[[Owner, FencedError], None],
    ) -> None:
        self.partition = partition
        self.work = work
        self.state: State = "taking"
        self.consumed: dict[str, int] = {}
        self.newest_ts_ms: dict[str, int] = {}
        self._settings = settings
        self._role = role
        self._topics = tuple(topics)
        self._executor = executor
        self._remaining = remaining
        self._on_fenced = on_fenced
        self._transactions = PartitionTransactions(settings, settings.group(role), partition)
        self._aligner: Aligner | None = None
        self._goal: dict[str, int] = {}
        self._outbox: list[OutRecord] = []
        self._committing = False
        self._commit_lock = asyncio.Lock()
        self._dirty = False

    async def take(self) -> None:
        """
        Take the partition, in the one order that lets nothing be lost or counted twice.

        1. Open the transactional producer: every earlier owner is fenced, what it had open is aborted.
        2. Read the committed offsets: nobody else can move them any more.
        3. Read the changelog to its end: it holds exactly what those offsets stand for.
        4. Commit the control record and the offsets, so that the next owner finds both.
        """
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        self.consumed, self._goal = await loop.run_in_executor(self._executor, self._restore)
        self._aligner = Aligner(self.consumed, self._known_remaining)
        self._check_still_ours()
        # Step 4.
        records = list(self.work.opened(self))
        deadline = Deadline(self._settings.commit_timeout_s)
        await loop.run_in_executor(self._executor, self._transactions.commit, records, dict(self.consumed), deadline)
        self._check_still_ours()
        self.state = "catching_up"
        self.check_caught_up()
        seconds = time.monotonic() - started
        metrics.RESTORE_SECONDS.observe(seconds)
        _LOG.info("partition_taken", partition=self.partition, seconds=round(seconds, 3))

    def _check_still_ours(self) -> None:
        """End a take that a revoke has overtaken: opening later than the next owner would fence the rightful one."""
        if self.state == "closed":
            raise FencedError(f"partition {self.partition} was revoked while it was being taken")

    def _restore(self) -> tuple[dict[str, int], dict[str, int]]:
        self._check_still_ours()
        deadline = Deadline(self._settings.kafka_timeout_s)
        # Step 1.
        self._transactions.open(deadline)
        # Step 2.
        consumed = self._transactions.committed(self._topics, deadline)
        # Step 3.
        read_to_end(self._settings, self.work.changelog, [self.partition], self.work.restore, Deadline(_RESTORE_S))
        goal = self._transactions.ends(self._topics, Deadline(self._settings.kafka_timeout_s))
        return consumed, goal

    def push(self, run: Run) -> None:
        """Buffer a run and fold what may be folded."""
        if self._aligner is None or self.state == "closed":
            run.done()
            return
        self._aligner.push(run)
        self.pump()

    def pump(self) -> None:
        """Fold what alignment lets go."""
        if self._aligner is None or self.state == "closed":
            return
        timeouts = self._aligner.timeouts
        pieces = list(self._aligner.ready())
        if self._aligner.timeouts > timeouts:
            metrics.ALIGNMENT_TIMEOUTS.inc(self._aligner.timeouts - timeouts)
        if not pieces:
            return
        self.work.fold([piece for piece in pieces if piece.records])
        for piece in pieces:
            if piece.records:
                newest = piece.records[-1]
                self.consumed[piece.run.topic] = newest.offset + 1
                self.newest_ts_ms[piece.run.topic] = newest.timestamp
            if piece.last:
                piece.run.done()
        self._dirty = True
        self.check_caught_up()

    def check_caught_up(self) -> None:
        """Become live once everything that lay there when the partition was taken has been folded."""
        if self.state == "catching_up" and all(
            self.consumed[topic] >= end or not self._known_remaining(topic, self.consumed[topic])
            for topic, end in self._goal.items()
        ):
            self.state = "live"
            self.work.caught_up()

    def lag(self, topic: str) -> int:
        """Records of a topic that are known to wait."""
        return self._known_remaining(topic, self.consumed.get(topic, 0))

    def _known_remaining(self, topic: str, next_offset: int) -> int:
        """Count from the end that fetching told, and from the one seen when the partition was taken."""
        return self._remaining(topic, next_offset, self._goal.get(topic, 0))

    def send(self, records: Sequence[OutRecord]) -> None:
        """
        Produce into the open transaction at once; while a commit is under way, into the next one.

        Read-uncommitted readers see these records within milliseconds, read-committed ones after the commit.
        """
        if self.state == "closed":
            return
        self._dirty = True
        if self._committing:
            self._outbox.extend(records)
            return
        try:
            self._transactions.produce(records)
        except FencedError as error:
            self._on_fenced(self, error)

    async def commit(self, deadline: Deadline) -> None:
        """
        Commit everything folded so far.

        1. On the loop: copy what is owed and the consumed offsets, so that both stand for the same moment.
        2. In a thread: produce, flush, send offsets, commit, begin (`PartitionTransactions.commit`).
        3. On the loop: produce what was sent meanwhile.

        Raises
        ------
        FencedError, CommitError
            See `PartitionTransactions.commit`; the partition must not be used further.

        """
        async with self._commit_lock:
            if not self._dirty or self.state == "closed":
                return
            # Step 1.
            started = time.monotonic()
            records = self.work.gather()
            offsets = dict(self.consumed)
            self._dirty = False
            self._committing = True
            # Step 2.
            try:
                await asyncio.get_running_loop().run_in_executor(
                    self._executor, self._transactions.commit, records, offsets, deadline
                )
            except BaseException as error:
                result = "fenced" if isinstance(error, FencedError) else "failed"
                metrics.COMMITS.labels(self._role, result).inc()
                raise
            finally:
                self._committing = False
            metrics.COMMITS.labels(self._role, "ok").inc()
            metrics.COMMIT_SECONDS.labels(self._role).observe(time.monotonic() - started)
            # Step 3.
            waiting, self._outbox = self._outbox, []
            self._transactions.produce(waiting)

    def close(self) -> None:
        """Drop the partition at once; what was not committed will be read again by the next owner."""
        if self.state == "closed":
            return
        self.state = "closed"
        if self._aligner is not None:
            self._aligner.clear()
        self.work.close()
        # Closing waits for librdkafka's threads; the loop must not.
        self._executor.submit(self._transactions.close)
