"""Finding the row of a user id that stands in a buffer, for a whole run at once, compiled."""

from __future__ import annotations

import os
from typing import Final

import numpy as np

from models.compiled import compiled
from models.hashing import siphash
from streams.interests.batch import Texts
from streams.interests.columns import Int32, Int64, Records, UInt8, UInt64

#: A place of the table: 128 bits that stand for an id, and its row.
_PLACE: Final = np.dtype([("low", np.uint64), ("high", np.uint64), ("row", np.int64)])
_FREE: Final = -1
#: A place whose user has left: a search goes on behind it.
_LEFT: Final = -2
_FIRST_PLACES: Final = 1_024


class UserIndex:
    """
    Ids and their rows, by linear probing; an id is known by its SipHash under a key of this process.

    >>> index = UserIndex()
    >>> index.put(Texts.of(["a", "b"]), np.array([7, 8]))
    >>> index.drop(Texts.of(["a"]))
    >>> index.find(Texts.of(["b", "a"])).tolist()
    [8, -1]
    """

    def __init__(self) -> None:
        self._key: UInt64 = np.frombuffer(os.urandom(16), np.uint64)
        self._table = _empty(_FIRST_PLACES)
        #: Places that are not free, those of users who have left among them.
        self._taken = 0
        self._held = 0

    def find(self, ids: Texts) -> Int64:
        """Return the row of each id, (n,) int64, -1 for those not held."""
        rows = np.empty(len(ids), np.int64)
        _find(self._table, self._key, ids.pool, ids.at, ids.size, rows)
        return rows

    def put(self, ids: Texts, rows: Int64) -> None:
        """Hold ids that are not held, each once."""
        if 2 * (self._taken + len(ids)) > len(self._table):
            self._grow(len(ids))
        _put(self._table, self._key, ids.pool, ids.at, ids.size, rows)
        self._taken += len(ids)
        self._held += len(ids)

    def drop(self, ids: Texts) -> None:
        """Let ids go that are held."""
        _drop(self._table, self._key, ids.pool, ids.at, ids.size)
        self._held -= len(ids)

    def clear(self) -> None:
        """Let all go."""
        self._table = _empty(_FIRST_PLACES)
        self._taken = self._held = 0

    def _grow(self, coming: int) -> None:
        """Make the table anew, with four places for each id and without those that have left."""
        places = _FIRST_PLACES
        while places < 4 * (self._held + coming):
            places *= 2
        table = _empty(places)
        _copy(self._table, table)
        self._table = table
        self._taken = self._held


def _empty(places: int) -> Records:
    table = np.zeros(places, _PLACE)
    table["row"] = _FREE
    return table


@compiled
def _place(table: Records, low: np.uint64, high: np.uint64) -> int:
    """Return the place of an id, or the free one that ends the search for it."""
    last = np.uint64(len(table) - 1)
    at = np.int64(low & last)
    while table[at].row != _FREE and (table[at].low != low or table[at].high != high or table[at].row == _LEFT):
        at = np.int64(np.uint64(at + 1) & last)
    return int(at)


@compiled
def _find(table: Records, key: UInt64, pool: UInt8, at: Int32, size: Int32, rows: Int64) -> None:
    for number in range(len(rows)):
        low, high = siphash(pool, at[number], size[number], key)
        rows[number] = table[_place(table, low, high)].row


@compiled
def _put(table: Records, key: UInt64, pool: UInt8, at: Int32, size: Int32, rows: Int64) -> None:
    for number in range(len(rows)):
        low, high = siphash(pool, at[number], size[number], key)
        place = table[_place(table, low, high)]
        place.low, place.high, place.row = low, high, rows[number]


@compiled
def _drop(table: Records, key: UInt64, pool: UInt8, at: Int32, size: Int32) -> None:
    for number in range(len(at)):
        low, high = siphash(pool, at[number], size[number], key)
        table[_place(table, low, high)].row = _LEFT


@compiled
def _copy(table: Records, other: Records) -> None:
    for at in range(len(table)):
        if table[at].row >= 0:
            place = other[_place(other, table[at].low, table[at].high)]
            place.low, place.high, place.row = table[at].low, table[at].high, table[at].row
