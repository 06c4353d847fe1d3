"""
Events on the wire: bytes in, `Event` or `Rejected` out.

The topic gives the type. Limits are checked before anything is stored; unknown fields are ignored; a record that
cannot be used is a value, so that its partition goes on.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from streams.settings import EVENT_TYPES
from streams.wire.items import Item, parse_snapshot
from streams.wire.limits import (
    MAX_EPOCH_MS,
    MAX_EVENT_BYTES,
    MAX_IMPRESSION_ITEMS,
    MAX_LABEL_CHARS,
    MAX_QUERY_CHARS,
    MIN_EPOCH_MS,
    Rejected,
    RejectedError,
    check_depth,
    check_id,
    check_number,
    check_text,
    read_user_record,
)

#: Type name to the small number that stands in state records; appended to, never renumbered.
TYPE_CODES: dict[str, int] = {name: code for code, name in enumerate(EVENT_TYPES)}
IMPRESSION = TYPE_CODES["impressions"]

_MASK_64 = 2**64 - 1
_LABELS = ("session_id", "surface", "device", "locale", "recommendation_id")


class Event(msgspec.Struct, frozen=True, gc=False):
    """
    One thing a user did.

    Attributes
    ----------
    type_code
        Index into `EVENT_TYPES`.
    ts_ms
        Event time, ms since the epoch, clamped to the record's time plus `max_event_ahead`.
    event_hash
        64 bits of (type, event_id): equal events of a user are equal here.
    items
        The rendered list of an impression, in order; empty for other types, which have `item_id`.
    clamped
        True when the event claimed to come from the future.

    """

    type_code: int
    user_id: str
    item_id: str
    ts_ms: int
    event_hash: int
    event_id: str
    session_id: str = ""
    surface: str = ""
    device: str = ""
    locale: str = ""
    recommendation_id: str = ""
    query: str = ""
    price: float | None = None
    quantity: float | None = None
    position: int | None = None
    item: Item | None = None
    items: tuple[str, ...] = ()
    clamped: bool = False


class TimeBounds(msgspec.Struct, frozen=True):
    """How far event time may lie from the record's own timestamp, in ms."""

    max_age_ms: int
    max_ahead_ms: int


def event_hash(type_code: int, event_id: str) -> int:
    """
    Return 64 bits that name the event within its user: FNV-1a of the id, begun with the type, and murmur3's finisher.

    Not a cryptographic hash: who can choose event ids can only make two events of one user one.

    >>> event_hash(1, "e1") == event_hash(2, "e1")
    False
    """
    mixed = 0xCBF29CE484222325 ^ type_code
    for byte in event_id.encode():
        mixed = (mixed ^ byte) * 0x100000001B3 & _MASK_64
    mixed = (mixed ^ mixed >> 33) * 0xFF51AFD7ED558CCD & _MASK_64
    mixed = (mixed ^ mixed >> 33) * 0xC4CEB9FE1A85EC53 & _MASK_64
    return mixed ^ mixed >> 33


def decode_event(
    type_code: int, key: bytes | None, value: bytes | None, record_ts_ms: int, bounds: TimeBounds
) -> Event | Rejected:
    """
    Read one record of an event topic.

    >>> bounds = TimeBounds(max_age_ms=10**11, max_ahead_ms=120_000)
    >>> value = b'{"event_id":"e1","user_id":"u","item_id":7,"ts":1700000000000}'
    >>> decode_event(1, b"u", value, 1700000000500, bounds).item_id
    '7'
    >>> decode_event(1, b"u", b"{", 1700000000500, bounds).reason
    'not_json'
    """
    try:
        fields = read_user_record(key, value, "an event", MAX_EVENT_BYTES)
        return _parse(type_code, key, fields, record_ts_ms, bounds)
    except RejectedError as error:
        return error.rejected


