"""Sending records from the command line: the partition by murmur2, each refusal counted, one deadline at the end."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.errors import DependencyError
from streams.kafka.clients import librdkafka_config
from streams.kafka.partitioner import LIBRDKAFKA_PARTITIONER
from streams.settings import Settings
from streams.topics import TOPICS

#: Replayed dead letters are the largest records that this sends.
_MAX_MESSAGE_BYTES = TOPICS["dead-letters"].max_message_bytes


class Sender:
    """
    An idempotent producer with counted answers. A context manager: leaving it waits for the answers.

    Attributes
    ----------
    sent
        Records Kafka has taken.
    refused
        One sentence for each record Kafka has not taken.

    """

    def __init__(self, settings: Settings) -> None:
        self.sent = 0
        self.refused: list[str] = []
        self._settings = settings
        self._producer = Producer(
            librdkafka_config(
                settings,
                enable_idempotence=True,  # keeps the order of a key's records over retries
                partitioner=LIBRDKAFKA_PARTITIONER,
                compression_type="lz4",
                linger_ms=5,
                message_max_bytes=_MAX_MESSAGE_BYTES,
                message_timeout_ms=round(settings.kafka_timeout_s * 1000),
            )
        )

    def send(
        self,
        topic: str,
        key: bytes,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] | None = None,
        partition: int = -1,
    ) -> None:
        """Queue one record for Kafka's full topic name, by default where its key belongs; waits while it is full."""
        options: dict[str, Any] = {"headers": list(headers)} if headers else {}
        while True:
            try:
                self._producer.produce(topic, value, key, partition, on_delivery=self._answered, **options)
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                # Refused before it was queued: larger than any topic takes.
                self.refused.append(_text(error.args[0]))
                return
            else:
                self._producer.poll(0)
                return

    def flush(self) -> None:
        """
        Wait until every queued record is answered.

        Raises
        ------
        DependencyError
            When Kafka leaves some without an answer for `kafka_timeout_s`.

        """
        if left := self._producer.flush(self._settings.kafka_timeout_s):
            raise DependencyError(
                f"Kafka at {self._settings.kafka_bootstrap} did not take {left} records "
                f"within {self._settings.kafka_timeout_s:g} s ({self.sent} were taken)"
            )

    def _answered(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self.sent += 1
        else:
            self.refused.append(_text(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()


def _text(error: object) -> str:
    return error.str() if isinstance(error, KafkaError) else str(error)
