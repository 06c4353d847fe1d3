"""
Reading interactions out of records, compiled: the short way, for what plainly is one.

The short way knows JSON objects of plain fields: strings of printable ASCII without escapes, numbers without sign or
exponent, `true`, `false` and `null`. Whatever it does not know, or what breaks a limit, it leaves: then
`streams.wire.events.decode_event` alone decides what an event is and why a record is none. So it may refuse anything,
and must never take what the definition would read differently; a property test holds the two together.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from models.compiled import compiled
from models.hashing import event_name, murmur2
from models.segments import NO_DEVICE, OTHER_DEVICE
from streams.catalogue.ids import ItemNames
from streams.interests.columns import Bool, Int64, Records, UInt8
from streams.wire.limits import MAX_EPOCH_MS, MAX_EVENT_BYTES, MAX_ID_BYTES, MAX_LABEL_CHARS, MAX_QUERY_CHARS


class Bounds(NamedTuple):
    """
    What a record must keep to.

    Attributes
    ----------
    partition, partitions
        Where its key must belong, of how many.
    max_age_ms, max_ahead_ms
        How far event time may lie behind and before the record's.
    erased_ms
        Records appended up to then may be of a user who was erased since; -1 for none.

    """

    partition: int
    partitions: int
    max_age_ms: int
    max_ahead_ms: int
    erased_ms: int


_FIELDS: Final = (
    b"user_id", b"item_id", b"event_id", b"ts", b"session_id", b"surface", b"device", b"locale", b"recommendation_id",
    b"query", b"price", b"quantity", b"position", b"item",
)  # fmt: skip
_EVENT: Final = 2
_TS: Final = 3
_DEVICE: Final = 6
_QUERY: Final = 9
_QUANTITY: Final = 11
_POSITION: Final = 12
_ITEM: Final = 13
#: A field that no limit is about.
_UNKNOWN: Final = 14
_REQUIRED: Final = 0b1111

#: Where in what is found of a record the place of its device stands, behind three ids and the time; its size follows.
_DEVICE_AT: Final = 7
#: Numbers that are found of a record.
FOUND: Final = 9

_NAMES: Final = np.frombuffer(b"".join(_FIELDS), np.uint8).copy()
_NAME_AT: Final = np.cumsum([0, *map(len, _FIELDS)])

#: Digits before the point: a number of 12 is below the greatest price, 10^12, and exact; a time has 12 or 13.
_MAX_DIGITS: Final = 13
_MIN_EPOCH_DIGITS: Final = 12
_MAX_POSITION_DIGITS: Final = 4

_QUOTE: Final = 0x22
_BACKSLASH: Final = 0x5C
_ZERO: Final = 0x30
_NINE: Final = 0x39
_TRUE: Final = np.frombuffer(b"true", np.uint8).copy()
_FALSE: Final = np.frombuffer(b"false", np.uint8).copy()
_NULL: Final = np.frombuffer(b"null", np.uint8).copy()


@compiled
def read_events(
    pool: UInt8, records: Records, kind: int, bounds: Bounds, devices: ItemNames, events: Records, left: Bool,
    found: Int64,
) -> int:  # fmt: skip
    """
    Read interactions; return how many were read.

    Parameters
    ----------
    pool, records
        The columns of `streams.kafka.transport.Records`, (n,).
    kind
        Type code of all.
    devices
        Names of the devices that are told apart.
    events
        (n,) `EVENT` out, filled from the start.
    left
        (n,) out: which records go the long way.
    found
        (`FOUND`,) scratch: where the three ids of a record stand, its time, and where its device stands.

    """
    count = 0
    for at in range(len(records)):
        event = events[count]
        if _read_one(pool, records, at, bounds, found, event):
            event.kind = kind
            event.event_hash = event_name(kind, pool, event.event_at, event.event_size)
            event.device = _device(pool, found[_DEVICE_AT], found[_DEVICE_AT + 1], devices)
            count += 1
        else:
            left[at] = True
    return count


@compiled
def _read_one(pool: UInt8, records: Records, at: int, bounds: Bounds, found: Int64, event: Any) -> bool:
    """Read one record's fields into a row of `EVENT`, then hold them against the limits."""
    record = records[at]
    if record.value_size < 0 or record.value_size > MAX_EVENT_BYTES or record.timestamp <= bounds.erased_ms:
        return False
    if not _fields(pool, record.value_at, record.value_at + record.value_size, found):
        return False
    event.user_at, event.user_size = found[0], found[1]
    event.item_at, event.item_size = found[2], found[3]
    event.event_at, event.event_size = found[4], found[5]
    event.ts = found[6]
    event.offset = record.offset
    event.record_ms = record.timestamp
    ahead_ms = event.ts - event.record_ms
    if event.ts > MAX_EPOCH_MS or ahead_ms > bounds.max_ahead_ms or -ahead_ms > bounds.max_age_ms:
        return False
    if record.key_size != event.user_size:
        return False
    for place in range(record.key_size):
        if pool[record.key_at + place] != pool[event.user_at + place]:
            return False
    return murmur2(pool, record.key_at, record.key_size) % bounds.partitions == bounds.partition


