"""The live lane: what changes now is read ahead of a long backlog that lies before it in the same partitions."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.encoding.backlog import Record
from streams.encoding.watermark import Position
from streams.errors import DependencyError
from streams.kafka.bulk_read import reader
from streams.settings import Settings

_LOG = structlog.get_logger(__name__)

#: Records of one poll: live ones are few, and what is being polled is not being encoded.
_POLL_RECORDS = 256
#: Going on from a known place takes some hundred milliseconds; bulk items wait for it no longer than this.
_CATCH_UP_S = 2.0

Place = tuple[str, int]


class LiveLane:
    """
    A second reader of the partitions held, from their ends; it joins no group and commits nothing.

    It decides only what is encoded sooner. The group's reader still reads every record, so nothing is lost with it, and
    where it starts is a matter of speed.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: Consumer | None = None
        self._held: set[Place] = set()
        self._starts: dict[Place, int] = {}
        self._next: dict[Place, int] = {}
        # Runs of records that were read, (first offset, next offset) each: a jump leaves a gap.
        self._runs: dict[Place, list[tuple[int, int]]] = {}
        # Partitions read from a known place whose end has not been met, and when that began.
        self._behind: set[Place] = set()
        self._since_s = 0.0

    @property
    def open(self) -> bool:
        """Whether records are read ahead."""
        return self._consumer is not None

    @property
    def starts(self) -> dict[Place, int]:
        """Offset of the first live record of each partition that had one."""
        return self._starts

    @property
    def caught_up(self) -> bool:
        """
        Whether what was read ahead before, here or by another member, has been read again.

        Until then an older version of an item may look like news.
        """
        return not self._behind or time.monotonic() - self._since_s > _CATCH_UP_S

    def follows(self, held: Collection[Place]) -> bool:
        """Whether it reads these partitions and no others."""
        return self.open and self._held == held

    def follow(self, held: Collection[Place], known: Mapping[Place, int]) -> None:
        """
        Read these partitions, and no others: each on from where it was, or from `known`, or from its end.

        Raises
        ------
        DependencyError
            When Kafka refuses.

        """
        self._held = set(held)
        starts = {at: self._starts.get(at, known.get(at)) for at in self._held}
        self._next = {at: offset for at, offset in self._next.items() if at in self._held}
        self._runs = {at: runs for at, runs in self._runs.items() if at in self._held}
        self._starts = {at: start for at, start in starts.items() if start is not None}
        places = {at: self._next.get(at, self._starts.get(at, OFFSET_END)) for at in self._held}
        self._behind = {at for at, offset in places.items() if offset != OFFSET_END}
        self._since_s = time.monotonic()
        try:
            if self._consumer is None:
                # A start that was deleted meanwhile gives way to the end. A fetch may wait longer than a restore's
                # does: it is answered with the first record.
                self._consumer = reader(self._settings, auto_offset_reset="latest", fetch_wait_max_ms=100)
            self._consumer.assign([TopicPartition(*at, offset) for at, offset in places.items()])
        except KafkaException as error:
            raise _sentence(error) from error
        _LOG.info("live_lane_open", partitions=len(held))

    def forget(self, lost: Collection[Place]) -> None:
        """Drop partitions that were taken away: should they come back, they are read from where their commit says."""
        for at in lost:
            self._held.discard(at)
            self._starts.pop(at, None)
            self._next.pop(at, None)
            self._runs.pop(at, None)

    def jump(self) -> None:
        """Leave what was not read yet to the group's reader, and read on from the ends."""
        self._starts, self._next = {}, {}
        self.follow(self._held, {})

    def poll(self) -> list[Record]:
        """
        Return what has come, without waiting.

        Raises
        ------
        DependencyError
            When Kafka refuses; that it is away is noticed by the group's reader.

        """
        if self._consumer is None:
            return []
        try:
            fetched = self._consumer.consume(_POLL_RECORDS, timeout=0)
        except KafkaException as error:
            raise _sentence(error) from error
        return [self._record(message) for message in fetched if self._is_good(message)]

    def is_bulk(self, position: Position) -> bool:
        """Whether a record that the group's reader brings lies before everything that is live."""
        if self._consumer is None:
            return False
        start = self._starts.get(position[:2])
        return start is None or position.offset < start

    def has_read(self, position: Position) -> bool:
        """Whether a record that the group's reader brings was read here before."""
        return any(first <= position.offset < after for first, after in self._runs.get(position[:2], ()))

    def passed(self, reached: Mapping[Place, int]) -> bool:
        """Whether the group's reader, by its next offsets, has read all that was read here."""
        return all(reached.get(at, 0) >= offset for at, offset in self._next.items())

    def close(self) -> None:
        """Read nothing ahead any more."""
        if self._consumer is None:
            return
        self._consumer.close()
        self._consumer = None
        self._held, self._starts, self._next, self._behind, self._runs = set(), {}, {}, set(), {}
        _LOG.info("live_lane_closed")

    def _record(self, message: Message) -> Record:
        position = Position(str(message.topic()), int(message.partition() or 0), int(message.offset() or 0))
        at = position[:2]
        self._starts.setdefault(at, position.offset)
        runs = self._runs.setdefault(at, [])
        first = runs.pop()[0] if at in self._next and runs else position.offset
        runs.append((first, position.offset + 1))
        self._next[at] = position.offset + 1
        return Record(position, shop=True, key=message.key(), value=message.value(), ahead=True)

    def _is_good(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 -- public constant
            self._behind.discard((str(message.topic()), int(message.partition() or 0)))
            return False
        if error.fatal():
            raise DependencyError(f"reading {message.topic()} ahead failed: {error.str()}")
        _LOG.warning("live_lane_silent", error=error.str())
        return False


def _sentence(error: KafkaException) -> DependencyError:
    return DependencyError(f"reading items ahead failed: {error.args[0].str()}")
