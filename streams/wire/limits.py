"""Limits on what enters, checked before anything is stored, and the shape of a refusal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import orjson

#: One event, 64 KiB: a hundred times the usual click, small enough that a run of records stays in memory.
MAX_EVENT_BYTES = 65_536
#: One item snapshot: descriptions and attributes are long, but the encoder reads a few hundred tokens of them.
MAX_ITEM_BYTES = 262_144
#: Ids travel in keys, Redis keys and records; 200 bytes hold any UUID, URN or SKU.
MAX_ID_BYTES = 200
#: Deeper JSON has no use in any of our formats.
MAX_DEPTH = 8
#: Short free texts: session, surface, device, locale, recommendation id.
MAX_LABEL_CHARS = 200
#: A search query as typed.
MAX_QUERY_CHARS = 1_000
#: Items in one impression: the longest list is 100.
MAX_IMPRESSION_ITEMS = 200
#: Integers below this are seconds, not milliseconds, since the epoch (1e11 ms is March 1973).
MIN_EPOCH_MS = 100_000_000_000
#: The year 2286: beyond it is no time but a mistake of units (microseconds).
MAX_EPOCH_MS = 10_000_000_000_000

Reason = Literal[
    "tombstone",
    "null_key",
    "bad_key",
    "oversize",
    "not_json",
    "not_object",
    "too_deep",
    "missing_field",
    "wrong_type",
    "bad_id",
    "not_finite",
    "too_long",
    "bad_time",
    "too_old",
    "key_mismatch",
    "wrong_partition",
    "bad_model_output",
    "bad_image",
    "bug",
]


@dataclass(frozen=True, slots=True)
class Rejected:
    """
    A record that cannot be used: a value, not an exception.

    Attributes
    ----------
    reason
        One of a closed set; safe as a metric label.
    error
        A sentence for people; never holds more than a short, printable excerpt of the input.

    """

    reason: Reason
    error: str


class RejectedError(Exception):
    """Carries a `Rejected` out of nested checks to the decoder that returns it."""

    def __init__(self, reason: Reason, error: str) -> None:
        super().__init__(error)
        self.rejected = Rejected(reason, error)


def read_user_record(key: bytes | None, value: bytes | None, what: str, max_bytes: int) -> dict[str, Any]:
    """
    Return the JSON object of a record that is keyed by a user; `what` names the kind of record in messages.

    >>> read_user_record(b"u", b'{"user_id":"u"}', "an event", 100)
    {'user_id': 'u'}

    Raises
    ------
    RejectedError
        When key or value is missing, or the value is too large or no JSON object.

    """
    if value is None:
        raise RejectedError("tombstone", f"{what} has a value")
    if key is None:
        raise RejectedError("null_key", f"{what} needs its user_id as key")
    if len(value) > max_bytes:
        raise RejectedError("oversize", f"{len(value)} bytes, {max_bytes} are allowed")
    try:
        fields = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise RejectedError("not_json", f"not JSON: {error.msg}") from None
    if type(fields) is not dict:
        raise RejectedError("not_object", f"{what} is one JSON object, not {type(fields).__name__}")
    return fields


def check_id(value: Any, field: str) -> str:
    """
    Return an id as text: UTF-8 of 1 to 200 bytes without control characters; an integer reads as its decimal.

    >>> check_id(42, "item_id")
    '42'
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise RejectedError("wrong_type", f"{field} must be a string or an integer, not {type(value).__name__}")
    if value.isascii():
        if not 1 <= len(value) <= MAX_ID_BYTES or not value.isprintable():
            raise RejectedError("bad_id", f"{field} must have 1 to {MAX_ID_BYTES} bytes and no control characters")
        return value
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise RejectedError("bad_id", f"{field} is not valid Unicode") from None
    if size > MAX_ID_BYTES or any(ord(char) < 0x20 or 0x7F <= ord(char) <= 0x9F for char in value):
        raise RejectedError("bad_id", f"{field} must have 1 to {MAX_ID_BYTES} bytes and no control characters")
    return value


def check_text(value: Any, field: str, max_chars: int) -> str:
    """Return a text of at most `max_chars` characters that can be written as UTF-8."""
    if not isinstance(value, str):
        raise RejectedError("wrong_type", f"{field} must be a string, not {type(value).__name__}")
    if len(value) > max_chars:
        raise RejectedError("too_long", f"{field} has {len(value)} characters, {max_chars} are allowed")
    return value


def check_number(value: Any, field: str, low: float, high: float) -> float:
    """Return a finite number within `low..high`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RejectedError("wrong_type", f"{field} must be a number, not {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RejectedError("not_finite", f"{field} must be finite")
    if not low <= number <= high:
        raise RejectedError("wrong_type", f"{field} must lie in {low:g}..{high:g}")
    return number


def check_depth(value: Any, room: int = MAX_DEPTH) -> None:
    """Refuse JSON nested deeper than `room`, and numbers in it that are not finite."""
    if isinstance(value, dict | list):
        if room == 0:
            raise RejectedError("too_deep", f"nested deeper than {MAX_DEPTH}")
        for part in value.values() if isinstance(value, dict) else value:
            check_depth(part, room - 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise RejectedError("not_finite", "a number is not finite")
