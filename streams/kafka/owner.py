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
from typing import Literal, TypeVar

import structlog
from confluent_kafka import Message

from streams import metrics
from streams.errors import BrokenTransactionError, CommitError, FencedError
from streams.kafka.alignment import Aligner
from streams.kafka.bulk_read import Progress, read_to_end
from streams.kafka.deadline import Deadline
from streams.kafka.identity import check_same
from streams.kafka.outgoing import OutRecord, OutRecords
from streams.kafka.transactions import PartitionTransactions
from streams.kafka.transport import Run
from streams.kafka.work import Kept, Work
from streams.settings import Settings

_LOG = structlog.get_logger(__name__)

#: A million states restore in about ten seconds; ten minutes is a disk that died, not a large partition.
_RESTORE_S = 600.0

#: A partition rests this many times as long as its last commit took: committing takes at most a fifth of the time.
_REST = 4.0

State = Literal["taking", "catching_up", "live", "closed"]

T = TypeVar("T")


def commit_wait_s(last_s: float, interval_s: float, limit_s: float) -> float:
    """
    Return how long to wait for the next commit after one that took `last_s`: longer under load, within a limit.

    >>> commit_wait_s(0.01, interval_s=0.2, limit_s=1.0), commit_wait_s(0.15, 0.2, 1.0), commit_wait_s(3.0, 0.2, 1.0)
    (0.2, 0.6, 1.0)
    """
    return max(interval_s, min(_REST * last_s, limit_s))


