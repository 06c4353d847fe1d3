"""Reading a compacted topic from start to end, read-committed, in bulk: restore, and the tools that look."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.errors import DependencyError
from streams.kafka.clients import librdkafka_config
from streams.kafka.deadline import Deadline
from streams.settings import Settings

_LOG = structlog.get_logger(__name__)

#: A restore of more than this long says how far it is; shorter ones say it when they are done.
_TELL_S = 3.0

#: Records a call hands over; librdkafka gives them in one crossing of the GIL.
_CHUNK = 10_000


def reader(settings: Settings, **extra: object) -> Consumer:
    """Return a consumer that joins no group: it is assigned partitions by hand and never commits."""
    options: dict[str, object] = {
        # librdkafka demands a group id even where no group is used; a random one can meet nobody.
        "group_id": f"{settings.topic_prefix}freshet-reader-{uuid.uuid4().hex}",
        "enable_auto_commit": False,
        "enable_partition_eof": True,
        "isolation_level": "read_committed",
        "auto_offset_reset": "earliest",
        # The end of a partition is told only by an empty fetch; its long poll is what a short restore waits for.
        "fetch_wait_max_ms": 10,
        # What bounds reading ahead is the next line, 16 MB a reader: a tenth of a second of restoring.
        "queued_min_messages": 500_000,
        "queued_max_messages_kbytes": 16 << 10,
        "fetch_message_max_bytes": 2 << 20,
        # A full queue is fetched into again this long after. librdkafka's own second had a restore wait half its time.
        "fetch_queue_backoff_ms": 10,
    }
    return Consumer(librdkafka_config(settings, **(options | extra)))


def read_to_end(
    settings: Settings,
    topic: str,
    partitions: Iterable[int],
    on_messages: Callable[[Sequence[Message]], None],
    deadline: Deadline,
    starts: Mapping[int, int] | None = None,
) -> dict[int, int]:
    """
    Hand every record of the partitions to `on_messages` in chunks, in offset order within a partition.

    `starts` names the first offset of partitions that were read before; the others are read from their beginning.

    Returns
    -------
    The offset behind the last record of each partition, as it was when its end was reached.

    Raises
    ------
    DependencyError
        When an end is not reached before the deadline.

    """
    waiting = set(partitions)
    ends: dict[int, int] = {}
    consumer = reader(settings)
    try:
        known = starts or {}
        consumer.assign([TopicPartition(topic, number, known.get(number, OFFSET_BEGINNING)) for number in waiting])
        while waiting:
            # `consume` alone would wait out its timeout at the end of a partition; `poll` returns with what there is.
            first = consumer.poll(min(1.0, deadline.remaining_s()))
            fetched = [] if first is None else [first, *consumer.consume(_CHUNK - 1, timeout=0)]
            messages = [message for message in fetched if message.error() is None]
            if len(messages) < len(fetched):
                reached = _ends(topic, fetched)
                waiting -= reached.keys()
                ends |= reached
            if messages:
                on_messages(messages)
            if waiting and deadline.passed:
                raise DependencyError(f"the end of {topic} was not reached in time (partitions {sorted(waiting)})")
    except KafkaException as error:
        raise DependencyError(f"reading {topic} failed: {error.args[0]}") from error
    finally:
        consumer.close()
    return ends


def _ends(topic: str, fetched: Iterable[Message]) -> dict[int, int]:
    """Return the ends that are told among the messages, by partition; raise for an error that stays."""
    ends: dict[int, int] = {}
    for message in fetched:
        error = message.error()
        if error is None:
            continue
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 -- public constant
            ends[message.partition()] = message.offset()
        elif not error.retriable():
            raise DependencyError(f"reading {topic} failed: {error.str()}")
    return ends


class Progress:
    """
    How far the reading of one partition is: told in the log every few seconds, and to whoever asks.

    Written by the thread that reads, read by any.

    >>> Progress("user-state", 3, 100, 300).details()
    {'records': 0, 'percent': 0.0}
    """

    def __init__(
        self, topic: str, partition: int, start: int, end: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.records = 0
        self._topic = topic
        self._partition = partition
        self._start = start
        self._end = end
        self._position = start
        self._clock = clock
        self._began = self._told = clock()

    def note(self, messages: Sequence[Message]) -> None:
        """Count a chunk that was read and taken in."""
        self.records += len(messages)
        self._position = messages[-1].offset() + 1
        now = self._clock()
        if now - self._told < _TELL_S:
            return
        self._told = now
        rate = round(self.records / (now - self._began))
        _LOG.info("restoring", topic=self._topic, partition=self._partition, records_per_s=rate, **self.details())

    def details(self) -> dict[str, float]:
        """Return the records read, and how much of the partition's offsets lies behind, in percent."""
        share = (self._position - self._start) / max(1, self._end - self._start)
        return {"records": self.records, "percent": round(100 * min(1.0, share), 1)}
