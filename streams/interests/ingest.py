"""Records of one partition in, valid events out; what cannot be used becomes dead letters with a reason."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple

import structlog

from streams import metrics
from streams.kafka.alignment import Slice
from streams.kafka.partitioner import partition_of
from streams.kafka.transactions import OutRecord
from streams.settings import Settings
from streams.topics import EVENT_TOPICS, full_name
from streams.wire.dead_letters import DeadLetter
from streams.wire.events import TYPE_CODES, Event, TimeBounds, decode_event
from streams.wire.limits import Rejected

_LOG = structlog.get_logger(__name__)


class Source(NamedTuple):
    """Where an event came from; `timestamp_ms` is its record's own."""

    topic: str
    offset: int
    timestamp_ms: int


class Ingested(NamedTuple):
    """
    Valid events in order of event time with their sources, index by index, and the dead letters of the rest.

    In order of time, because a backlog may hold hours of one topic before the first record of the next: folded as
    they came, the first topic's events would push the others' below the floor of users with many.
    """

    events: list[Event]
    sources: list[Source]
    dead_letters: list[OutRecord]


class Ingest:
    """
    Decodes the records of one partition.

    Parameters
    ----------
    partitions
        Partition count of the event topics, for the check that a key belongs here.
    known
        Users already met in this partition; their keys were checked then.

    """

    def __init__(
        self,
        settings: Settings,
        partition: int,
        partitions: int,
        known: Container[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._types = {full_name(settings, name): (name, TYPE_CODES[name]) for name in EVENT_TOPICS}
        self._bounds = TimeBounds(
            max_age_ms=round(settings.max_event_age_s * 1000), max_ahead_ms=round(settings.max_event_ahead_s * 1000)
        )
        self._dead_letters_topic = full_name(settings, "dead-letters")
        self._partition = partition
        self._partitions = partitions
        self._known = known
        self._clock = clock

    def decode(self, pieces: Sequence[Slice]) -> Ingested:
        """Decode records; never raises for what stands in them."""
        decoded_events: list[tuple[Event, Source]] = []
        dead_letters: list[OutRecord] = []
        refused: Counter[tuple[str, str]] = Counter()
        clamped = 0
        for piece in pieces:
            topic = piece.run.topic
            name, type_code = self._types[topic]
            for record in piece.records:
                decoded = self._decode_one(type_code, record)
                if isinstance(decoded, Rejected):
                    refused[name, decoded.reason] += 1
                    dead_letters.append(self._dead_letter(decoded, topic, record))
                else:
                    clamped += decoded.clamped
                    decoded_events.append((decoded, Source(topic, record.offset, record.timestamp)))
        for (name, reason), count in refused.items():
            metrics.DEAD_LETTERS.labels(name, reason).inc(count)
            metrics.EVENTS.labels(name, "rejected").inc(count)
        if clamped:
            metrics.CLAMPED.inc(clamped)
        decoded_events.sort(key=_by_time)
        return Ingested([event for event, _ in decoded_events], [source for _, source in decoded_events], dead_letters)

    def _decode_one(self, type_code: int, record: Any) -> Event | Rejected:
        try:
            decoded = decode_event(type_code, record.key, record.value, record.timestamp, self._bounds)
        except Exception as error:  # noqa: BLE001 -- our own bug must not stop the partition; the record is kept
            _LOG.exception("decode_failed", partition=self._partition, offset=record.offset)
            return Rejected("bug", f"{type(error).__name__} while decoding")
        if (
            isinstance(decoded, Event)
            and decoded.user_id not in self._known
            and (belongs := partition_of(record.key, self._partitions)) != self._partition
        ):
            return Rejected(
                "wrong_partition",
                f"the key belongs to partition {belongs} of {self._partitions} (murmur2): "
                "producers of librdkafka need partitioner=murmur2_random",
            )
        return decoded

    def _dead_letter(self, rejected: Rejected, topic: str, record: Any) -> OutRecord:
        letter = DeadLetter.of(
            rejected, topic, self._partition, record.offset, round(self._clock() * 1000), record.key, record.value
        )
        return OutRecord(self._dead_letters_topic, topic.encode(), record.value, headers=letter.headers())


def _by_time(pair: tuple[Event, Source]) -> tuple[int, int]:
    return pair[0].ts_ms, pair[0].event_hash
