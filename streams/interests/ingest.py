"""
Records of one partition in, valid events out as columns; what cannot be used becomes dead letters with a reason.

Most records take the short way (`parsing`), compiled. What it leaves goes through `streams.wire.events.decode_event`,
which alone decides what an event is and why a record is none.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import structlog

from models.segments import device_code
from streams import metrics
from streams.catalogue.ids import ItemNames
from streams.interests.batch import EVENT, EventBatch
from streams.interests.columns import Records
from streams.interests.marks import Marks
from streams.interests.parsing import FOUND, Bounds, read_events
from streams.kafka.alignment import Slice
from streams.kafka.outgoing import OutRecord
from streams.kafka.partitioner import partition_of
from streams.kafka.transport import Record
from streams.settings import Settings
from streams.topics import EVENT_TOPICS, full_name
from streams.wire.dead_letters import DeadLetter
from streams.wire.events import IMPRESSION, TYPE_CODES, Event, TimeBounds, decode_event
from streams.wire.items import Item
from streams.wire.limits import Rejected

_LOG = structlog.get_logger(__name__)


class Ingested(NamedTuple):
    """Valid events, the item snapshots that came with them, and the dead letters of the rest."""

    batch: EventBatch
    snapshots: list[Item]
    dead_letters: list[OutRecord]


class _Collected:
    """Valid events as they are met, in no order yet: interactions and the bytes in which their ids stand."""

    def __init__(self) -> None:
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._parts: list[Records] = []
        self._texts = bytearray()
        self._rows: list[tuple[int, ...]] = []
        self.impressions: list[Event] = []
        self.snapshots: list[Item] = []

    def add_short(self, raw: bytes, events: Records) -> None:
        """Take events that went the short way; their ids stand in `raw`."""
        for name in ("user_at", "item_at", "event_at"):
            events[name] += self._raw_bytes
        self._raw.append(raw)
        self._raw_bytes += len(raw)
        self._parts.append(events)

    def add_long(self, event: Event, record: Record, device: int) -> None:
        """Take an event that went the long way, and the code of its device."""
        if event.type_code == IMPRESSION:
            self.impressions.append(event)
            return
        spans: list[int] = []
        for text in (event.user_id, event.item_id, event.event_id):
            encoded = text.encode()
            spans += (len(self._texts), len(encoded))
            self._texts += encoded
        at = (event.ts_ms, event.event_hash, record.offset, record.timestamp)
        self._rows.append((*at, *spans, event.type_code, device))
        if event.item is not None:
            self.snapshots.append(event.item)

    def batch(self) -> EventBatch:
        """Return what was taken."""
        if self._rows:
            self.add_short(bytes(self._texts), np.array(self._rows, EVENT))
        if len(self._parts) == 1:
            return EventBatch.of(self._raw[0], self._parts[0], self.impressions)
        events = np.concatenate(self._parts) if self._parts else np.empty(0, EVENT)
        return EventBatch.of(b"".join(self._raw), events, self.impressions)


class Ingest:
    """
    Decodes the records of one partition.

    Parameters
    ----------
    partitions
        Partition count of the event topics, for the check that a key belongs here.
    marks
        Who was erased, and when: records appended up to then are dropped.

    """

    def __init__(
        self,
        settings: Settings,
        partition: int,
        partitions: int,
        marks: Marks,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._types = {full_name(settings, name): (name, TYPE_CODES[name]) for name in EVENT_TOPICS}
        self._bounds = TimeBounds(
            max_age_ms=round(settings.max_event_age_s * 1000), max_ahead_ms=round(settings.max_event_ahead_s * 1000)
        )
        self._dead_letters_topic = full_name(settings, "dead-letters")
        self._partition = partition
        self._partitions = partitions
        self._marks = marks
        self._devices = settings.user_devices
        self._device_names = ItemNames.of(settings.user_devices)
        self._clock = clock

    def decode(self, pieces: Sequence[Slice]) -> Ingested:
        """Decode records; never raises for what stands in them."""
        collected = _Collected()
        dead_letters: list[OutRecord] = []
        refused: Counter[tuple[str, str]] = Counter()
        clamped = 0
        for piece in pieces:
            topic = piece.run.topic
            name, type_code = self._types[topic]
            for record in self._short_way(type_code, piece, collected):
                decoded = self._long_way(type_code, record)
                if decoded is None:
                    metrics.EVENTS.labels(name, "erased").inc()
                elif isinstance(decoded, Rejected):
                    refused[name, decoded.reason] += 1
                    dead_letters.append(self._dead_letter(decoded, topic, record))
                else:
                    clamped += decoded.clamped
                    collected.add_long(decoded, record, device_code(decoded.device, self._devices))
        for (name, reason), count in refused.items():
            metrics.DEAD_LETTERS.labels(name, reason).inc(count)
            metrics.EVENTS.labels(name, "rejected").inc(count)
        if clamped:
            metrics.CLAMPED.inc(clamped)
        return Ingested(collected.batch(), collected.snapshots, dead_letters)

    def _short_way(self, type_code: int, piece: Slice, collected: _Collected) -> Sequence[Record]:
        """Take what plainly is an interaction; return the records that are to go the long way."""
        records = piece.records
        if type_code == IMPRESSION:
            return records
        bounds = Bounds(
            self._partition, self._partitions, self._bounds.max_age_ms, self._bounds.max_ahead_ms,
            self._marks.newest_ms,
        )  # fmt: skip
        events = np.empty(len(records), EVENT)
        left = np.zeros(len(records), np.bool_)
        found = np.empty(FOUND, np.int64)
        count = read_events(
            records.pool, records.table, type_code, bounds, self._device_names, events, left, found
        )  # fmt: skip
        if count:
            collected.add_short(records.raw, events[:count])
        return () if count == len(records) else [records[at] for at in np.flatnonzero(left).tolist()]

    def _long_way(self, type_code: int, record: Record) -> Event | Rejected | None:
        """Decode one record; None for an event of a user who was erased after it."""
        try:
            decoded = decode_event(type_code, record.key, record.value, record.timestamp, self._bounds)
        except Exception as error:  # noqa: BLE001 -- our own bug must not stop the partition; the record is kept
            _LOG.exception("decode_failed", partition=self._partition, offset=record.offset)
            return Rejected("bug", f"{type(error).__name__} while decoding")
        if isinstance(decoded, Rejected):
            return decoded
        if (belongs := partition_of(decoded.user_id.encode(), self._partitions)) != self._partition:
            return Rejected(
                "wrong_partition",
                f"the key belongs to partition {belongs} of {self._partitions} (murmur2): "
                "producers of librdkafka need partitioner=murmur2_random",
            )
        return None if record.timestamp <= self._marks.at_ms.get(decoded.user_id, -1) else decoded

    def _dead_letter(self, rejected: Rejected, topic: str, record: Record) -> OutRecord:
        letter = DeadLetter.of(
            rejected, topic, self._partition, record.offset, round(self._clock() * 1000), record.key, record.value
        )
        return OutRecord(self._dead_letters_topic, topic.encode(), record.value, headers=letter.headers())