def _parse(type_code: int, key: bytes | None, fields: dict[str, Any], record_ts_ms: int, bounds: TimeBounds) -> Event:
    try:
        user_id = check_id(fields["user_id"], "user_id")
        event_id = check_id(fields["event_id"], "event_id")
        raw_ts = fields["ts"]
        if type_code == IMPRESSION:
            item_id, items = "", _check_items(fields["items"])
        else:
            item_id, items = check_id(fields["item_id"], "item_id"), ()
    except KeyError as error:
        raise RejectedError("missing_field", f"{error.args[0]} is missing") from None
    if key != user_id.encode():
        raise RejectedError("key_mismatch", "the key is not the user_id")
    ts_ms, clamped = _check_time(raw_ts, record_ts_ms, bounds)
    optional: dict[str, Any] = {}
    # The required fields were checked above; most events have nothing more.
    if len(fields) > 4:
        optional = check_optional(item_id, fields)
    return Event(
        type_code, user_id, item_id, ts_ms, event_hash(type_code, event_id), event_id,
        items=items, clamped=clamped, **optional,
    )  # fmt: skip


def _check_items(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise RejectedError("wrong_type", "items must be a list of item ids")
    if not 1 <= len(value) <= MAX_IMPRESSION_ITEMS:
        raise RejectedError("too_long", f"an impression has 1 to {MAX_IMPRESSION_ITEMS} items")
    return tuple(check_id(item_id, "items[]") for item_id in value)


def _check_time(raw: Any, record_ts_ms: int, bounds: TimeBounds) -> tuple[int, bool]:
    """Return the event time and whether it was clamped; both bounds count from the record's own time."""
    ts_ms = parse_time_ms(raw)
    if ts_ms < record_ts_ms - bounds.max_age_ms:
        raise RejectedError("too_old", f"ts is more than {bounds.max_age_ms // 86_400_000} days before its record")
    latest = record_ts_ms + bounds.max_ahead_ms
    return (latest, True) if ts_ms > latest else (ts_ms, False)


def parse_time_ms(raw: Any) -> int:
    """
    Return ms since the epoch from an integer or ISO 8601 text with a time zone.

    >>> parse_time_ms("2026-01-01T00:00:00Z")
    1767225600000

    Raises
    ------
    RejectedError
        For seconds, microseconds, negative or impossible times.

    """
    if isinstance(raw, int) and not isinstance(raw, bool):
        if not MIN_EPOCH_MS <= raw <= MAX_EPOCH_MS:
            raise RejectedError("bad_time", "ts must be milliseconds since the epoch (these look like other units)")
        return raw
    if isinstance(raw, str):
        if len(raw) > 40:
            raise RejectedError("bad_time", "ts is not ISO 8601")
        try:
            moment = datetime.fromisoformat(raw)
            if moment.tzinfo is None:
                raise RejectedError("bad_time", "ts has no time zone")
            ts_ms = round(moment.timestamp() * 1000)
        except (ValueError, OverflowError):
            raise RejectedError("bad_time", "ts is not ISO 8601") from None
        if not MIN_EPOCH_MS <= ts_ms <= MAX_EPOCH_MS:
            raise RejectedError("bad_time", "ts lies outside the years 1973 to 2286")
        return ts_ms
    raise RejectedError("bad_time", f"ts must be milliseconds or ISO 8601 text, not {type(raw).__name__}")


def check_optional(item_id: str, fields: dict[str, Any]) -> dict[str, Any]:
    """
    Return the optional fields of an event that are there, checked; `item` becomes the snapshot it holds.

    Raises
    ------
    RejectedError
        When one of them, or any unknown field, breaks a limit.

    """
    checked: dict[str, Any] = {}
    for name in _LABELS:
        if (label := fields.get(name)) is not None:
            checked[name] = check_text(label, name, MAX_LABEL_CHARS)
    if (query := fields.get("query")) is not None:
        checked["query"] = check_text(query, "query", MAX_QUERY_CHARS)
    for name in ("price", "quantity"):
        if (number := fields.get(name)) is not None:
            checked[name] = check_number(number, name, 0, 1e12)
    if (position := fields.get("position")) is not None:
        number = check_number(position, "position", 0, 10_000)
        if not number.is_integer():
            raise RejectedError("wrong_type", "position must be a whole number")
        checked["position"] = int(number)
    if (snapshot := fields.get("item")) is not None and item_id:
        checked["item"] = parse_snapshot(item_id, snapshot)
    for value in fields.values():
        if isinstance(value, dict | list | float):
            check_depth(value)
    return checked
