"""Records on their way out, and how a producer takes them in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Producer


class OutRecord(NamedTuple):
    """One record to produce; `topic` is Kafka's full name, `partition` is explicit wherever it matters."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int = -1
    headers: Sequence[tuple[str, bytes]] | None = None


class OutRecords(NamedTuple):
    """
    Many records of one partition of one topic.

    Attributes
    ----------
    pairs
        Keys and values; iterated once, in the thread that produces them.

    """

    topic: str
    partition: int
    pairs: Iterable[tuple[bytes, bytes]]


def produce(producer: Producer, record: OutRecord | OutRecords) -> int:
    """Hand a record, or many, to a producer; waits while its queue is full. Returns how many there were."""
    if isinstance(record, OutRecords):
        return _produce_pairs(producer, *record)
    _produce_one(producer, record)
    return 1


def _produce_one(producer: Producer, record: OutRecord) -> None:
    options: dict[str, Any] = {"headers": list(record.headers)} if record.headers else {}
    try:
        producer.produce(record.topic, record.value, record.key, record.partition, **options)
    except BufferError:
        _produce_when_there_is_room(producer, record.topic, record.value, record.key, record.partition, **options)


def _produce_pairs(producer: Producer, topic: str, partition: int, pairs: Iterable[tuple[bytes, bytes]]) -> int:
    """Return how many there were."""
    produce = producer.produce
    count = 0
    for key, value in pairs:
        count += 1
        try:
            produce(topic, value, key, partition)
        except BufferError:
            _produce_when_there_is_room(producer, topic, value, key, partition)
    return count


def _produce_when_there_is_room(producer: Producer, *record: Any, **options: Any) -> None:
    """Wait for the broker to take some of the queue of a million records, which is full."""
    while True:
        producer.poll(0.05)
        try:
            producer.produce(*record, **options)
        except BufferError:
            continue
        return
