"""
A model of what Kafka promises about transactions, small enough to be read: the ground of the simulation.

Logs of records and transaction markers, group offsets, and transactional ids with epochs. Each record of a
transaction belongs to readers of both kinds only as its isolation says: an open transaction holds read-committed
readers back at its first record, an aborted one is skipped. Opening a transactional id raises its epoch and aborts
what was open under it; whoever comes with an older epoch is refused, whatever it asks for.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from streams.errors import CommitError, FencedError
from streams.kafka.deadline import Deadline
from streams.kafka.outgoing import OutRecord, OutRecords
from tests.support.outgoing import one_by_one

#: What becomes of one commit. `killed_*` end the process behind that step; `reply_lost` is the outcome nobody knows:
#: Kafka has committed and the producer was told nothing.
Fate = Literal[
    "ok", "refused", "aborted", "expired", "fenced", "reply_lost", "killed_producing", "killed_offsets", "killed_after"
]
FATES: tuple[Fate, ...] = (
    "ok", "refused", "aborted", "expired", "fenced", "reply_lost", "killed_producing", "killed_offsets", "killed_after"
)  # fmt: skip


class KilledError(Exception):
    """The process has been killed at this very step."""


class _RefusedError(Exception):
    """Kafka refuses a producer of an older epoch."""


@dataclass(slots=True, eq=False)
class _Transaction:
    state: Literal["open", "committed", "aborted"] = "open"
    first: dict[str, int] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Entry:
    """One place in a log; `marker` places hold no record."""

    at: int
    timestamp: int
    sent_key: bytes | None
    sent_value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    transaction: _Transaction | None = None
    marker: bool = False

    def key(self) -> bytes | None:
        """Key, as librdkafka's messages tell it."""
        return self.sent_key

    def value(self) -> bytes | None:
        """Value, as librdkafka's messages tell it."""
        return self.sent_value

    def offset(self) -> int:
        """Offset, as librdkafka's messages tell it."""
        return self.at


class ModelKafka:
    """
    One partition of every topic, and one consumer group.

    Attributes
    ----------
    meanwhile
        What others do just before the next calls of a job are served, one for each call.

    """

    def __init__(self) -> None:
        self.meanwhile: deque[Callable[[], None]] = deque()
        self.logs: defaultdict[str, list[Entry]] = defaultdict(list)
        self.committed: dict[str, int] = {}
        self._epochs: dict[str, int] = {}
        self._open: dict[str, _Transaction] = {}

    def let_others(self) -> None:
        """Let somebody else be faster."""
        if self.meanwhile:
            self.meanwhile.popleft()()

    def append(self, topic: str, key: bytes | None, value: bytes | None, timestamp: int) -> int:
        """Append a record of a producer without transactions; return its offset."""
        log = self.logs[topic]
        log.append(Entry(len(log), timestamp, key, value, ()))
        return len(log) - 1

    def stable_end(self, topic: str) -> int:
        """Return the offset at which read-committed readers stop."""
        end = len(self.logs[topic])
        return min((transaction.first.get(topic, end) for transaction in self._open.values()), default=end)

    def read(self, topic: str, start: int, *, committed: bool = True) -> list[Entry]:
        """Return the records from an offset on, as readers of that isolation see them."""
        end = self.stable_end(topic) if committed else len(self.logs[topic])
        return [
            entry
            for entry in self.logs[topic][start:end]
            if not entry.marker
            and not (committed and entry.transaction is not None and entry.transaction.state == "aborted")
        ]

    def initialise(self, transactional_id: str) -> int:
        """Fence whoever had the id, abort what was open under it; return the new epoch."""
        self._end(transactional_id, commit=False)
        self._epochs[transactional_id] = epoch = self._epochs.get(transactional_id, -1) + 1
        return epoch

    def expire(self, transactional_id: str) -> None:
        """Abort a transaction that has been open for too long; its producer is refused from here on."""
        if transactional_id in self._open:
            self.initialise(transactional_id)

    def produce(self, transactional_id: str, epoch: int, record: OutRecord, timestamp: int) -> None:
        """Append a record to the open transaction."""
        transaction = self._transaction(transactional_id, epoch)
        log = self.logs[record.topic]
        transaction.first.setdefault(record.topic, len(log))
        log.append(Entry(len(log), timestamp, record.key, record.value, record.headers or (), transaction))

    def add_offsets(self, transactional_id: str, epoch: int, offsets: Mapping[str, int]) -> None:
        """Make group offsets part of the open transaction."""
        self._transaction(transactional_id, epoch).offsets.update(offsets)

    def end(self, transactional_id: str, epoch: int, *, commit: bool) -> None:
        """Commit or abort the open transaction."""
        self._transaction(transactional_id, epoch)
        self._end(transactional_id, commit=commit)

    def _transaction(self, transactional_id: str, epoch: int) -> _Transaction:
        if epoch != self._epochs[transactional_id]:
            raise _RefusedError
        return self._open.setdefault(transactional_id, _Transaction())

    def _end(self, transactional_id: str, *, commit: bool) -> None:
        transaction = self._open.pop(transactional_id, None)
        if transaction is None:
            return
        transaction.state = "committed" if commit else "aborted"
        for topic in transaction.first:
            log = self.logs[topic]
            log.append(Entry(len(log), log[-1].timestamp, None, None, (), transaction, marker=True))
        if commit:
            self.committed.update(transaction.offsets)


