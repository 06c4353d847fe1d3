"""
Reading `user-state` records into the columns, compiled: the mirror of `layout`; `codec` says what stands where.

Only what `layout` may have written is read. Any other record is refused, and `codec.decode` alone says what it holds.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from models.compiled import compiled
from models.segments import OTHER_DEVICE
from streams.interests import layout
from streams.interests.arenas import move_recent, move_tallies
from streams.interests.codec import FIXED, SAME_BODY_FROM, START
from streams.interests.columns import (
    RECENT_MAX,
    TALLIES_MAX,
    TYPES,
    Bool,
    Int32,
    Int64,
    Store,
    UInt8,
    UInt64,
)
from streams.wire.limits import MAX_ID_BYTES

_START: Final = START
_SAME_BODY_FROM: Final = SAME_BODY_FROM
_FIXED_BYTES: Final = FIXED.size
_MAX_ID_BYTES: Final = MAX_ID_BYTES
#: Where in the fixed part the counts by type, and the numbers of interactions, tallies and ids before the device stand.
_COUNTS_AT: Final = 40
_SIZES_AT: Final = 64
#: No record names more ids than it has interactions and tallies.
MAX_IDS: Final = RECENT_MAX + TALLIES_MAX
#: Times are below 2^62 ms and varints of seven bytes at most: 256 steps of 2^49 ms never leave 64 bits.
_LATEST: Final = 1 << 62
_VARINT_BITS: Final = 49
_INT32_MAX: Final = (1 << 31) - 1


class Content(NamedTuple):
    """
    Records one behind another.

    Attributes
    ----------
    raw, wide
        The bytes, read-only, and the same as `layout.words`.
    ends
        (n,) the place behind each record.

    """

    raw: UInt8
    wide: UInt64
    ends: Int64


class Parts(NamedTuple):
    """
    What was found in n records.

    Attributes
    ----------
    refused
        (n,) whether only the definition can tell what the record holds; nothing else is said of it then.
    bodies, margins
        (n,) where the body and, behind the tallies, the margin begins.
    columns
        (n,) where the ids end and the interactions begin.
    id_ends
        (n,) number of ids up to and with the record's own.
    id_at, id_size
        (ids,) int32, where each id stands and its bytes.

    """

    refused: Bool
    bodies: Int64
    margins: Int64
    columns: Int64
    id_ends: Int64
    id_at: Int32
    id_size: Int32


def content(raw: bytes, sizes: Int64) -> Content:
    """Return records that stand one behind another, (n,) their bytes, and `layout.SLACK` twice behind the last."""
    array = np.frombuffer(raw, np.uint8)
    return Content(array, layout.words(array), np.cumsum(sizes))


def empty_parts(records: int) -> Parts:
    """Return room for what is found in so many records."""
    places = [np.empty(records, np.int64) for _ in range(4)]
    id_at, id_size = (np.empty(records * MAX_IDS, np.int32) for _ in range(2))
    return Parts(np.zeros(records, np.bool_), places[0], places[1], places[2], places[3], id_at, id_size)


@compiled
def _varint(raw: UInt8, at: int, end: int) -> tuple[int, int]:
    """Return a number and the place behind it; a place beyond the end where none stands, and for all that follow."""
    value = 0
    shift = 0
    while at < end and shift < _VARINT_BITS:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return 0, end + 1


@compiled
def scan(content: Content, parts: Parts, seen: Int64, stamp: int) -> int:
    """
    Find the parts of checked records, those refused that `layout` did not write; return the number of ids.

    Parameters
    ----------
    seen
        (MAX_IDS + 1,) scratch: the record whose tallies named an item of that place last.
    stamp
        Number of the first record, greater than that of any scanned with this scratch before.

    """
    start = 0
    ids = 0
    for number in range(len(content.ends)):
        end = content.ends[number]
        body = start + _START + int(np.int64(content.wide[start] >> np.uint64(32)))
        margin = end + 1
        if content.raw[start + 2] >= _SAME_BODY_FROM and end - body >= _FIXED_BYTES:
            margin = _scan_body(content, body, end, parts, number, ids, seen, stamp + number)
        if margin <= end:
            ids += _sizes(content.wide, body)[2]
        parts.bodies[number] = body
        parts.margins[number] = margin
        parts.refused[number] = margin > end
        parts.id_ends[number] = ids
        start = end
    return ids


@compiled
def _sizes(wide: UInt64, body: int) -> tuple[int, int, int]:
    """Return the numbers of interactions, of tallies and of ids."""
    sizes = np.int64(wide[body + _SIZES_AT])
    return int(sizes & 0xFFFF), int(sizes >> 16 & 0xFFFF), int(sizes >> 32 & 0xFFFF)


@compiled
def _device(wide: UInt64, body: int) -> int:
    """Return the code of the device."""
    return int(wide[body + _SIZES_AT] >> np.uint64(48))


@compiled
def _scan_body(
    content: Content, body: int, end: int, parts: Parts, number: int, ids: int, seen: Int64, stamp: int
) -> int:  # fmt: skip
    """Return where the margin begins, beyond the end of a record that is refused; so do the functions of its parts."""
    recent_n, tally_n, names = _sizes(content.wide, body)
    first_ts = np.int64(content.wide[body])
    if recent_n > RECENT_MAX or tally_n > TALLIES_MAX or names > recent_n + tally_n:
        return end + 1
    if first_ts < 0 or first_ts > _LATEST or _device(content.wide, body) > OTHER_DEVICE:
        return end + 1
    at = _scan_ids(content.raw, body + _FIXED_BYTES, end, parts, ids, names)
    parts.columns[number] = at
    at, known = _scan_recent(content.raw, at, end, recent_n)
    at, known = _scan_tallies(content.raw, at, end, tally_n, known, seen, stamp)
    return at if known == names else end + 1


@compiled
def _scan_ids(raw: UInt8, at: int, end: int, parts: Parts, first: int, count: int) -> int:
    for place in range(first, first + count):
        if at >= end or raw[at] > _MAX_ID_BYTES or at + 1 + raw[at] > end:
            return end + 1
        parts.id_at[place] = at + 1
        parts.id_size[place] = raw[at]
        at += 1 + raw[at]
    return at


@compiled
def _scan_recent(raw: UInt8, at: int, end: int, count: int) -> tuple[int, int]:
    """Return the place behind the interactions and how many ids they name, each for the first time in its turn."""
    for _ in range(count):
        _, at = _varint(raw, at, end)
    known = 0
    for _ in range(count):
        place, at = _varint(raw, at, end)
        if place > known:
            return end + 1, 0
        known += place == known
    if at + 9 * count > end:
        return end + 1, 0
    for slot in range(at, at + count):
        if raw[slot] >= TYPES:
            return end + 1, 0
    return at + 9 * count, known


@compiled
def _scan_tallies(
    raw: UInt8, at: int, end: int, count: int, known: int, seen: Int64, stamp: int
) -> tuple[int, int]:  # fmt: skip
    """Return the place behind the tallies, each of another item, and how many ids are named now."""
    for _ in range(count):
        place, at = _varint(raw, at, end)
        if place > known or seen[place] == stamp:
            return end + 1, 0
        known += place == known
        seen[place] = stamp
        _, at = _varint(raw, at, end)
        for _ in range(TYPES):
            events, at = _varint(raw, at, end)
            if events > _INT32_MAX:
                return end + 1, 0
    return at + 8 * count, known


@compiled
def refuse_repeated(parts: Parts, items: Int32, mark: Int64, stamp: int) -> None:
    """
    Refuse records that name an id twice.

    Parameters
    ----------
    items
        (ids,) row of each id.
    mark
        (items,) scratch: the record that named an item last; `stamp` as in `scan`.

    """
    first = 0
    for number in range(len(parts.refused)):
        for place in range(first, parts.id_ends[number]):
            if mark[items[place]] == stamp + number:
                parts.refused[number] = True
            mark[items[place]] = stamp + number
        first = parts.id_ends[number]


@compiled
def fill(store: Store, masses: UInt64, rows: Int64, content: Content, parts: Parts, items: Int32, done: int) -> int:
    """
    Fill empty rows from records that were not refused, from `done` on; their vectors are stale.

    Return where it stopped: the end, or the first record an arena had no room for.

    Parameters
    ----------
    masses
        Masses of the store's tallies, their bits.
    rows, items
        (n,) row of each record's user, (ids,) row of each id.

    """
    largest_recent = store.recent_arena.sizes[-1]
    largest_tally = store.tally_arena.sizes[-1]
    for number in range(done, len(rows)):
        if (
            store.recent_arena.top[0] + largest_recent > len(store.recents)
            or store.tally_arena.top[0] + largest_tally > len(store.tallies)
        ):  # fmt: skip
            return number
        if not parts.refused[number]:
            start = content.ends[number - 1] if number else 0
            first_id = parts.id_ends[number - 1] if number else 0
            store.users[rows[number]].owed = content.raw[start + 3] & 1 != 0
            _fill_fixed(store, rows[number], content.wide, parts.bodies[number])
            at = _fill_recent(store, rows[number], content, parts, items, number, first_id)
            _fill_tallies(store, masses, rows[number], content, parts, items, number, first_id, at)
    return len(rows)


@compiled
def _fill_fixed(store: Store, row: int, wide: UInt64, at: int) -> None:
    user = store.users[row]
    user.first_ts = wide[at]
    user.floor_ts = wide[at + 16]
    user.floor_hash = wide[at + 24]
    for kind in range(TYPES):
        user.counts[kind] = wide[at + _COUNTS_AT + 4 * kind] & np.uint64(0xFFFFFFFF)
    user.device = _device(wide, at)
    user.stale = True


@compiled
def _fill_recent(
    store: Store, row: int, content: Content, parts: Parts, items: Int32, number: int, first_id: int
) -> int:  # fmt: skip
    """Return the place behind the interactions."""
    raw, wide, end = content.raw, content.wide, content.ends[number]
    recents, hashes = store.recents, store.hashes
    recent_n, _, _ = _sizes(wide, parts.bodies[number])
    at: int = parts.columns[number]
    if recent_n == 0:
        return at
    move_recent(store, row, recent_n)
    user = store.users[row]
    user.recent_n = recent_n
    first = user.recent_at
    ts = user.first_ts
    for slot in range(first, first + recent_n):
        step, at = _varint(raw, at, end)
        ts += step
        recents[slot].ts = ts
    for slot in range(first, first + recent_n):
        place, at = _varint(raw, at, end)
        recents[slot].item = items[first_id + place]
    for slot in range(first, first + recent_n):
        recents[slot].kind = raw[at]
        at += 1
    for slot in range(first, first + recent_n):
        hashes[slot] = wide[at]
        at += 8
    return at


@compiled
def _fill_tallies(
    store: Store, masses: UInt64, row: int, content: Content, parts: Parts, items: Int32, number: int, first_id: int,
    at: int,
) -> None:  # fmt: skip
    raw, wide, end = content.raw, content.wide, content.ends[number]
    tallies, tally_items = store.tallies, store.tally_items
    _, tally_n, _ = _sizes(wide, parts.bodies[number])
    if tally_n == 0:
        return
    move_tallies(store, row, tally_n)
    user = store.users[row]
    user.tally_n = tally_n
    first = user.tally_at
    for slot in range(first, first + tally_n):
        place, at = _varint(raw, at, end)
        tally_items[slot] = items[first_id + place]
        after, at = _varint(raw, at, end)
        tallies[slot].ts = user.first_ts + after
        for kind in range(TYPES):
            count, at = _varint(raw, at, end)
            tallies[slot].counts[kind] = count
    for slot in range(first, first + tally_n):
        masses[slot] = wide[at]
        at += 8
