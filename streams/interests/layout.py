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
        first = users.recent_at[row]
        for slot in range(first, first + users.recent_n[row]):
            item = store.recents.item[slot]
            total += _INTERACTION_BYTES + 1 + names.at[item + 1] - names.at[item]
        first = users.tally_at[row]
        for place in range(first, first + users.tally_n[row]):
            item = store.tallies.item[place]
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
    first, used = users.recent_at[row], users.recent_n[row]
    tally_first, tally_used = users.tally_at[row], users.tally_n[row]
    start = at
    at = _put(out, at, users.first_ts[row], 8)
    at = _put(out, at, recents.ts[first + used - 1] if used else 0, 8)
    at = _put(out, at, users.floor_ts[row], 8)
    rest = users.floor_hash[row]
    for place in range(8):
        out[at + place] = (rest >> np.uint64(8 * place)) & np.uint64(0xFF)
    at = _put(out, at + 8, erased_at, 8)
    for kind in range(TYPES):
        at = _put(out, at, users.counts[row, kind], 4)
    at = start + _FIXED_BYTES
    known = 0
    for slot in range(first, first + used):
        at, known = _put_id(names, recents.item[slot], out, at, number, mark, index, known)
    for place in range(tally_first, tally_first + tally_used):
        at, known = _put_id(names, tallies.item[place], out, at, number, mark, index, known)
    sizes = _put(out, start + _SIZES_AT, used, 2)
    sizes = _put(out, sizes, tally_used, 2)
    sizes = _put(out, sizes, known, 2)
    _put(out, sizes, 0, 2)
    before = users.first_ts[row]
    for slot in range(first, first + used):
        at = _put_varint(out, at, recents.ts[slot] - before)
        before = recents.ts[slot]
        rest = recents.event_hash[slot]
        for place in range(8):
            out[at + place] = (rest >> np.uint64(8 * place)) & np.uint64(0xFF)
        at = _put_varint(out, at + 8, index[recents.item[slot]])
        out[at] = recents.kind[slot]
        at += 1
    mass = tallies.mass[tally_first : tally_first + tally_used].view(np.uint64)
    for place in range(tally_used):
        slot = tally_first + place
        at = _put_varint(out, at, index[tallies.item[slot]])
        at = _put_varint(out, at, tallies.ts[slot] - users.first_ts[row])
        for byte in range(8):
            out[at + byte] = (mass[place] >> np.uint64(8 * byte)) & np.uint64(0xFF)
        at += 8
        for kind in range(TYPES):
            at = _put_varint(out, at, tallies.counts[slot, kind])
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
