"""
Writing `user-state` records out of the columns, compiled; `codec` says what stands where, `sealing` adds the checksums.

What is copied is copied by words of eight bytes: the last one writes beyond its end, into what is written next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from models.compiled import compiled
from streams.catalogue.ids import ItemNames
from streams.interests.codec import DEVICE_VERSION, FIXED, FORMAT_VERSION, MAGIC, START
from streams.interests.columns import RECENT_SIZES, TALLY_SIZES, TYPES, Bool, Int32, Int64, Store, UInt8, UInt64

_FIXED_BYTES: Final = FIXED.size
_START: Final = START
#: First four bytes of a record that nothing is said of: magic, version, no flags.
_BEGIN: Final = int.from_bytes(MAGIC + bytes([FORMAT_VERSION]), "little")
#: What the first bytes are more of a user whose device is known.
_OF_DEVICE: Final = DEVICE_VERSION - FORMAT_VERSION << 16
_PENDING_BIT: Final = 24
_ERASED_BIT: Final = 25
#: Longest parts: an interaction of 10 + 3 + 1 + 8 bytes, a tally of 3 + 10 + 8 + 5 a type, an id with its length.
_INTERACTION_BYTES: Final = 22 + 256
_TALLY_BYTES: Final = 21 + 5 * TYPES + 256
#: What a copy by words may write beyond its end.
SLACK: Final = 8
#: Users whose memory is fetched at once: some 16 kB, which stay in the first cache until they are written.
_FETCHED: Final = 16


class Around(NamedTuple):
    """
    What n records hold beside what the columns do.

    Attributes
    ----------
    owed
        (n,) whether a list is.
    erased_at_ms
        (n,) when each user was erased last, 0 for never.
    heads, head_ends
        Heads one behind another, as `words`, and (n,) where each ends.
    margins, margin_ends
        The same of margins.

    """

    owed: Bool
    erased_at_ms: Int64
    heads: UInt64
    head_ends: Int64
    margins: UInt64
    margin_ends: Int64


class Source(NamedTuple):
    """
    Where records come from.

    Attributes
    ----------
    name_at, pool
        `ItemNames`, the bytes as `words`, of which there are seven more than ids need.
    masses
        Masses of the tallies, their bits.

    """

    store: Store
    name_at: Int64
    pool: UInt64
    masses: UInt64


class Scratch(NamedTuple):
    """
    What writing needs besides.

    Attributes
    ----------
    mark, place_of
        (items,) the record that named an item last, and the item's place among that record's ids.
    places
        Of the interactions and tallies of one user: the places of their items.

    """

    mark: Int64
    place_of: Int32
    places: Int32


def words(content: UInt8) -> UInt64:
    """
    Return the eight bytes from each place on as a number, a view.

    >>> [hex(word) for word in words(np.arange(10, dtype=np.uint8))]
    ['0x706050403020100', '0x807060504030201', '0x908070605040302']
    """
    return np.ndarray((len(content) - 7,), "<u8", content, strides=(1,))


def joined(parts: Sequence[bytes]) -> tuple[UInt64, Int64]:
    """Return bytes one behind another, as `words`, and where each part ends."""
    # Two words at least: a single one would be of another type to compiled code, as nobody sees that it is not aligned.
    content = np.frombuffer(b"".join((*parts, bytes(2 * SLACK))), np.uint8)
    return words(content), np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)))


def source(store: Store, names: ItemNames) -> Source:
    """Return the columns and the ids as `write` reads them."""
    pool = names.pool
    if len(pool) < names.at[-1] + SLACK:
        pool = np.concatenate((pool, np.zeros(SLACK, np.uint8)))
    return Source(store, names.at, words(pool), store.tallies["mass"].view(np.uint64))


def empty_scratch(items: int) -> Scratch:
    """Return scratch for so many items, in which no record named any."""
    places = np.zeros(RECENT_SIZES[-1] + TALLY_SIZES[-1], np.int32)
    return Scratch(np.full(items, -1, np.int64), np.zeros(items, np.int32), places)


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
def _put_words(target: UInt64, at: int, source: UInt64, first: int, end: int) -> int:
    """Copy bytes; return the place behind them."""
    for step in range(0, end - first, 8):
        target[at + step] = source[first + step]
    return at + end - first


@compiled
def write(
    source: Source, rows: Int64, around: Around, done: int, out: UInt8, wide: UInt64, ends: Int64, scratch: Scratch,
    stamp: int,
) -> int:  # fmt: skip
    """
    Write the records of rows from `done` on, one behind another, zeros for checksums; return how many are done now.

    Parameters
    ----------
    out, wide
        Where to write, and the same as `words`; the next record may need more than what is left.
    ends
        (n,) out: the place behind each record.
    stamp
        Number of the first row's record, greater than that of any written with this scratch before.

    """
    users, head_ends, margin_ends = source.store.users, around.head_ends, around.margin_ends
    at = 0
    read = np.int64(0)
    for number in range(done, len(rows)):
        if (number - done) % _FETCHED == 0:
            read += _fetch(source.store, rows, number, min(number + _FETCHED, len(rows)))
        row = rows[number]
        head_first = head_ends[number - 1] if number else 0
        margin_first = margin_ends[number - 1] if number else 0
        head, margin = head_ends[number] - head_first, margin_ends[number] - margin_first
        most = _START + head + margin + _FIXED_BYTES + SLACK
        most += _INTERACTION_BYTES * users[row].recent_n + _TALLY_BYTES * users[row].tally_n
        if at + most > len(out):
            return number
        start = at
        erased_at_ms = around.erased_at_ms[number]
        begin = np.uint64(_BEGIN) | np.uint64(around.owed[number]) << np.uint64(_PENDING_BIT)
        begin |= np.uint64(erased_at_ms > 0) << np.uint64(_ERASED_BIT)
        if users[row].device:
            begin += np.uint64(_OF_DEVICE)
        at = _put_words(wide, at + _START, around.heads, head_first, head_ends[number])
        body = at
        at = _write_body(source, row, erased_at_ms, out, wide, at, stamp + number, scratch)
        at = _put_words(wide, at, around.margins, margin_first, margin_ends[number])
        wide[start] = begin | np.uint64(head) << np.uint64(32)
        # Behind the body's length stands the checksum, zeros for now.
        wide[start + 8] = at - body
        ends[number] = at
    # Else the compiler would leave the reading out.
    scratch.places[0] = read
    return len(rows)


@compiled
def _fetch(store: Store, rows: Int64, first: int, end: int) -> np.int64:
    """
    Read one number of each line of memory of some users; return nothing of use.

    Writing reads the lines of one user after the other, each a wait of its own; here many are waited for at once.
    """
    users, recents, hashes, tallies = store.users, store.recents, store.hashes, store.tallies
    read = np.int64(0)
    for number in range(first, end):
        read += users[rows[number]].recent_at + np.int64(users[rows[number]].floor_hash)
    for number in range(first, end):
        user = users[rows[number]]
        for slot in range(user.recent_at, user.recent_at + user.recent_n, 4):
            read += recents[slot].ts
        for slot in range(user.recent_at, user.recent_at + user.recent_n, 8):
            read += np.int64(hashes[slot])
        for slot in range(user.tally_at, user.tally_at + user.tally_n):
            read += tallies[slot].ts
    return read


@compiled
def _write_body(
    source: Source, row: int, erased_at_ms: int, out: UInt8, wide: UInt64, at: int, number: int, scratch: Scratch
) -> int:  # fmt: skip
    store, name_at, pool, masses = source
    recents, hashes, tallies, tally_items = store.recents, store.hashes, store.tallies, store.tally_items
    mark, place_of, places = scratch.mark, scratch.place_of, scratch.places
    user = store.users[row]
    first_ts, first, recent_n = user.first_ts, user.recent_at, user.recent_n
    tally_first, tally_n = user.tally_at, user.tally_n
    start = at
    at += _FIXED_BYTES
    known = 0
    for place in range(recent_n + tally_n):
        item = recents[first + place].item if place < recent_n else tally_items[tally_first + place - recent_n]
        if mark[item] != number:
            mark[item] = number
            place_of[item] = known
            known += 1
            begin, end = name_at[item], name_at[item + 1]
            out[at] = end - begin
            at = _put_words(wide, at + 1, pool, begin, end)
        places[place] = place_of[item]
    _write_fixed(store, row, erased_at_ms, wide, start, known)
    before = first_ts
    for slot in range(first, first + recent_n):
        at = _put_varint(out, at, recents[slot].ts - before)
        before = recents[slot].ts
    for place in range(recent_n):
        at = _put_varint(out, at, places[place])
    for slot in range(first, first + recent_n):
        out[at] = recents[slot].kind
        at += 1
    for slot in range(first, first + recent_n):
        wide[at] = hashes[slot]
        at += 8
    for place in range(tally_n):
        tally = tallies[tally_first + place]
        at = _put_varint(out, at, places[recent_n + place])
        at = _put_varint(out, at, tally.ts - first_ts)
        for kind in range(TYPES):
            at = _put_varint(out, at, tally.counts[kind])
    for place in range(tally_first, tally_first + tally_n):
        wide[at] = masses[place]
        at += 8
    return at


@compiled
def _write_fixed(store: Store, row: int, erased_at_ms: int, wide: UInt64, at: int, ids: int) -> None:
    user = store.users[row]
    used = user.recent_n
    wide[at] = user.first_ts
    wide[at + 8] = store.recents[user.recent_at + used - 1].ts if used else 0
    wide[at + 16] = user.floor_ts
    wide[at + 24] = user.floor_hash
    wide[at + 32] = erased_at_ms
    at += 40
    for kind in range(TYPES):
        # The next one, or what follows, takes the upper half.
        wide[at] = user.counts[kind]
        at += 4
    wide[at] = used | user.tally_n << 16 | ids << 32 | np.int64(user.device) << 48