class Owner:
    """
    A partition number over all topics of a role.

    Attributes
    ----------
    state
        `taking` (fencing, restoring), `catching_up` (below the ends seen when taken), `live`, `closed`.
    consumed
        Topic to the offset behind the newest folded record; what the next commit commits.
    progress
        How far restoring is; None before it begins.
    commit_s
        How long the last commit took.

    """

    def __init__(
        self,
        settings: Settings,
        role: str,
        partition: int,
        topics: Sequence[str],
        make_work: Callable[[], Work],
        kept: Kept | None,
        executor: Executor,
        remaining: Callable[[str, int, int], int],
        on_fenced: Callable[[Owner, FencedError], None],
        topic_ids: Callable[[], dict[str, str]],
    ) -> None:
        self.partition = partition
        self.work = kept.work if kept else make_work()
        self.state: State = "taking"
        self.progress: Progress | None = None
        self.commit_s = 0.0
        self.consumed: dict[str, int] = {}
        self.newest_ts_ms: dict[str, int] = {}
        self._settings = settings
        self._role = role
        self._topics = tuple(topics)
        self._make_work = make_work
        self._kept = kept
        self._executor = executor
        self._remaining = remaining
        self._on_fenced = on_fenced
        self._topic_ids = topic_ids
        self._transactions = PartitionTransactions(settings, settings.group(role), partition, self.work.changelog)
        self._aligner: Aligner | None = None
        self._goal: dict[str, int] = {}
        self._outbox: list[OutRecord] = []
        self._committing = False
        self._commit_lock = asyncio.Lock()
        self._dirty = False
        self._leaving = False
        self._shut = False

    async def take(self) -> None:
        """
        Take the partition, in the one order that lets nothing be lost or counted twice.

        1. Open the transactional producer: every earlier owner is fenced, what it had open is aborted.
        2. Read the committed offsets: nobody else can move them any more.
        3. Read the changelog to its end: it holds exactly what those offsets stand for. Where it ends where our own
           last commit left it, the state that was kept is that state. The offsets must be of the topics there are.
        4. Commit the control record and the offsets, so that the next owner finds both.
        """
        try:
            await self._take()
        except BaseException:
            self._end()
            if self._kept is None:
                self.work.close()
            raise

    async def _take(self) -> None:
        started = time.monotonic()
        # Steps 1 and 2.
        self.consumed, (start, end) = await self._in_thread(self._fence)
        self._check_still_ours()
        # Step 3.
        if self._kept is not None and (self._kept.changelog_end, self._kept.consumed) != (end, self.consumed):
            self.work.close()
            self.work, self._kept = self._make_work(), None
        restored = self._kept is None
        if restored:
            self.progress = Progress(self.work.changelog, self.partition, start, end)
            await self._in_thread(self._restore)
        ids = await self._in_thread(self._topic_ids)
        unread = self._transactions.unread
        former = {topic: known for topic, known in self.work.topic_ids.items() if topic not in unread}
        check_same(former, ids, self.partition)
        self.work.topic_ids = ids
        self._goal = await self._in_thread(self._ends)
        self._check_still_ours()
        self._aligner = Aligner(self.consumed, self._known_remaining)
        # Step 4.
        self._kept = None
        records = list(self.work.opened(self))
        await self._transact(records, dict(self.consumed), Deadline(self._settings.commit_timeout_s))
        self._check_still_ours()
        self.state = "catching_up"
        self.check_caught_up()
        seconds = time.monotonic() - started
        metrics.RESTORE_SECONDS.observe(seconds)
        read = self.progress.records if self.progress else 0
        _LOG.info(
            "partition_taken", partition=self.partition, seconds=round(seconds, 3), restored=restored, records=read
        )

    async def _in_thread(self, step: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, step)

    def _check_still_ours(self) -> None:
        """End a take that a revoke has overtaken: opening later than the next owner would fence the rightful one."""
        if self.state == "closed":
            raise FencedError(f"partition {self.partition} was revoked while it was being taken")

    def _fence(self) -> tuple[dict[str, int], tuple[int, int]]:
        self._check_still_ours()
        deadline = Deadline(self._settings.kafka_timeout_s)
        # Step 1.
        self._transactions.open(deadline)
        # Step 2.
        consumed = self._transactions.committed(self._topics, deadline)
        return consumed, self._transactions.changelog_bounds(deadline)

    def _restore(self) -> None:
        read_to_end(self._settings, self.work.changelog, [self.partition], self._take_in, Deadline(_RESTORE_S))

    def _take_in(self, messages: Sequence[Message]) -> None:
        # A partition revoked meanwhile need not be read to its end: the group waits for this.
        self._check_still_ours()
        assert self.progress is not None
        self.work.restore(messages)
        self.progress.note(messages)

    def _ends(self) -> dict[str, int]:
        bounds = self._transactions.bounds(self._topics, Deadline(self._settings.kafka_timeout_s))
        return {topic: end for topic, (_, end) in bounds.items()}

    async def start_after_loss(self, topic: str, offset: int) -> int:
        """
        Return where a topic goes on whose next offset Kafka does not have, and tell what was lost.

        Raises
        ------
        TopicMismatchError, DependencyError, FencedError
            See `PartitionTransactions.committed`.

        """
        deadline = Deadline(self._settings.kafka_timeout_s)
        return await self._in_thread(lambda: self._transactions.start_after_loss(topic, offset, deadline))

    def push(self, run: Run) -> None:
        """Buffer a run and fold what may be folded."""
        if self._aligner is None or self._leaving:
            run.done()
            return
        self._aligner.push(run)
        self.pump()

    def pump(self) -> None:
        """Fold what alignment lets go."""
        if self._aligner is None or self._leaving:
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
            self._produce(records)
        except FencedError as error:
            self._on_fenced(self, error)

    def _produce(self, records: Sequence[OutRecord]) -> None:
        """
        Add records to the open transaction; to one that is broken in vain.

        A process that was stopped for long wakes to a transaction whose records have timed out. Only its commit, which
        is due within the commit interval, asks the coordinator whose partition it is by now.
        """
        try:
            self._transactions.produce(records)
        except BrokenTransactionError as error:
            self._dirty = True
            _LOG.warning("transaction_broken", partition=self.partition, error=str(error))

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
        if self.state != "closed":
            await self._commit(deadline)

    async def _commit(self, deadline: Deadline) -> None:
        async with self._commit_lock:
            if self._leaving:
                # The last commit. A list that is not here yet will be owed by whoever goes on: `gather` says so.
                self.state = "closed"
            if not (self._dirty or self.work.waits) or self._shut:
                return
            # Step 1.
            started = time.monotonic()
            records = self.work.gather()
            offsets = dict(self.consumed)
            self._dirty = False
            # Steps 2 and 3.
            await self._transact(records, offsets, deadline)
            self.commit_s = time.monotonic() - started
            metrics.COMMIT_SECONDS.labels(self._role).observe(self.commit_s)

    async def _transact(
        self, records: Iterable[OutRecord | OutRecords], offsets: dict[str, int], deadline: Deadline
    ) -> None:
        """Commit in a thread; what is sent meanwhile goes into the next transaction."""
        self._committing = True
        try:
            await self._in_thread(lambda: self._transactions.commit(records, offsets, deadline))
        except BaseException as error:
            result = "fenced" if isinstance(error, FencedError) else "failed"
            metrics.COMMITS.labels(self._role, result).inc()
            raise
        finally:
            self._committing = False
        metrics.COMMITS.labels(self._role, "ok").inc()
        waiting, self._outbox = self._outbox, []
        if not self._shut:
            self._produce(waiting)

    async def release(self, deadline: Deadline) -> Kept | None:
        """
        Give the partition up in good order; return what the next owner may go on from, if it is this process.

        From here on nothing more is folded, and nothing sent that the last commit does not hold. A take under way
        ends at its next step.

        Raises
        ------
        FencedError, CommitError
            When the last commit failed, or was not done at the deadline.

        """
        if self.state == "closed":
            return None
        if self.state == "taking":
            self._end()
            # None once it was opened; before, nothing has changed.
            return self._kept
        self._stop_folding()
        kept: Kept | None = None
        try:
            await asyncio.wait_for(self._commit(deadline), deadline.remaining_s())
            if (end := self._transactions.changelog_end) is not None:
                kept = Kept(self.work, end, self.consumed)
        except TimeoutError as error:
            raise CommitError(
                f"the last commit of partition {self.partition} was not done within its deadline "
                "(FRESHET_COMMIT_TIMEOUT_S)"
            ) from error
        finally:
            self._end()
            if kept is None:
                self.work.close()
            else:
                self.work.suspend()
        return kept

    def close(self) -> None:
        """Drop the partition at once; what was not committed will be read again by the next owner."""
        if self.state == "taking":
            # The take ends at its next step, and lets the state go.
            self._kept = None
            self._end()
        elif self.state != "closed":
            self._stop_folding()
            self._end()
            self.work.close()

    def _stop_folding(self) -> None:
        self._leaving = True
        if self._aligner is not None:
            self._aligner.clear()

    def _end(self) -> None:
        if self._shut:
            return
        self.state = "closed"
        self._shut = True
        # Closing waits for librdkafka's threads; the loop must not.
        self._executor.submit(self._transactions.close)
