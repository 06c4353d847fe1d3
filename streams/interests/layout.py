"""Writing the bodies of `user-state` records out of the columns, compiled; `codec` says what stands where."""

from __future__ import annotations

from typing import Final

import numpy as np

from streams.catalogue.ids import ItemNames
from streams.interests.codec import FIXED, SIZES_AT
from streams.interests.columns import TYPES, Int32, Int64, UInt8
from streams.interests.compiled import compiled
from streams.interests.fold import Store

_FIXED_BYTES: Final = FIXED.size
_SIZES_AT: Final = SIZES_AT
#: Longest parts: an interaction of 10 + 8 + 3 + 1 bytes, a tally of 3 + 10 + 8 + 5 a type, a length byte for each id.
_INTERACTION_BYTES: Final = 22
_TALLY_BYTES: Final = 21 + 5 * TYPES


@compiled
def _put(out: UInt8, at: int, value: int, size: int) -> int:
    """Write an unsigned number of `size` bytes; return the place behind it."""
    rest = np.uint64(value)
    for place in range(at, at + size):
        out[place] = rest & np.uint64(0xFF)
        rest >>= np.uint64(8)
    return at + size


@compiled
def _put_varint(out: UInt8, at: int, value: int) -> int:
    rest = np.uint64(value)
    while rest >= np.uint64(0x80):
        out[at] = (rest & np.uint64(0x7F)) | np.uint64(0x80)
        rest >>= np.uint64(7)
        at += 1
    out[at] = rest
    return at + 1


@compiled
def bound(store: Store, names: ItemNames, rows: Int64) -> int:
    """Return more bytes than the bodies of these rows can take."""
    users = store.users
    total = 0
    for row in rows:
        total += _FIXED_BYTES
        first = users[row].recent_at
        for slot in range(first, first + users[row].recent_n):
            item = store.recents[slot].item
            total += _INTERACTION_BYTES + 1 + names.at[item + 1] - names.at[item]
        first = users[row].tally_at
        for place in range(first, first + users[row].tally_n):
            item = store.tallies[place].item
            total += _TALLY_BYTES + 1 + names.at[item + 1] - names.at[item]
    return total


@compiled
def write(
    store: Store, names: ItemNames, rows: Int64, erased_at: Int64, out: UInt8, ends: Int64, mark: Int64, index: Int32,
    stamp: int,
) -> None:  # fmt: skip
    """
    Write the bodies of these rows, one behind another.

    Parameters
    ----------
    erased_at
        (n,) when each user was erased last, 0 for never.
    ends
        (n,) out: the place behind each body.
    mark, index
        (items,) scratch: the body that named an item last, and the item's place among that body's ids.
    stamp
        Number of the first body, greater than that of any written with this scratch before.

    """
    at = 0
    for number in range(len(rows)):
        at = _write_one(store, names, rows[number], erased_at[number], out, at, stamp + number, mark, index)
        ends[number] = at


@compiled
def _write_one(
    store: Store, names: ItemNames, row: int, erased_at: int, out: UInt8, at: int, number: int, mark: Int64,
    index: Int32,
) -> int:  # fmt: skip
    users, recents, tallies = store.users, store.recents, store.tallies
    first, used = users[row].recent_at, users[row].recent_n
    tally_first, tally_used = users[row].tally_at, users[row].tally_n
    start = at
    at = _put(out, at, users[row].first_ts, 8)
    at = _put(out, at, recents[first + used - 1].ts if used else 0, 8)
    at = _put(out, at, users[row].floor_ts, 8)
    rest = users[row].floor_hash
    for place in range(8):
        out[at + place] = (rest >> np.uint64(8 * place)) & np.uint64(0xFF)
    at = _put(out, at + 8, erased_at, 8)
    for kind in range(TYPES):
        at = _put(out, at, users[row].counts[kind], 4)
    at = start + _FIXED_BYTES
    known = 0
    mass = np.empty(1, np.float64)
    mass_bytes = mass.view(np.uint8)
    for slot in range(first, first + used):
        at, known = _put_id(names, recents[slot].item, out, at, number, mark, index, known)
    for place in range(tally_first, tally_first + tally_used):
        at, known = _put_id(names, tallies[place].item, out, at, number, mark, index, known)
    sizes = _put(out, start + _SIZES_AT, used, 2)
    sizes = _put(out, sizes, tally_used, 2)
    sizes = _put(out, sizes, known, 2)
    _put(out, sizes, 0, 2)
    before = users[row].first_ts
    for slot in range(first, first + used):
        at = _put_varint(out, at, recents[slot].ts - before)
        before = recents[slot].ts
        rest = recents[slot].event_hash
        for place in range(8):
            out[at + place] = (rest >> np.uint64(8 * place)) & np.uint64(0xFF)
        at = _put_varint(out, at + 8, index[recents[slot].item])
        out[at] = recents[slot].kind
        at += 1
    for place in range(tally_used):
        slot = tally_first + place
        at = _put_varint(out, at, index[tallies[slot].item])
        at = _put_varint(out, at, tallies[slot].ts - users[row].first_ts)
        mass[0] = tallies[slot].mass
        out[at : at + 8] = mass_bytes
        at += 8
        for kind in range(TYPES):
            at = _put_varint(out, at, tallies[slot].counts[kind])
    return at


@compiled
def _put_id(
    names: ItemNames, item: int, out: UInt8, at: int, number: int, mark: Int64, index: Int32, known: int
) -> tuple[int, int]:  # fmt: skip
    """Name an item, once a body; return the place behind it and how many ids there are now."""
    if mark[item] == number:
        return at, known
    mark[item] = number
    index[item] = known
    first, end = names.at[item], names.at[item + 1]
    out[at] = end - first
    at += 1
    for place in range(first, end):
        out[at] = names.pool[place]
        at += 1
    return at, known + 1
