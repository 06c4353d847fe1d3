"""
Exactly once by Kafka itself: one transactional producer for one owned partition.

Everything a partition's events cause goes through its producer and becomes visible, to read-committed readers,
together with the consumed offsets, or not at all. `transactional.id` is namespace-group-partition, so that opening
it fences whoever had the partition before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import structlog
from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from streams import metrics
from streams.errors import BrokenTransactionError, CommitError, DependencyError, FencedError, TopicMismatchError
from streams.kafka.clients import librdkafka_config
from streams.kafka.deadline import Deadline
from streams.kafka.outgoing import OutRecord, OutRecords, produce
from streams.kafka.partitioner import LIBRDKAFKA_PARTITIONER
from streams.kafka.patience import GRACE_S, answered, bounded, resumed
from streams.settings import Settings
from streams.topics import TOPICS

_LOG = structlog.get_logger(__name__)

#: The broker aborts a transaction that is open longer. It must outlast the longest commit interval under load plus a
#: commit (60 s + 20 s by default settings), and bounds how long a dead worker can hold back read-committed readers.
_TRANSACTION_TIMEOUT_MS = 90_000

#: What a producer that broke in a request under way answers to `produce`, without the reason.
_BARE = {KafkaError._FATAL, KafkaError._STATE}  # noqa: SLF001 -- public constants
_FENCED = {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}  # noqa: SLF001 -- public constant
#: What is answered when the transaction is not open any more, and nobody has taken the partition since.
_EXPIRED = {KafkaError.INVALID_TXN_STATE}


class PartitionTransactions:
    """
    The transactional producer of one partition.

    One thread uses it at a time: the event loop produces between commits, `open`, `committed` and `commit` run in
    threads. `close` may come at any time and waits for the step under way.

    Attributes
    ----------
    changelog_end
        Where the partition's changelog ends behind our newest commit, if nobody else has written; None before
        `changelog_bounds`.
    unread
        Topics of which the group had no offset when `committed` asked: new ones, and those made anew, whose offsets
        Kafka deletes with them.

    """

    def __init__(self, settings: Settings, group: str, partition: int, changelog: str) -> None:
        self.changelog_end: int | None = None
        self.unread: set[str] = set()
        self._settings = settings
        self._group = group
        self._partition = partition
        self._changelog = changelog
        self._written = 0
        self._producer: Producer | None = None
        self._members: Consumer | None = None
        self._lock = threading.Lock()
        self._closed = False

    def open(self, deadline: Deadline) -> None:
        """
        Fence every earlier owner of the partition and begin the first transaction.

        Raises
        ------
        DependencyError
            When Kafka does not answer before the deadline.
        FencedError
            When somebody else takes it at the same time, or `close` came first.

        """
        with self._lock:
            self._open(deadline)

    def _open(self, deadline: Deadline) -> None:
        if self._closed:
            raise FencedError(f"partition {self._partition} was given up before it was taken")
        config = librdkafka_config(
            self._settings,
            transactional_id=f"{self._group}-{self._partition}",
            transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
            partitioner=LIBRDKAFKA_PARTITIONER,
            compression_type="lz4",
            message_max_bytes=TOPICS["dead-letters"].max_message_bytes,
            # Lists go out at once, for read-uncommitted readers; 1 ms lets those of one ranking call share a request.
            linger_ms=1,
            queue_buffering_max_messages=1_000_000,
        )
        self._producer = Producer(config)
        # It never joins the group: it reads its committed offsets and lends its metadata to the transaction.
        self._members = Consumer(librdkafka_config(self._settings, group_id=self._group, enable_auto_commit=False))
        try:
            self._producer.init_transactions(deadline.remaining_s())
            self._producer.begin_transaction()
        except KafkaException as error:
            if error.args[0].code() in _FENCED:
                raise self._translated(error, "taking it") from error
            raise DependencyError(f"taking partition {self._partition} failed: {_text(error)}") from error

    def committed(self, topics: Iterable[str], deadline: Deadline) -> dict[str, int]:
        """
        Return where each topic's partition goes on: the group's committed offset, or the log's start without one.

        Read only after `open`: no earlier owner can commit any more. Records that were deleted before anybody read
        them are counted and logged.

        Raises
        ------
        TopicMismatchError
            When a committed offset lies behind the end of its log: the topic is not the one it was committed on.
        DependencyError
            When Kafka does not answer before the deadline.
        FencedError
            When `close` came first.

        """
        wanted = [TopicPartition(topic, self._partition) for topic in topics]
        offsets: dict[str, int] = {}
        with self._asking("the committed offsets") as members:
            for found in members.committed(wanted, timeout=deadline.remaining_s()):
                if found.error is not None:
                    raise KafkaException(found.error)
                low, high = self._bounds(members, found.topic, deadline)
                if found.offset == OFFSET_INVALID:
                    self.unread.add(found.topic)
                    offsets[found.topic] = low
                else:
                    offsets[found.topic] = self._start(found.topic, int(found.offset), low, high)
        return offsets

    def start_after_loss(self, topic: str, offset: int, deadline: Deadline) -> int:
        """
        Return where a topic's partition goes on after Kafka has said that it does not have `offset`.

        Raises as `committed` does: an offset that is not below the log's start was behind its end.
        """
        start, end = self.bounds([topic], deadline)[topic]
        # The end may have moved on past the offset since.
        return self._start(topic, offset, start, end if offset < start else offset - 1)

    def changelog_bounds(self, deadline: Deadline) -> tuple[int, int]:
        """Return the start and the end offset of the changelog; called once, after `open`, before any commit."""
        start, self.changelog_end = self.bounds([self._changelog], deadline)[self._changelog]
        return start, self.changelog_end

    def bounds(self, topics: Iterable[str], deadline: Deadline) -> dict[str, tuple[int, int]]:
        """Return the start and the end offset of each topic's partition as they are now; raises as `committed` does."""
        with self._asking("the end offsets") as members:
            return {topic: self._bounds(members, topic, deadline) for topic in topics}

    def _bounds(self, members: Consumer, topic: str, deadline: Deadline) -> tuple[int, int]:
        place = TopicPartition(topic, self._partition)
        start, end = answered(lambda timeout_s: members.get_watermark_offsets(place, timeout=timeout_s), deadline)
        return start, end

    @contextmanager
    def _asking(self, what: str) -> Iterator[Consumer]:
        """Hand out the member of the group; `close`, which may come at any time, waits."""
        with self._lock:
            if self._members is None:
                raise FencedError(f"partition {self._partition} was given up while it was being taken")
            try:
                yield self._members
            except KafkaException as error:
                raise DependencyError(
                    f"reading {what} of partition {self._partition} failed: {_text(error)}"
                ) from error

    def _start(self, topic: str, offset: int, low: int, high: int) -> int:
        """Return where a partition that was read up to an offset goes on in a log from `low` to `high`."""
        if offset > high:
            raise TopicMismatchError(
                f"{topic} partition {self._partition} ends at {high}, but the group has committed or read up to offset "
                f"{offset}: the topic was deleted and made anew, or restored from an older copy; "
                "the group's offsets and the changelogs belong to the former one"
            )
        if missed := max(0, low - offset):
            metrics.EXPIRED.inc(missed)
            _LOG.error(
                "records_expired_unread", topic=topic, partition=self._partition, first=offset, next=low, records=missed
            )
        return max(low, offset)

    def produce(self, records: Iterable[OutRecord | OutRecords]) -> None:
        """
        Add records to the open transaction; returns before they are sent.

        Raises
        ------
        FencedError, CommitError
            When the producer can send no more; `BrokenTransactionError` when only `commit` can tell why.

        """
        assert self._producer is not None
        try:
            self._produce(self._producer, records)
            self._producer.poll(0)
        except KafkaException as error:
            raise self._translated(error, "producing") from error

    def _produce(self, producer: Producer, records: Iterable[OutRecord | OutRecords]) -> None:
        for record in records:
            written = produce(producer, record)
            if record.topic == self._changelog:
                self._written += written

    def commit(self, records: Iterable[OutRecord | OutRecords], offsets: Mapping[str, int], deadline: Deadline) -> None:
        """
        Commit what was produced, `records`, and the consumed offsets, all or nothing.

        1. Produce `records` into the open transaction.
        2. Flush: without it the commit waits for the next retry, 107 ms instead of 3 to 7.
        3. Send `offsets` (topic to next offset of this partition) to the transaction.
        4. Commit, and begin the next transaction.

        Raises
        ------
        FencedError
            Another worker owns the partition, or may by now: this process was stopped for longer than a transaction
            may last. Nothing was committed.
        CommitError
            The transaction was aborted; the process must end and read again.

        """
        with self._lock:
            if self._closed or self._producer is None or self._members is None:
                raise FencedError(f"partition {self._partition} was given up before its commit")
            self._commit(self._producer, self._members, records, offsets, deadline)

    def _commit(
        self,
        producer: Producer,
        members: Consumer,
        records: Iterable[OutRecord | OutRecords],
        offsets: Mapping[str, int],
        deadline: Deadline,
    ) -> None:
        try:
            # Step 1.
            self._produce(producer, records)
            # Step 2.
            # Asked twice: whoever was stopped in the middle of the first wakes to its time-out, not to its answer.
            if producer.flush(deadline.remaining_s()) and (left := producer.flush(GRACE_S)):
                raise CommitError(f"{left} records of partition {self._partition} were not taken in time")
            # Step 3.
            places = [TopicPartition(topic, self._partition, offset) for topic, offset in offsets.items()]
            group = members.consumer_group_metadata()
            bounded(
                lambda: resumed(
                    lambda timeout_s: producer.send_offsets_to_transaction(places, group, timeout_s), deadline
                ),
                deadline,
            )
            # Step 4.
            resumed(producer.commit_transaction, deadline)
            if self._written and self.changelog_end is not None:
                # Each record has one offset, whatever was sent twice, and behind them stands the transaction's marker.
                self.changelog_end += self._written + 1
            self._written = 0
            producer.begin_transaction()
        except KafkaException as error:
            raise self._abandoned(producer, self._cause(error), deadline) from error

    def _abandoned(self, producer: Producer, cause: KafkaException, deadline: Deadline) -> FencedError | CommitError:
        """
        Abort, so that read-committed readers need not wait for the transaction's timeout; return what became of it.

        A process that was stopped for longer than the transaction may last finds its records timed out by its own
        clock; only the coordinator knows whose partition it is by now. Whether it was taken, the transaction had
        expired, or the abort was in time: the partition can be dropped and, if nobody else has it, taken again.
        """
        translated = self._translated(cause, "committing")
        if isinstance(translated, FencedError):
            return translated
        try:
            resumed(producer.abort_transaction, deadline)
        except KafkaException as error:
            _LOG.warning("transaction_abort_failed", partition=self._partition, error=_text(error))
            over = error.args[0].code() in _FENCED | _EXPIRED
            return self._translated(error, "aborting") if over else translated
        return self._overslept(cause) if cause.args[0].code() == KafkaError._TIMED_OUT else translated  # noqa: SLF001 -- public constant

    def _cause(self, error: KafkaException) -> KafkaException:
        if error.args[0].code() in _BARE and self._producer is not None:
            return _fatal_cause(self._producer, error)
        return error

    def _translated(self, error: KafkaException, doing: str) -> FencedError | CommitError:
        broken = error.args[0].code() in _BARE
        error = self._cause(error)
        if error.args[0].code() in _FENCED:
            return FencedError(f"partition {self._partition} was taken by another worker while {doing}")
        if error.args[0].code() in _EXPIRED:
            return self._overslept(error)
        kind = BrokenTransactionError if broken else CommitError
        return kind(f"{doing} for partition {self._partition} failed: {_text(error)}")

    def _overslept(self, error: KafkaException) -> FencedError:
        return FencedError(f"the transaction of partition {self._partition} lasted too long: {_text(error)}")

    def close(self) -> None:
        """Drop the clients; an open transaction is left to the next owner's fence, which aborts it."""
        with self._lock:
            self._closed = True
            if self._members is not None:
                self._members.close()
            self._members = None
            if self._producer is not None:
                self._producer.purge()
            self._producer = None


def _fatal_cause(producer: Producer, error: KafkaException) -> KafkaException:
    """
    Return what broke a producer, given the bare "fatal error" that `produce` raises ever after.

    A producer that was fenced between two of our calls learns it from a request under way; only the transactional
    calls say why, and this one asks nobody.
    """
    try:
        producer.begin_transaction()
    except KafkaException as cause:
        return cause
    return error


def _text(error: KafkaException) -> str:
    kafka_error = error.args[0]
    return kafka_error.str() if isinstance(kafka_error, KafkaError) else str(error)
