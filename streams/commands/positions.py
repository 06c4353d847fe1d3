"""What `freshet dead-letters replay` remembers: how far it came, as commits of a consumer group."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import orjson

from streams.errors import DependencyError
from streams.settings import Settings


class Position(NamedTuple):
    """
    How far the letters of one partition of `dead-letters` have been replayed.

    A replay with `--reason` or `--topic` passes over the rest, so each class (source topic and reason) that went ahead
    has an offset of its own. The position is what a consumer group commits: `offset`, and `ahead` as its metadata.

    Attributes
    ----------
    offset
        Every letter below it is done.
    ahead
        Class to the offset below which its letters are done, where that is above `offset`.

    """

    offset: int = 0
    ahead: dict[str, int] = {}  # noqa: RUF012  # never changed in place

    def done(self, offset: int, kind: str) -> bool:
        """
        Whether a letter was replayed before.

        >>> Position(5, {"clicks bug": 9}).done(7, "clicks bug"), Position(5).done(7, "clicks bug")
        (True, False)
        """
        return offset < max(self.offset, self.ahead.get(kind, 0))

    def metadata(self) -> str:
        """Return what stands beside the offset in the group's commit; at most a few classes exist in a partition."""
        return orjson.dumps(self.ahead).decode() if self.ahead else ""

    @classmethod
    def read(cls, offset: int, metadata: str | None) -> Position:
        """Read a commit; a negative offset stands for none."""
        try:
            ahead = orjson.loads(metadata) if metadata else {}
        except orjson.JSONDecodeError:
            ahead = {}  # another tool moved the group: its offset counts
        return cls(max(0, offset), ahead if isinstance(ahead, dict) else {})


class Positions:
    """
    How far each partition of `dead-letters` has been replayed, as commits of a consumer group. A context manager.

    Attributes
    ----------
    known
        The positions at the start, by partition.

    """

    def __init__(self, settings: Settings) -> None:
        from streams.commands.lookup import partition_counts
        from streams.topics import full_name

        self.known: dict[int, Position] = {}
        self._settings = settings
        self._topic = full_name(settings, "dead-letters")
        self._partitions = range(partition_counts(settings, "dead-letters")["dead-letters"])
        self._consumer: Any = None

    def __enter__(self) -> Self:
        """Read the commits; the consumer never joins the group."""
        from confluent_kafka import Consumer, KafkaException, TopicPartition

        from streams.kafka.clients import librdkafka_config

        group = self._settings.group("dead-letters-replay")
        self._consumer = Consumer(librdkafka_config(self._settings, group_id=group, enable_auto_commit=False))
        wanted = [TopicPartition(self._topic, partition) for partition in self._partitions]
        try:
            told = self._consumer.committed(wanted, timeout=self._settings.kafka_timeout_s)
        except KafkaException as error:
            self._consumer.close()
            raise DependencyError(f"reading what was replayed before failed: {error.args[0]}") from error
        self.known = {place.partition: Position.read(place.offset, place.metadata) for place in told}
        return self

    def commit(self, after: dict[int, Position]) -> None:
        """
        Remember new positions.

        Raises
        ------
        DependencyError
            When Kafka does not take them; the records were sent and would be sent again.

        """
        from confluent_kafka import KafkaException, TopicPartition

        places = [
            TopicPartition(self._topic, partition, position.offset, position.metadata())
            for partition, position in after.items()
        ]
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            raise DependencyError(
                f"the records were sent, but remembering it failed: {error.args[0]}; do not replay without looking"
            ) from error

    def __exit__(self, *_: object) -> None:
        """Close the consumer."""
        self._consumer.close()
