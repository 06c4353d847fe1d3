"""
Records of one partition in, valid events out as columns; what cannot be used becomes dead letters with a reason.

Most records take the short way: their four fields are read and the limits are checked for a whole run at once. What
the short way does not know, whatever it is, goes through `streams.wire.events.decode_event`, which alone decides what
an event is and why a record is none.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson
import structlog

from streams import metrics
from streams.interests.batch import EventBatch
from streams.interests.hashing import event_hashes
from streams.kafka.alignment import Slice
from streams.kafka.partitioner import partition_of
from streams.kafka.transactions import OutRecord
from streams.settings import Settings
from streams.topics import EVENT_TOPICS, full_name
from streams.wire.dead_letters import DeadLetter
from streams.wire.events import IMPRESSION, TYPE_CODES, Event, TimeBounds, check_optional, decode_event
from streams.wire.items import Item
from streams.wire.limits import MAX_EPOCH_MS, MAX_EVENT_BYTES, MAX_ID_BYTES, MIN_EPOCH_MS, Rejected, RejectedError

_LOG = structlog.get_logger(__name__)

T = TypeVar("T")

#: Fields every interaction has; an event with more has its optional ones checked.
_REQUIRED = 4


class Ingested(NamedTuple):
    """Valid events, the item snapshots that came with them, and the dead letters of the rest."""

    batch: EventBatch
    snapshots: list[Item]
    dead_letters: list[OutRecord]


@dataclass(slots=True)
class _Columns:
    """Valid interactions as they are met, in no order yet."""

    users: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    event_ids: list[str] = field(default_factory=list)
    ts: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    record_ms: list[int] = field(default_factory=list)
    impressions: list[Event] = field(default_factory=list)
    snapshots: list[Item] = field(default_factory=list)

    def add(self, event: Event, record: Any) -> None:
        """Take an event that went the long way."""
        if event.type_code == IMPRESSION:
            self.impressions.append(event)
            return
        self.users.append(event.user_id)
        self.items.append(event.item_id)
        self.event_ids.append(event.event_id)
        self.ts.append(event.ts_ms)
        self.kind.append(event.type_code)
        self.offset.append(record.offset)
        self.record_ms.append(record.timestamp)
        if event.item is not None:
            self.snapshots.append(event.item)


class Ingest:
    """
    Decodes the records of one partition.

    Parameters
    ----------
    partitions
        Partition count of the event topics, for the check that a key belongs here.
    known
        Users already met in this partition; their keys were checked then.
    erased
        When each erased user was erased, ms: records appended up to then are dropped.

    """

    def __init__(
        self,
        settings: Settings,
        partition: int,
        partitions: int,
        known: Container[str],
        erased: Mapping[str, int],
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
        self._erased = erased
        self._clock = clock

    def decode(self, pieces: Sequence[Slice]) -> Ingested:
        """Decode records; never raises for what stands in them."""
        columns = _Columns()
        dead_letters: list[OutRecord] = []
        refused: Counter[tuple[str, str]] = Counter()
        clamped = 0
        for piece in pieces:
            topic = piece.run.topic
            name, type_code = self._types[topic]
            for record in self._short_way(type_code, piece.records, columns):
                decoded = self._long_way(type_code, record)
                if decoded is None:
                    metrics.EVENTS.labels(name, "erased").inc()
                elif isinstance(decoded, Rejected):
                    refused[name, decoded.reason] += 1
                    dead_letters.append(self._dead_letter(decoded, topic, record))
                else:
                    clamped += decoded.clamped
                    columns.add(decoded, record)
        for (name, reason), count in refused.items():
            metrics.DEAD_LETTERS.labels(name, reason).inc(count)
            metrics.EVENTS.labels(name, "rejected").inc(count)
        if clamped:
            metrics.CLAMPED.inc(clamped)
        return Ingested(_in_order(columns), columns.snapshots, dead_letters)

    def _short_way(self, type_code: int, records: Sequence[Any], out: _Columns) -> Sequence[Any]:
        """
        Read what plainly is an interaction into `out`; return the records that are to go the long way.

        1. Read the fields of each record, one by one.
        2. Check ids, keys and times, all records at once; where a check fails, find the records that fail it.
        3. Look at users met for the first time: their keys must belong to this partition.
        """
        if type_code == IMPRESSION:
            return records
        # Step 1.
        parsed = _Columns()
        taken: list[Any] = []
        rest: list[Any] = []
        for record in records:
            value = record.value
            try:
                fields = orjson.loads(value)
                user_id, item_id, event_id, ts = (
                    fields["user_id"], fields["item_id"], fields["event_id"], fields["ts"],
                )  # fmt: skip
                if (
                    type(user_id) is not str or type(item_id) is not str or type(event_id) is not str
                    or type(ts) is not int or not MIN_EPOCH_MS <= ts <= MAX_EPOCH_MS or len(value) > MAX_EVENT_BYTES
                ):  # fmt: skip
                    rest.append(record)
                    continue
                if len(fields) > _REQUIRED and "item" in (optional := check_optional(item_id, fields)):
                    parsed.snapshots.append(optional["item"])
            except (orjson.JSONDecodeError, KeyError, TypeError, RejectedError):
                rest.append(record)
                continue
            taken.append(record)
            parsed.users.append(user_id)
            parsed.items.append(item_id)
            parsed.event_ids.append(event_id)
            parsed.ts.append(ts)
        parsed.record_ms = [record.timestamp for record in taken]
        # Step 2, 3.
        failed = self._failing(parsed, [record.key for record in taken])
        if failed:
            # Snapshots of an event that fails would be told without it: everything goes the long way, this once.
            if parsed.snapshots:
                return records
            rest.extend(taken[at] for at in sorted(failed))
            taken = _without(taken, failed)
            parsed.users, parsed.items = _without(parsed.users, failed), _without(parsed.items, failed)
            parsed.event_ids, parsed.ts = _without(parsed.event_ids, failed), _without(parsed.ts, failed)
            parsed.record_ms = _without(parsed.record_ms, failed)
        out.users += parsed.users
        out.items += parsed.items
        out.event_ids += parsed.event_ids
        out.ts += parsed.ts
        out.record_ms += parsed.record_ms
        out.kind += [type_code] * len(taken)
        out.offset += [record.offset for record in taken]
        out.snapshots += parsed.snapshots
        return rest

    def _failing(self, parsed: _Columns, keys: list[Any]) -> set[int]:
        """Return the places that a check of the short way did not pass."""
        failed: set[int] = set()
        for column in (parsed.users, parsed.items, parsed.event_ids):
            if not _plain(column):
                failed.update(at for at, text in enumerate(column) if not _plain([text]))
        encoded = [user_id.encode(errors="replace") for user_id in parsed.users]
        if encoded != keys:
            failed.update(at for at, (one, other) in enumerate(zip(encoded, keys, strict=True)) if one != other)
        ahead = np.array(parsed.ts, np.int64) - np.array(parsed.record_ms, np.int64)
        out_of_bounds = (ahead > self._bounds.max_ahead_ms) | (ahead < -self._bounds.max_age_ms)
        failed.update(np.flatnonzero(out_of_bounds).tolist())
        known, erased = self._known, self._erased
        for at, user_id in enumerate(parsed.users):
            if user_id not in known and partition_of(keys[at] or b"", self._partitions) != self._partition:
                failed.add(at)
        if erased:
            times = zip(parsed.users, parsed.record_ms, strict=True)
            failed.update(at for at, (user_id, ms) in enumerate(times) if ms <= erased.get(user_id, -1))
        return failed

    def _long_way(self, type_code: int, record: Any) -> Event | Rejected | None:
        """Decode one record; None for an event of a user who was erased after it."""
        try:
            decoded = decode_event(type_code, record.key, record.value, record.timestamp, self._bounds)
        except Exception as error:  # noqa: BLE001 -- our own bug must not stop the partition; the record is kept
            _LOG.exception("decode_failed", partition=self._partition, offset=record.offset)
            return Rejected("bug", f"{type(error).__name__} while decoding")
        if isinstance(decoded, Rejected):
            return decoded
        if (
            decoded.user_id not in self._known
            and (belongs := partition_of(record.key, self._partitions)) != self._partition
        ):
            return Rejected(
                "wrong_partition",
                f"the key belongs to partition {belongs} of {self._partitions} (murmur2): "
                "producers of librdkafka need partitioner=murmur2_random",
            )
        return None if record.timestamp <= self._erased.get(decoded.user_id, -1) else decoded

    def _dead_letter(self, rejected: Rejected, topic: str, record: Any) -> OutRecord:
        letter = DeadLetter.of(
            rejected, topic, self._partition, record.offset, round(self._clock() * 1000), record.key, record.value
        )
        return OutRecord(self._dead_letters_topic, topic.encode(), record.value, headers=letter.headers())


def _without(column: list[T], places: set[int]) -> list[T]:
    return [value for at, value in enumerate(column) if at not in places]


def _plain(texts: list[str]) -> bool:
    """Whether all are ids of 1 to 200 printable ASCII characters; others are judged one by one."""
    if not texts:
        return True
    joined = "".join(texts)
    return (
        joined.isascii() and joined.isprintable() and len(min(texts, key=len)) > 0
        and len(max(texts, key=len)) <= MAX_ID_BYTES
    )  # fmt: skip


def _in_order(columns: _Columns) -> EventBatch:
    kind = np.array(columns.kind, np.uint8)
    ts = np.array(columns.ts, np.int64)
    hashes = event_hashes(kind, columns.event_ids)
    order = np.lexsort((hashes, ts))
    places = order.tolist()
    columns.impressions.sort(key=lambda event: (event.ts_ms, event.event_hash))
    return EventBatch(
        users=[columns.users[at] for at in places],
        items=[columns.items[at] for at in places],
        event_ids=[columns.event_ids[at] for at in places],
        ts=ts[order],
        event_hash=hashes[order],
        kind=kind[order],
        offset=np.array(columns.offset, np.int64)[order],
        record_ms=np.array(columns.record_ms, np.int64)[order],
        impressions=columns.impressions,
    )