@compiled
def _fields(pool: UInt8, at: int, end: int, found: Int64) -> bool:
    """Find where ids and device stand, and the time, in an object; False for anything that is not plain."""
    seen = 0
    found[_DEVICE_AT + 1] = 0
    at = _blank(pool, at, end)
    if at >= end or pool[at] != ord("{"):
        return False
    while True:
        name_at = _blank(pool, at + 1, end)
        name_end = _string(pool, name_at, end)
        if name_end < 0:
            return False
        field = _field(pool, name_at + 1, name_end - name_at - 2)
        at = _blank(pool, name_end, end)
        if field == _ITEM or at >= end or pool[at] != ord(":"):
            return False
        if field != _UNKNOWN:
            if seen & (1 << field):
                return False
            seen |= 1 << field
        at = _value(pool, field, _blank(pool, at + 1, end), end, found)
        if at < 0:
            return False
        at = _blank(pool, at, end)
        if at >= end:
            return False
        if pool[at] == ord("}"):
            return _blank(pool, at + 1, end) == end and seen & _REQUIRED == _REQUIRED
        if pool[at] != ord(","):
            return False


@compiled
def _value(pool: UInt8, field: int, at: int, end: int, found: Int64) -> int:
    """Return the place behind a field's value, -1 for one that is not plain or not what the field may hold."""
    if at >= end:
        return -1
    if pool[at] == _QUOTE:
        behind = _string(pool, at, end)
        size = behind - at - 2
        if field <= _EVENT:
            found[2 * field], found[2 * field + 1] = at + 1, size
            return behind if 1 <= size <= MAX_ID_BYTES else -1
        if field == _TS or _QUERY < field <= _POSITION:
            return -1
        if field == _DEVICE:
            found[_DEVICE_AT], found[_DEVICE_AT + 1] = at + 1, size
        limit = MAX_QUERY_CHARS if field == _QUERY else MAX_EVENT_BYTES if field == _UNKNOWN else MAX_LABEL_CHARS
        return behind if size <= limit else -1
    if _ZERO <= pool[at] <= _NINE:
        if field <= _EVENT or _TS < field <= _QUERY:
            return -1
        return _number(pool, field, at, end, found)
    if field <= _TS:
        return -1
    if field == _UNKNOWN:
        behind = max(_literal(pool, at, end, _TRUE), _literal(pool, at, end, _FALSE))
        if behind > 0:
            return behind
    return _literal(pool, at, end, _NULL)


@compiled
def _number(pool: UInt8, field: int, at: int, end: int, found: Int64) -> int:
    """Return the place behind a number: digits, and for what may be a fraction a point and digits."""
    first = at
    number = 0
    while at < end and _ZERO <= pool[at] <= _NINE:
        number = 10 * number + (pool[at] - _ZERO)
        at += 1
        if at - first > _MAX_DIGITS:
            return -1
    digits = at - first
    if digits > 1 and pool[first] == _ZERO:
        return -1
    if field == _TS:
        found[2 * _TS] = number
        return at if digits >= _MIN_EPOCH_DIGITS else -1
    if field == _POSITION:
        return at if digits <= _MAX_POSITION_DIGITS else -1
    if digits == _MAX_DIGITS:
        return -1
    if at < end and pool[at] == ord("."):
        first = at + 1
        at = first
        while at < end and _ZERO <= pool[at] <= _NINE:
            at += 1
        if at == first:
            return -1
    return at


@compiled
def _field(pool: UInt8, at: int, size: int) -> int:
    """Return which field a name is."""
    for field in range(_UNKNOWN):
        first = _NAME_AT[field]
        if _NAME_AT[field + 1] - first != size:
            continue
        same = 0
        while same < size and pool[at + same] == _NAMES[first + same]:
            same += 1
        if same == size:
            return field
    return _UNKNOWN


@compiled
def _device(pool: UInt8, at: int, size: int, devices: ItemNames) -> int:
    """Return the code of a device, as `models.segments.device_code` does."""
    if size == 0 or len(devices.at) == 1:
        return NO_DEVICE
    for place in range(len(devices.at) - 1):
        first = devices.at[place]
        if devices.at[place + 1] - first != size:
            continue
        same = 0
        while same < size and pool[at + same] == devices.pool[first + same]:
            same += 1
        if same == size:
            return place + 1
    return OTHER_DEVICE


@compiled
def _blank(pool: UInt8, at: int, end: int) -> int:
    """Return the place of the next byte that is no white space."""
    while at < end and (pool[at] == 0x20 or pool[at] == 0x0A or pool[at] == 0x0D or pool[at] == 0x09):
        at += 1
    return at


@compiled
def _string(pool: UInt8, at: int, end: int) -> int:
    """Return the place behind a string of printable ASCII without escapes, -1 for anything else."""
    if at >= end or pool[at] != _QUOTE:
        return -1
    at += 1
    while at < end:
        byte = pool[at]
        at += 1
        if byte == _QUOTE:
            return at
        if byte < 0x20 or byte > 0x7E or byte == _BACKSLASH:
            return -1
    return -1


@compiled
def _literal(pool: UInt8, at: int, end: int, word: UInt8) -> int:
    """Return the place behind a word, -1 where another one stands."""
    if at + len(word) > end:
        return -1
    for place in range(len(word)):
        if pool[at + place] != word[place]:
            return -1
    return at + len(word)
