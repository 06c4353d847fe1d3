"""Records that must end in dead-letters, as data: raw key and value, and the reason each is refused for."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

#: The record timestamp that the times below are judged against.
RECORD_TS_MS = 1_767_225_600_000
USER = b"u1"
_GOOD: dict[str, Any] = {"event_id": "e1", "user_id": "u1", "item_id": "i1", "ts": RECORD_TS_MS}


class BadRecord(NamedTuple):
    """One refused record; `type_name` is the topic it is bad on."""

    name: str
    key: bytes | None
    value: bytes | None
    reason: str
    type_name: str = "clicks"


def good(**fields: Any) -> bytes:
    """Return a valid click of user `u1`, with fields added or replaced."""
    return orjson.dumps({**_GOOD, **fields})


def _without(field: str) -> bytes:
    return orjson.dumps({name: value for name, value in _GOOD.items() if name != field})


def _raw(field: str, json: bytes) -> bytes:
    """Return the valid click with one field written as given: for JSON that no encoder writes."""
    return _without(field)[:-1] + b',"' + field.encode() + b'":' + json + b"}"


def _nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def _fields(name: str, reason: str, **fields: Any) -> BadRecord:
    return BadRecord(name, USER, good(**fields), reason)


def _json(name: str, reason: str, field: str, json: bytes) -> BadRecord:
    return BadRecord(name, USER, _raw(field, json), reason)


def _impression(name: str, reason: str, **fields: Any) -> BadRecord:
    event = {"event_id": "e1", "user_id": "u1", "ts": RECORD_TS_MS, **fields}
    return BadRecord(name, USER, orjson.dumps(event), reason, "impressions")


_WHOLE = (
    BadRecord("tombstone", USER, None, "tombstone"),
    BadRecord("null key", None, good(), "null_key"),
    BadRecord("null key and value", None, None, "tombstone"),
    BadRecord("empty value", USER, b"", "not_json"),
    BadRecord("text", USER, b"hello", "not_json"),
    BadRecord("cut short", USER, good()[:-5], "not_json"),
    BadRecord("two objects", USER, good() + good(), "not_json"),
    BadRecord("single quotes", USER, good().replace(b'"', b"'"), "not_json"),
    BadRecord("byte order mark", USER, b"\xef\xbb\xbf" + good(), "not_json"),
    BadRecord("UTF-16", USER, good().decode().encode("utf-16"), "not_json"),
    BadRecord("bad UTF-8", USER, good().replace(b"i1", b"\xff\xfe"), "not_json"),
    BadRecord("surrogate in UTF-8", USER, good().replace(b"i1", b"\xed\xa0\x80"), "not_json"),
    BadRecord("NUL bytes", USER, bytes(100), "not_json"),
    BadRecord("gzip", USER, b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "not_json"),
    BadRecord("array", USER, b"[" + good() + b"]", "not_object"),
    BadRecord("string", USER, b'"click"', "not_object"),
    BadRecord("number", USER, b"17", "not_object"),
    BadRecord("null", USER, b"null", "not_object"),
    BadRecord("empty object", USER, b"{}", "missing_field"),
    BadRecord("above 64 KiB", USER, good(query="q" * 65_536), "oversize"),
    BadRecord("900 KB", USER, good(item={"description": "d" * 900_000}), "oversize"),
    BadRecord("900 KB of nothing", USER, b" " * 900_000, "oversize"),
    BadRecord("nested 1,100 deep", USER, _nested(1_100), "not_json"),
    BadRecord("nested 30,000 deep", USER, _nested(30_000), "not_json"),
    BadRecord("nested 100,000 deep", USER, _nested(100_000), "oversize"),
    BadRecord("objects 2,000 deep", USER, b'{"a":' * 2_000 + b"1" + b"}" * 2_000, "not_json"),
    BadRecord("key of another user", b"u2", good(), "key_mismatch"),
    BadRecord("key with a blank", b"u1 ", good(), "key_mismatch"),
    BadRecord("empty key", b"", good(), "key_mismatch"),
    BadRecord("key not UTF-8", b"\xff\xfe", good(), "key_mismatch"),
    BadRecord("key in JSON quotes", b'"u1"', good(), "key_mismatch"),
)

_IDS = (
    *(BadRecord(f"no {field}", USER, _without(field), "missing_field") for field in _GOOD),
    *(_fields(f"{field} null", "wrong_type", **{field: None}) for field in ("event_id", "user_id", "item_id")),
    *(_fields(f"{field} an object", "wrong_type", **{field: {}}) for field in ("event_id", "user_id", "item_id")),
    _fields("item_id a list", "wrong_type", item_id=["i1"]),
    _fields("item_id true", "wrong_type", item_id=True),
    _fields("user_id false", "wrong_type", user_id=False),
    _fields("item_id a float", "wrong_type", item_id=7.0),
    _json("item_id beyond 64 bits", "wrong_type", "item_id", b"18446744073709551616"),
    _json("item_id of 400 digits", "not_json", "item_id", b"1" * 400),
    _fields("item_id empty", "bad_id", item_id=""),
    _fields("event_id empty", "bad_id", event_id=""),
    _fields("user_id empty", "bad_id", user_id=""),
    _fields("item_id of 201 bytes", "bad_id", item_id="i" * 201),
    _fields("item_id of 201 bytes in 67 characters", "bad_id", item_id="\u20ac" * 67),
    _fields("item_id with a line break", "bad_id", item_id="i\n1"),
    _fields("item_id with NUL", "bad_id", item_id="i\x001"),
    _fields("user_id with the unit separator", "bad_id", user_id="u\x1f1"),
    _fields("item_id with DEL", "bad_id", item_id="i\x7f"),
    _fields("item_id with a C1 control", "bad_id", item_id="i\x85"),
    _json("lone surrogate in item_id", "not_json", "item_id", rb'"\ud800"'),
    _json("reversed surrogates in user_id", "not_json", "user_id", rb'"\udc00\ud800"'),
    _json("lone surrogate in query", "not_json", "query", rb'"\udfff"'),
)

_TIMES = (
    _fields("ts in seconds", "bad_time", ts=RECORD_TS_MS // 1000),
    _fields("ts in microseconds", "bad_time", ts=RECORD_TS_MS * 1000),
    _fields("ts in nanoseconds", "bad_time", ts=RECORD_TS_MS * 1_000_000),
    _fields("ts zero", "bad_time", ts=0),
    _fields("ts negative", "bad_time", ts=-1),
    _fields("ts true", "bad_time", ts=True),
    _fields("ts null", "bad_time", ts=None),
    _fields("ts a float", "bad_time", ts=RECORD_TS_MS + 0.5),
    _fields("ts a list", "bad_time", ts=[RECORD_TS_MS]),
    _fields("ts digits in a string", "bad_time", ts=str(RECORD_TS_MS)),
    _fields("ts empty", "bad_time", ts=""),
    _fields("ts without zone", "bad_time", ts="2026-01-01T00:00:00"),
    _fields("ts a date alone", "bad_time", ts="2026-01-01"),
    _fields("ts of a 13th month", "bad_time", ts="2026-13-01T00:00:00Z"),
    _fields("ts of the year 1", "bad_time", ts="0001-01-01T00:00:00+00:00"),
    _fields("ts of the year 9999", "bad_time", ts="9999-12-31T23:59:59-23:59"),
    _fields("ts of 10,000 characters", "bad_time", ts="2" * 10_000),
    _fields("ts ancient", "too_old", ts=RECORD_TS_MS - 6 * 365 * 86_400_000),
    _json("ts NaN", "not_json", "ts", b"NaN"),
    _json("ts 1e999", "not_json", "ts", b"1e999"),
)

_OPTIONAL = (
    _json("price NaN", "not_json", "price", b"NaN"),
    _json("price Infinity", "not_json", "price", b"-Infinity"),
    _json("price 1e999", "not_json", "price", b"1e999"),
    _json("price of 401 digits", "not_json", "price", b"1" + b"0" * 400),
    _fields("price negative", "wrong_type", price=-0.01),
    _fields("price a string", "wrong_type", price="9.99"),
    _fields("price true", "wrong_type", price=True),
    _fields("price beyond reason", "wrong_type", price=1e13),
    _fields("quantity a list", "wrong_type", quantity=[1]),
    _fields("position negative", "wrong_type", position=-1),
    _fields("position a string", "wrong_type", position="3"),
    _fields("position a fraction", "wrong_type", position=1.5),
    _fields("session_id a number", "wrong_type", session_id=5),
    _fields("session_id too long", "too_long", session_id="s" * 201),
    _fields("query too long", "too_long", query="q" * 1_001),
    _fields("query an object", "wrong_type", query={"q": "mug"}),
    _fields("locale false", "wrong_type", locale=False),
    _fields("item a string", "wrong_type", item="Mug"),
    _fields("item a list", "wrong_type", item=[]),
    _fields("item.title a number", "wrong_type", item={"title": 5}),
    _fields("item.price a string", "wrong_type", item={"price": "5"}),
    _fields("item.price negative", "wrong_type", item={"price": -5}),
    _fields("item.in_stock a number", "wrong_type", item={"in_stock": 1}),
    _fields("item.tags a string", "wrong_type", item={"tags": "a,b"}),
    _fields("item.tags of numbers", "wrong_type", item={"tags": [1]}),
    _fields("item.attributes a list", "wrong_type", item={"attributes": []}),
    _fields("item.attributes nested", "wrong_type", item={"attributes": {"size": {"eu": 42}}}),
    _json("item nested 10 deep", "too_deep", "item", b'{"x":' + _nested(10) + b"}"),
    _json("unknown field nested 10 deep", "too_deep", "extra", _nested(10)),
    _json("unknown field nested 100 deep", "too_deep", "extra", _nested(100)),
    _json("unknown field nested 1,000 deep", "too_deep", "extra", _nested(1_000)),
)

_IMPRESSIONS = (
    _impression("impression without items", "missing_field"),
    _impression("items an object", "wrong_type", items={}),
    _impression("items a string", "wrong_type", items="i1"),
    _impression("items empty", "too_long", items=[]),
    _impression("items of 201", "too_long", items=list(range(201))),
    _impression("items with null", "wrong_type", items=["i1", None]),
    _impression("items with a list", "wrong_type", items=["i1", ["i2"]]),
    _impression("items with an empty id", "bad_id", items=["i1", ""]),
    _impression("impression with item_id alone", "missing_field", item_id="i1"),
)

#: Every kind of bad record on an event topic. A wrong partition is not here: only a worker can know it.
BAD_RECORDS: tuple[BadRecord, ...] = (*_WHOLE, *_IDS, *_TIMES, *_OPTIONAL, *_IMPRESSIONS)

#: Records that look odd and are good: name, value.
ODD_RECORDS: tuple[tuple[str, bytes], ...] = (
    ("white space around", b" \n" + good() + b"\n "),
    ("duplicate keys, the last counts", good()[:-1] + b',"item_id":"i2"}'),
    ("integer id", good(item_id=0)),
    ("negative integer id", good(item_id=-5)),
    ("largest integer id", good(item_id=2**64 - 1)),
    ("id of 200 bytes", good(item_id="i" * 200)),
    ("id with blanks and signs", good(item_id='a b:c/d\\e"f{}')),
    ("id beyond the basic plane", good(item_id="\U0001f600")),
    ("id with a right-to-left mark", good(item_id="i\u200f")),
    ("optional fields null", good(price=None, session_id=None, item=None)),
    ("unknown fields", good(extra={"a": [1, 2.5, None, True]})),
    ("time with zone", good(ts="2026-01-01T01:00:00+01:00")),
    ("time in the future", good(ts=RECORD_TS_MS + 10**9)),
    ("price zero", good(price=0)),
    ("empty snapshot", good(item={})),
)
