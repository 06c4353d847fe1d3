"""Reading a compacted topic from start to end, read-committed, in bulk: restore, and the tools that look."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.errors import DependencyError
from streams.kafka.clients import librdkafka_config
from streams.kafka.deadline import Deadline
from streams.settings import Settings

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
        # Restore is the only user: large fetches, deep queue.
        "fetch_message_max_bytes": 8 << 20,
        "queued_min_messages": 500_000,
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
        first = starts or {}
        consumer.assign([TopicPartition(topic, number, first.get(number, OFFSET_BEGINNING)) for number in waiting])
        while waiting:
            messages = []
            # `consume` alone would wait out its timeout at the end of a partition; `poll` returns with what there is.
            first = consumer.poll(min(1.0, deadline.remaining_s()))
            fetched = [] if first is None else [first, *consumer.consume(_CHUNK - 1, timeout=0)]
            for message in fetched:
                error = message.error()
                if error is None:
                    messages.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 -- public constant
                    waiting.discard(message.partition())
                    ends[message.partition()] = message.offset()
                elif not error.retriable():
                    raise DependencyError(f"reading {topic} failed: {error.str()}")
            if messages:
                on_messages(messages)
            if waiting and deadline.passed:
                raise DependencyError(f"the end of {topic} was not reached in time (partitions {sorted(waiting)})")
    except KafkaException as error:
        raise DependencyError(f"reading {topic} failed: {error.args[0]}") from error
    finally:
        consumer.close()
    return ends
