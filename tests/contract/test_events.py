"""Events on the wire: what is accepted, what is refused and why, and that nothing raises."""

from __future__ import annotations

import math
import string
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.settings import EVENT_TYPES
from streams.wire.events import TYPE_CODES, Event, TimeBounds, decode_event, event_hash, parse_time_ms
from streams.wire.limits import MAX_EVENT_BYTES, Rejected
from tests.support import oracle
from tests.support.bad_records import BAD_RECORDS, ODD_RECORDS, RECORD_TS_MS, USER, BadRecord, good

BOUNDS = TimeBounds(max_age_ms=5 * 365 * 86_400_000, max_ahead_ms=120_000)
CLICK = TYPE_CODES["clicks"]

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
_FIELDS = (
    "event_id", "user_id", "item_id", "ts", "session_id", "surface", "query", "price", "quantity", "position",
    "recommendation_id", "item", "items",
)  # fmt: skip


def decode(value: bytes | None, key: bytes | None = USER, type_code: int = CLICK) -> Event | Rejected:
    """Decode with the usual bounds."""
    return decode_event(type_code, key, value, RECORD_TS_MS, BOUNDS)


@pytest.mark.parametrize("bad", BAD_RECORDS, ids=lambda bad: bad.name)
def test_bad_record_is_refused_for_its_reason(bad: BadRecord) -> None:
    """Every kind of bad record becomes a value with the expected reason and a short printable sentence."""
    rejected = decode(bad.value, bad.key, TYPE_CODES[bad.type_name])
    assert isinstance(rejected, Rejected)
    assert bad.reason == rejected.reason
    assert rejected.error.isprintable()
    assert len(rejected.error) < 300


def test_bad_records_are_many_and_differ() -> None:
    """The list holds more kinds than the thirty that are promised, each once."""
    assert len(BAD_RECORDS) >= 35
    assert len(BAD_RECORDS) == len({bad.name for bad in BAD_RECORDS})


@pytest.mark.parametrize(("name", "value"), ODD_RECORDS, ids=[name for name, _ in ODD_RECORDS])
def test_odd_record_is_accepted(name: str, value: bytes) -> None:
    """What looks odd and breaks no rule is an event, and its texts can be written again."""
    event = decode(value)
    assert isinstance(event, Event), name
    assert event.item_id.encode()


def test_full_event() -> None:
    """Every field of the format arrives as documented."""
    value = good(
        session_id="s", surface="home", device="phone", locale="de-DE", query="mug", price=9.5, quantity=2, position=3,
        recommendation_id="r", item={"title": "Mug", "tags": ["kitchen"], "attributes": {"ml": 330}},
    )  # fmt: skip
    event = decode(value)
    assert isinstance(event, Event)
    assert (
        event.session_id, event.surface, event.device, event.locale, event.query,
    ) == ("s", "home", "phone", "de-DE", "mug")  # fmt: skip
    assert (event.price, event.quantity, event.position, event.recommendation_id) == (9.5, 2.0, 3, "r")
    assert event.item is not None
    assert (
        event.item.item_id, event.item.title, event.item.tags, event.item.attributes,
    ) == ("i1", "Mug", ("kitchen",), (("ml", "330"),))  # fmt: skip


def test_impression_keeps_the_order_of_its_items() -> None:
    """An impression is one record per rendered list, items in order, integers as their decimal."""
    value = orjson.dumps({"event_id": "e", "user_id": "u1", "ts": RECORD_TS_MS, "items": ["b", 7, "a"]})
    event = decode(value, type_code=TYPE_CODES["impressions"])
    assert isinstance(event, Event)
    assert event.items == ("b", "7", "a")
    assert event.item_id == ""


def test_size_limit_is_inclusive() -> None:
    """A record of exactly 64 KiB is read, one byte more is not."""
    value = good() + b" " * (MAX_EVENT_BYTES - len(good()))
    assert isinstance(decode(value), Event)
    assert isinstance(decode(value + b" "), Rejected)


def test_time_is_clamped_and_told() -> None:
    """An event from the future counts at its record's time plus the bound, and says that it was clamped."""
    latest = RECORD_TS_MS + BOUNDS.max_ahead_ms
    for ts, expected in ((latest, (latest, False)), (latest + 1, (latest, True)), (RECORD_TS_MS - 5, None)):
        event = decode(good(ts=ts))
        assert isinstance(event, Event)
        assert (expected or (ts, False)) == (event.ts_ms, event.clamped)


def test_oldest_time_is_inclusive() -> None:
    """The age bound itself is accepted, a millisecond more is too old."""
    oldest = RECORD_TS_MS - BOUNDS.max_age_ms
    assert isinstance(decode(good(ts=oldest)), Event)
    refused = decode(good(ts=oldest - 1))
    assert isinstance(refused, Rejected)
    assert refused.reason == "too_old"


@settings(deadline=None)
@given(st.integers(100_000_000_000, 9_999_999_999_999))
def test_iso_and_milliseconds_agree(ts_ms: int) -> None:
    """A time written as ISO 8601 reads as the same millisecond."""
    moment = datetime.fromtimestamp(ts_ms // 1000, UTC).replace(microsecond=ts_ms % 1000 * 1000)
    assert ts_ms == parse_time_ms(moment.isoformat())


def test_event_hash_is_pinned() -> None:
    """The hash stands in durable records: type 1, id `e1`, is these 64 bits for ever."""
    assert event_hash(CLICK, "e1") == 5131657929157440374
    assert event_hash(CLICK, "e1") == oracle.hash_of("clicks", "e1")
    assert len(EVENT_TYPES) == len({event_hash(code, "e1") for code in range(len(EVENT_TYPES))})


def test_type_codes_are_pinned() -> None:
    """Type codes stand in durable records; new types are appended."""
    names = ("views", "clicks", "carts", "purchases", "dislikes", "impressions")
    assert {name: code for code, name in enumerate(names)} == TYPE_CODES


@settings(deadline=None)
@given(st.binary(max_size=200) | st.none(), st.binary(max_size=300) | st.none(), st.sampled_from(range(6)))
def test_any_bytes_are_a_value(key: bytes | None, value: bytes | None, type_code: int) -> None:
    """No bytes make the decoder raise."""
    assert isinstance(decode(value, key, type_code), Event | Rejected)


@settings(deadline=None)
@given(_JSON, st.sampled_from(range(6)))
def test_any_json_is_a_value(document: Any, type_code: int) -> None:
    """No JSON document makes the decoder raise."""
    try:
        value = orjson.dumps(document)
    except orjson.JSONEncodeError:  # a lone surrogate cannot be written by orjson; the json module escapes it
        return
    assert isinstance(decode(value, type_code=type_code), Event | Rejected)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(_FIELDS), _JSON), st.sampled_from(range(6)))
def test_any_field_values_are_a_value(fields: dict[str, Any], type_code: int) -> None:
    """Whatever the fields hold, an accepted event is finite, within its limits and can be written as UTF-8."""
    value = good(**{name: field for name, field in fields.items() if _writable(field)})
    event = decode(value, type_code=type_code)
    if isinstance(event, Rejected):
        return
    assert event.user_id.encode() == USER
    for text in (event.item_id, event.event_id, event.session_id, event.query, *event.items):
        text.encode()
    for item_id in (event.item_id, *event.items):
        assert len(item_id.encode()) <= 200
        assert not set(item_id) & (set(string.whitespace) - {" "})
    assert all(number is None or math.isfinite(number) for number in (event.price, event.quantity))


def _writable(document: Any) -> bool:
    try:
        orjson.dumps(document)
    except orjson.JSONEncodeError:
        return False
    return True
