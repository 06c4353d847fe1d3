"""What the encoder writes: idempotent, acknowledged by all replicas, or the process ends."""

from __future__ import annotations

import threading

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.errors import DependencyError
from streams.kafka.clients import librdkafka_config
from streams.kafka.deadline import Deadline
from streams.kafka.partitioner import LIBRDKAFKA_PARTITIONER
from streams.settings import Settings
from streams.topics import TOPICS, full_name
from streams.wire.dead_letters import DeadLetter

_MAX_MESSAGE_BYTES = TOPICS["dead-letters"].max_message_bytes
#: A dead letter's bytes are cut here, so that the record fits with its headers (the key may stand among them).
_MAX_DEAD_LETTER_VALUE = 1_048_576
_MAX_DEAD_LETTER_KEY = 65_536

#: How long an orderly stop waits for acknowledgements: within the ten seconds a stop may take in all.
_STOP_FLUSH_S = 6.0


class Publisher:
    """
    An idempotent producer whose deliveries are awaited together.

    librdkafka rather than kafka-python: its deliveries are reported on the calling thread, and one core sends ten
    times as many records.
    """

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._error: str | None = None
        self._producer = Producer(
            librdkafka_config(
                settings,
                enable_idempotence=True,
                acks="all",
                compression_type="lz4",
                linger_ms=5,
                message_max_bytes=_MAX_MESSAGE_BYTES,
                message_timeout_ms=round(settings.kafka_timeout_s * 1000),
                partitioner=LIBRDKAFKA_PARTITIONER,
            ),
        )

    def send(
        self,
        topic: str,
        key: bytes,
        value: bytes | None,
        partition: int = -1,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        """
        Queue one record; `topic` is the name without namespace, a None value is a tombstone.

        Raises
        ------
        DependencyError
            When Kafka refuses the record.

        """
        while True:
            try:
                self._producer.produce(
                    full_name(self._settings, topic),
                    value=value,
                    key=key,
                    partition=partition,
                    headers=headers,
                    on_delivery=self._delivered,
                )
            except BufferError:
                self.flush()  # the queue is full: wait for what is in it
            except KafkaException as error:
                raise DependencyError(f"a record for {topic} was refused: {error.args[0].str()}") from error
            else:
                return

    def refuse(self, letter: DeadLetter) -> None:
        """Queue one dead letter; bytes beyond 1 MiB are cut, because no topic of Freshet admits them."""
        value = None if letter.value is None else letter.value[:_MAX_DEAD_LETTER_VALUE]
        headers = [(name, part[:_MAX_DEAD_LETTER_KEY]) for name, part in letter.headers()]
        self.send("dead-letters", letter.topic.encode(), value, headers=headers)

    def flush(self) -> None:
        """
        Wait until everything queued is acknowledged.

        Raises
        ------
        DependencyError
            When that takes longer than `kafka_timeout_s`, or six seconds while stopping, or Kafka refuses a record.

        """
        deadline = Deadline(self._settings.kafka_timeout_s)
        stopping: Deadline | None = None
        # Short slices: a signal is only handled between calls.
        while waiting := self._producer.flush(0.25):
            if self._stop.is_set() and stopping is None:
                stopping = Deadline(_STOP_FLUSH_S)
            if deadline.passed or (stopping is not None and stopping.passed):
                raise DependencyError(
                    f"Kafka at {self._settings.kafka_bootstrap} did not acknowledge {waiting} records in time"
                )
        if self._error is not None:
            raise DependencyError(f"Kafka did not take a record: {self._error}")

    def serve(self) -> None:
        """Take delivery reports; called on every turn, or they pile up while nothing is sent."""
        self._producer.poll(0)

    def close(self) -> None:
        """Drop what is not acknowledged; it was not committed either and is encoded again."""
        self._producer.purge()
        self._producer.flush(1.0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._error is None:
            self._error = f"{error.str()} ({message.topic()})"
