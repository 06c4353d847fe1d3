"""Writing the bodies of `user-state` records out of the columns, compiled; `codec` says what stands where."""

from __future__ import annotations

from typing import Final

import numpy as np

from models.compiled import compiled
from streams.catalogue.ids import ItemNames
from streams.interests.codec import FIXED
from streams.interests.columns import TYPES, Int32, Int64, Store, UInt8

_FIXED_BYTES: Final = FIXED.size
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
            item = store.tally_items[place]
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
    user = store.users[row]
    first, end = user.recent_at, user.recent_at + user.recent_n
    tally_first, tally_end = user.tally_at, user.tally_at + user.tally_n
    start = at
    at = start + _FIXED_BYTES
    known = 0
    for slot in range(first, end):
        at, known = _put_id(names, store.recents[slot].item, out, at, number, mark, index, known)
    for place in range(tally_first, tally_end):
        at, known = _put_id(names, store.tally_items[place], out, at, number, mark, index, known)
    _write_fixed(store, row, erased_at, out, start, known)
    before = user.first_ts
    for slot in range(first, end):
        at = _put_varint(out, at, store.recents[slot].ts - before)
        before = store.recents[slot].ts
    for slot in range(first, end):
        at = _put_varint(out, at, index[store.recents[slot].item])
    for slot in range(first, end):
        out[at] = store.recents[slot].kind
        at += 1
    behind = at + 8 * (end - first)
    out[at:behind] = store.hashes[first:end].view(np.uint8)
    at = behind
    for place in range(tally_first, tally_end):
        at = _put_varint(out, at, index[store.tally_items[place]])
        at = _put_varint(out, at, store.tallies[place].ts - user.first_ts)
        for kind in range(TYPES):
            at = _put_varint(out, at, store.tallies[place].counts[kind])
    mass = np.empty(tally_end - tally_first, np.float64)
    for place in range(tally_first, tally_end):
        mass[place - tally_first] = store.tallies[place].mass
    behind = at + 8 * len(mass)
    out[at:behind] = mass.view(np.uint8)
    return behind


@compiled
def _write_fixed(store: Store, row: int, erased_at: int, out: UInt8, at: int, ids: int) -> None:
    user = store.users[row]
    used = user.recent_n
    at = _put(out, at, user.first_ts, 8)
    at = _put(out, at, store.recents[user.recent_at + used - 1].ts if used else 0, 8)
    at = _put(out, at, user.floor_ts, 8)
    for place in range(8):
        out[at + place] = (user.floor_hash >> np.uint64(8 * place)) & np.uint64(0xFF)
    at = _put(out, at + 8, erased_at, 8)
    for kind in range(TYPES):
        at = _put(out, at, user.counts[kind], 4)
    at = _put(out, at, used, 2)
    at = _put(out, at, user.tally_n, 2)
    at = _put(out, at, ids, 2)
    _put(out, at, 0, 2)


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