class ModelTransactions:
    """
    `PartitionTransactions` on the model.

    Attributes
    ----------
    fate
        What becomes of the next commit.
    changelog_end
        Where the changelog ends behind the newest commit, if nobody else has written.
    unread
        Nothing: topics here are never made anew.

    """

    def __init__(self, kafka: ModelKafka, transactional_id: str, changelog: str, clock_ms: Callable[[], int]) -> None:
        self.fate: Fate = "ok"
        self.changelog_end: int | None = None
        self.unread: set[str] = set()
        self._changelog = changelog
        self._written = 0
        self._kafka = kafka
        self._id = transactional_id
        self._clock_ms = clock_ms
        self._epoch = -1
        self._closed = False

    def open(self, deadline: Deadline) -> None:
        """Fence every earlier owner."""
        del deadline
        self._kafka.let_others()
        if self._closed:
            raise FencedError("given up before it was taken")
        self._epoch = self._kafka.initialise(self._id)

    def committed(self, topics: Iterable[str], deadline: Deadline) -> dict[str, int]:
        """Return where each topic goes on."""
        del deadline
        self._kafka.let_others()
        return {topic: self._kafka.committed.get(topic, 0) for topic in topics}

    def changelog_bounds(self, deadline: Deadline) -> tuple[int, int]:
        """Return the start and the end of the changelog."""
        start, self.changelog_end = self.bounds([self._changelog], deadline)[self._changelog]
        return start, self.changelog_end

    def bounds(self, topics: Iterable[str], deadline: Deadline) -> dict[str, tuple[int, int]]:
        """Return the start and the end of each topic."""
        del deadline
        self._kafka.let_others()
        return {topic: (0, self._kafka.stable_end(topic)) for topic in topics}

    def produce(self, records: Iterable[OutRecord | OutRecords]) -> None:
        """Add records to the open transaction."""
        try:
            for record in one_by_one(records):
                self._produce_one(record)
        except _RefusedError:
            raise FencedError("taken by another worker") from None

    def commit(self, records: Iterable[OutRecord | OutRecords], offsets: Mapping[str, int], deadline: Deadline) -> None:
        """Commit as `PartitionTransactions.commit` does, or meet the fate."""
        del deadline
        if self._closed:
            raise FencedError("given up before its commit")
        fate, self.fate = self.fate, "ok"
        self._kafka.let_others()
        if fate == "refused":
            raise CommitError("Kafka is away")
        try:
            given = list(one_by_one(records))
            for number, record in enumerate(given):
                if fate == "killed_producing" and number == len(given) // 2:
                    raise KilledError
                self._produce_one(record)
            if fate in {"expired", "fenced"}:
                self._kafka.initialise(self._id)
            if fate == "aborted":
                self._kafka.end(self._id, self._epoch, commit=False)
                raise CommitError("Kafka asked for an abort")
            self._kafka.let_others()
            self._kafka.add_offsets(self._id, self._epoch, offsets)
            if fate == "killed_offsets":
                raise KilledError
            self._kafka.end(self._id, self._epoch, commit=True)
        except _RefusedError:
            raise FencedError("taken by another worker") from None
        if fate == "reply_lost":
            raise CommitError("Kafka did not answer in time")
        if fate == "killed_after":
            raise KilledError
        if self._written and self.changelog_end is not None:
            self.changelog_end += self._written + 1
        self._written = 0

    def _produce_one(self, record: OutRecord) -> None:
        self._kafka.produce(self._id, self._epoch, record, self._clock_ms())
        self._written += record.topic == self._changelog

    def close(self) -> None:
        """Drop the producer; an open transaction is left to the next owner's fence."""
        self._closed = True
