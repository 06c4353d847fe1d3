"""
Replaying a log as live traffic, and loading items.

At most `IN_FLIGHT` events are unacknowledged at any moment, so the order on the broker, across all topics and
partitions, differs from the log by at most that many events: users' states are exact within a bounded disorder.
Within one partition the idempotent producer keeps the log's own order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.datasets.log import Log
from streams.errors import DependencyError
from streams.kafka.clients import librdkafka_config
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.items import Item

IN_FLIGHT = 200
#: Progress is told this often, in records.
_STEP = 200


class BoundedProducer:
    """
    A producer with at most `in_flight` unacknowledged records; use as a context, which flushes.

    Keys go where Java's producer puts them (murmur2).
    """

    def __init__(self, settings: Settings, in_flight: int = IN_FLIGHT) -> None:
        self._settings = settings
        self._limit = in_flight
        self._open = 0
        self._failure: KafkaError | None = None
        self.acknowledged = 0
        self._producer = Producer(
            librdkafka_config(
                settings,
                partitioner="murmur2_random",
                compression_type="lz4",
                acks="all",
                enable_idempotence=True,
                linger_ms=1,
                delivery_timeout_ms=round(settings.kafka_timeout_s * 1000),
            )
            # Failures are raised below; librdkafka would print each reconnect as well.
            | {"log_level": 2}
        )

    def send(self, topic: str, key: bytes, value: bytes | None) -> None:
        """
        Send one record to a topic (full name), waiting while too many are on their way.

        Raises
        ------
        DependencyError
            When Kafka refuses a record or is away for longer than `kafka_timeout_s`.

        """
        while self._open >= self._limit:
            self._producer.poll(0.05)
            self._check()
        self._open += 1
        try:
            self._producer.produce(topic, key=key, value=value, on_delivery=self._delivered)
        except KafkaException as error:
            self._open -= 1
            raise DependencyError(f"a record for {topic} cannot be sent: {error.args[0]}") from error
        self._producer.poll(0)
        self._check()

    def pause(self, seconds: float) -> None:
        """Serve acknowledgements for so long."""
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            self._producer.poll(left_s)
        self._check()

    def flush(self) -> None:
        """
        Return once everything is acknowledged.

        Raises
        ------
        DependencyError
            When Kafka refuses a record or is away for longer than `kafka_timeout_s`.

        """
        deadline = time.monotonic() + self._settings.kafka_timeout_s + 5
        while self._open and time.monotonic() < deadline:
            self._producer.poll(0.05)
            self._check()
        self._check()
        if self._open:
            raise DependencyError(f"Kafka did not acknowledge {self._open} records within its deadline")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()
        else:
            self._producer.purge()

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        self._open -= 1
        if error is None:
            self.acknowledged += 1
        elif self._failure is None:
            self._failure = error

    def _check(self) -> None:
        if self._failure is not None:
            raise DependencyError(f"Kafka did not take a record: {self._failure.str()}")


def load_items(settings: Settings, items: Iterable[Item]) -> int:
    """
    Write snapshots to `items`; return how many.

    Raises
    ------
    DependencyError
        When Kafka is away for longer than `kafka_timeout_s`.

    """
    topic = full_name(settings, "items")
    with BoundedProducer(settings, in_flight=10_000) as producer:
        for item in items:
            producer.send(topic, item.item_id.encode(), item.encode())
    return producer.acknowledged


def replay(
    settings: Settings,
    log: Log,
    *,
    speed: float | None,
    shift_ms: int = 0,
    progress: Callable[[int], Any] = lambda _done: None,
) -> int:
    """
    Send a log's events in time order to their topics; return how many were acknowledged.

    Parameters
    ----------
    speed
        Events per second; None as fast as the bounded number in flight allows.
    shift_ms
        Added to every event's time.
    progress
        Called now and then with the number of events sent so far.

    Raises
    ------
    DependencyError
        When Kafka is away for longer than `kafka_timeout_s`.

    """
    topics = {name: full_name(settings, name) for name in {entry.topic for entry in log.entries}}
    start = time.monotonic()
    with BoundedProducer(settings) as producer:
        for sent, entry in enumerate(log.entries):
            if sent % _STEP == 0:
                progress(sent)
            # Every tenth event, so that sleeping costs less than it paces.
            if speed is not None and sent % 10 == 0 and (ahead_s := start + sent / speed - time.monotonic()) > 0:
                producer.pause(ahead_s)
            producer.send(topics[entry.topic], entry.key, entry.value(shift_ms))
    progress(len(log.entries))
    return producer.acknowledged
