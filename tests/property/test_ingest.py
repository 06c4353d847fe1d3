"""Reading events: the short way, for whole runs, gives what the definition gives record by record."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.segments import device_code
from streams.catalogue.ids import ItemNames
from streams.interests.batch import EVENT, EventBatch
from streams.interests.budget import Budget
from streams.interests.ingest import Ingest
from streams.interests.marks import Marks
from streams.interests.parsing import FOUND, Bounds, read_events
from streams.kafka.partitioner import partition_of
from streams.kafka.transport import Record, Records
from streams.settings import EVENT_TYPES, Settings
from streams.wire.dead_letters import DeadLetter
from streams.wire.events import TYPE_CODES, Event, TimeBounds, decode_event
from tests.support.bad_records import BAD_RECORDS, RECORD_TS_MS, USER, BadRecord
from tests.support.records import slice_of

SETTINGS = Settings(accept_items_from_events=True, user_devices=("phone", "t\u00e9l\u00e9", "tablet"))
NOW_MS = 1_800_000_000_000
PARTITIONS = 3
BOUNDS = TimeBounds(max_age_ms=round(SETTINGS.max_event_age_s * 1000), max_ahead_ms=120_000)
Row = tuple[int, int, str, str, str, int]
HERE = [user for user in (f"u{number}" for number in range(40)) if partition_of(user.encode(), PARTITIONS) == 0]

_IDS = st.sampled_from([*HERE, "u\u00e9", "a b", "", "\x07", "x" * 201, 7, None])
_EXTRA = st.dictionaries(
    st.sampled_from(["session_id", "price", "position", "item", "unknown", "query"]),
    st.sampled_from(["s", 3, 1.5, -1, {"title": "t"}, {"title": 5}, None, [[[[[[[[[1]]]]]]]]]]),
    max_size=2,
)


@st.composite
def records(draw: st.DrawFn, offset: int) -> Record:
    """A record: mostly an event, with anything wrong with it now and then."""
    user = draw(st.sampled_from(HERE)) if draw(st.integers(0, 9)) else draw(_IDS)
    fields: dict[str, Any] = {
        "event_id": f"e{offset}" if draw(st.integers(0, 9)) else draw(_IDS),
        "user_id": user,
        "item_id": draw(st.sampled_from(["i1", "i2", "i\u00e9", 5])) if draw(st.integers(0, 9)) else draw(_IDS),
        "ts": NOW_MS - draw(st.sampled_from([0, 5, 10**6, -(10**7), 10**12, 2**70])),
    }
    if not draw(st.integers(0, 3)):
        fields |= draw(_EXTRA)
    if draw(st.booleans()):
        fields["device"] = draw(
            st.sampled_from(["phone", "tablet", "t\u00e9l\u00e9", "phones", "Phone", "", None, 5, "x" * 201])
        )
    if not draw(st.integers(0, 9)):
        del fields[draw(st.sampled_from(list(fields)))]
    key = str(user).encode() if draw(st.integers(0, 9)) else draw(st.sampled_from([None, b"other", b"\xff"]))
    value = orjson.dumps(fields) if fields.get("ts") != NOW_MS - 2**70 else b'{"ts":1e999}'
    return Record(offset, NOW_MS, key, value if draw(st.integers(0, 19)) else b"{")


@st.composite
def runs(draw: st.DrawFn) -> tuple[str, list[Record]]:
    """A run of one topic."""
    return draw(st.sampled_from(EVENT_TYPES)), [draw(records(offset)) for offset in range(draw(st.integers(1, 12)))]


def expected(topic: str, run: list[Record], erased: dict[str, int]) -> tuple[list[Event], list[int]]:
    """Return the events the definition gives, and the offsets of those it refuses."""
    events, refused = [], []
    for record in run:
        decoded = decode_event(TYPE_CODES[topic], record.key, record.value, record.timestamp, BOUNDS)
        if not isinstance(decoded, Event) or partition_of(record.key or b"", PARTITIONS) != 0:
            refused.append(record.offset)
        elif record.timestamp > erased.get(decoded.user_id, -1):
            events.append(decoded)
    return sorted(events, key=lambda event: (event.ts_ms, event.event_hash, event.event_id)), refused


def row_of(event: Event) -> Row:
    """Return what is read of an interaction."""
    device = device_code(event.device, SETTINGS.user_devices)
    return event.ts_ms, event.event_hash, event.event_id, event.user_id, event.item_id, device


def rows_of(batch: EventBatch) -> list[Row]:
    """Return what was read of interactions."""
    numbers = (column.tolist() for column in (batch.ts, batch.event_hash, batch.device))
    ts_ms, hashes, devices = numbers
    return list(zip(ts_ms, hashes, batch.event_ids, batch.users, batch.items, devices, strict=True))


@settings(max_examples=300, deadline=None)
@given(runs(), st.booleans())
def test_both_ways_lead_to_the_same_events(run: tuple[str, list[Record]], erasing: bool) -> None:  # noqa: FBT001 -- drawn
    """Whatever stands in a run: the same events, the same snapshots, the same records refused."""
    topic, found = run
    erased = {HERE[0]: NOW_MS} if erasing else {}
    marks = Marks(Budget(1, 1))
    for user_id, at_ms in erased.items():
        marks.put(user_id, at_ms)
    ingested = Ingest(SETTINGS, 0, PARTITIONS, marks).decode([slice_of(topic, found)])
    batch = ingested.batch
    events, refused = expected(topic, found, erased)
    acted = [event for event in events if not event.items]

    assert sorted(map(row_of, acted)) == sorted(rows_of(batch))
    assert sorted(e.event_id for e in events if e.items) == sorted(e.event_id for e in batch.impressions)
    letters = [DeadLetter.from_record(list(record.headers or ()), record.value) for record in ingested.dead_letters]
    assert refused == sorted(letter.offset for letter in letters)
    snapshots = [event.item for event in acted if event.item is not None]
    assert sorted(map(repr, snapshots)) == sorted(map(repr, ingested.snapshots))


PLAIN = orjson.dumps(
    {
        "event_id": "e-1", "user_id": HERE[0], "item_id": "i1", "ts": NOW_MS, "session_id": "s", "query": "tea",
        "price": 12.5, "quantity": 2, "position": 10, "new": True, "old": None, "other": "x", "device": "tablet",
    }
)  # fmt: skip
#: What JSON is made of, and what breaks it.
_PIECES = (*(bytes([byte]) for byte in b'{}[]":,\\ 019.-+eEtfn\x00\x1f\x7f\x80\xc3'), b"null", b"true", b"", b'"ts":5,')
_BYTES = st.sampled_from(_PIECES)


@st.composite
def altered(draw: st.DrawFn) -> bytes:
    """The bytes of a plain event, with some of them replaced, inserted, taken out or cut off."""
    value = bytearray(PLAIN)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(value)))
        value[at : at + draw(st.integers(0, 2))] = draw(_BYTES)
    return bytes(value[: draw(st.integers(0, len(value)))] if draw(st.integers(0, 5)) == 0 else value)


@settings(max_examples=500)
@given(altered())
def test_altered_bytes_are_read_as_the_definition_reads_them(value: bytes) -> None:
    """Whatever a byte more, less or other makes of an event: compiled code takes it only for what it is."""
    run = [Record(0, NOW_MS, HERE[0].encode(), value)]
    ingested = Ingest(SETTINGS, 0, PARTITIONS, Marks(Budget(1, 1))).decode([slice_of("clicks", run)])
    batch = ingested.batch
    events, refused = expected("clicks", run, {})

    assert list(map(row_of, events)) == rows_of(batch)
    assert len(refused) == len(ingested.dead_letters)


def test_a_plain_event_goes_the_short_way() -> None:
    """All fields that events may have, but a snapshot, are read by compiled code; none of this is decoded twice."""
    records = Records.of([Record(0, NOW_MS, HERE[0].encode(), PLAIN)])
    bounds = Bounds(0, PARTITIONS, BOUNDS.max_age_ms, BOUNDS.max_ahead_ms, -1)
    events, left, found = np.empty(1, EVENT), np.zeros(1, np.bool_), np.empty(FOUND, np.int64)
    devices = ItemNames.of(SETTINGS.user_devices)

    assert 1 == read_events(records.pool, records.table, 1, bounds, devices, events, left, found)
    assert 3 == events["device"][0]


@pytest.mark.parametrize("device", ["phone", "watch", "t\u00e9l\u00e9", "", None])
def test_devices_are_not_looked_at_where_none_are_named(device: str | None) -> None:
    """Without the setting every code is that of a device that is not told, whichever way the event is read."""
    fields = {"event_id": "e", "user_id": HERE[0], "item_id": "i", "ts": NOW_MS, "device": device}
    run = [Record(0, NOW_MS, HERE[0].encode(), orjson.dumps(fields))]
    ingested = Ingest(Settings(), 0, PARTITIONS, Marks(Budget(1, 1))).decode([slice_of("clicks", run)])
    assert [0] == ingested.batch.device.tolist()


@pytest.mark.parametrize("bad", BAD_RECORDS, ids=lambda bad: bad.name)
def test_a_bad_record_among_good_ones_is_refused_alone(bad: BadRecord) -> None:
    """Each kind of bad record, hidden in a run of good events, is the only one refused, for its own reason."""
    user = USER.decode()
    event = {"user_id": user, "item_id": "i", "ts": RECORD_TS_MS}
    run = [
        Record(offset, RECORD_TS_MS, USER, orjson.dumps({**event, "event_id": f"good-{offset}"})) for offset in range(4)
    ]
    topic = bad.type_name
    if topic == "impressions":
        run = []
    run.insert(len(run) // 2, Record(99, RECORD_TS_MS, bad.key, bad.value))
    ingested = Ingest(SETTINGS, 0, 1, Marks(Budget(1, 1))).decode([slice_of(topic, run)])
    (letter,) = [DeadLetter.from_record(list(record.headers or ()), record.value) for record in ingested.dead_letters]

    assert (bad.reason, 99) == (letter.reason, letter.offset)
    assert len(run) - 1 == len(ingested.batch.users)
