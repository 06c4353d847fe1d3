"""Item ids and their dense rows, given out for good; the ids also as bytes, for compiled code."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from models.hashing import siphash

_FIRST_BYTES = 16_384
_FIRST_ROWS = 1_024
_FIRST_PLACES = 4_096
#: A place of the table in which ids are looked up: part of an id's hash, and its row, -1 for a free place.
_PLACE: Final = np.dtype([("hash", np.uint64), ("row", np.int64)])

_Bytes = npt.NDArray[np.uint8]
_Spans = npt.NDArray[np.int32]


class ItemNames(NamedTuple):
    """The ids of item rows as bytes: `pool[at[row]:at[row + 1]]` is the UTF-8 of a row's id."""

    pool: npt.NDArray[np.uint8]
    at: npt.NDArray[np.int64]

    @classmethod
    def of(cls, ids: Sequence[str]) -> ItemNames:
        """Return ids as bytes of their own, by place."""
        encoded = [item_id.encode() for item_id in ids]
        at = np.zeros(len(ids) + 1, np.int64)
        np.cumsum([len(item_id) for item_id in encoded], out=at[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8).copy(), at)


class ItemIds:
    """
    Rows in the order in which ids were first met.

    >>> ids = ItemIds()
    >>> ids.rows(["b", "a", "b"]).tolist(), ids.text(1), ids.find(["a", "x"]).tolist()
    ([0, 1, 0], 'a', [1, -1])
    """

    def __init__(self) -> None:
        self.row_of: dict[str, int] = {}
        self.ids: list[str] = []
        self._pool = np.zeros(_FIRST_BYTES, np.uint8)
        self._at = np.zeros(_FIRST_ROWS + 1, np.int64)
        self._key = np.frombuffer(os.urandom(16), np.uint64)
        self._table = _empty(_FIRST_PLACES)
        self._indexed = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def names(self) -> ItemNames:
        """The ids as bytes: views that later rows do not change."""
        return ItemNames(self._pool, self._at[: len(self.ids) + 1])

    def text(self, row: int) -> str:
        """Return the id of a row."""
        return self.ids[row]

    def row(self, item_id: str) -> int:
        """Return the row of an id, a new one when it was never met."""
        row = self.row_of.get(item_id)
        return self._add(item_id) if row is None else row

    def rows(self, item_ids: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the rows (n,) int32 of ids; new ones for those never met."""
        found = list(map(self.row_of.get, item_ids))
        if None in found:
            return np.fromiter(map(self.row, item_ids), np.int32, len(item_ids))
        return np.array(found, np.int32)

    def find(self, item_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the rows (n,) int64 of ids, -1 for those never met; changes nothing."""
        return np.array(list(map(self.row_of.get, item_ids, itertools.repeat(-1))), np.int64)

    def look_up(self, pool: _Bytes, at: _Spans, size: _Spans) -> npt.NDArray[np.int32]:
        """
        Return the rows (n,) int32 of ids that stand in a buffer as UTF-8, -1 for those never met.

        Parameters
        ----------
        pool
            The buffer, uint8, read-only.
        at, size
            (n,) int32, where each id begins and its bytes.

        """
        if self._indexed < len(self.ids):
            places = len(self._table)
            while places < 2 * len(self.ids):
                places *= 4
            if places > len(self._table):
                self._table, self._indexed = _empty(places), 0
            _index(self._table, self._key, self.names, self._indexed)
            self._indexed = len(self.ids)
        rows = np.empty(len(at), np.int32)
        _look_up(self._table, self._key, self.names, pool, at, size, np.empty(len(at), np.uint64), rows)
        return rows

    def _add(self, item_id: str) -> int:
        row = len(self.ids)
        encoded = item_id.encode()
        begin = int(self._at[row])
        end = begin + len(encoded)
        if end > len(self._pool):
            self._pool = np.concatenate((self._pool, np.zeros(max(len(self._pool), len(encoded)), np.uint8)))
        if row + 2 > len(self._at):
            self._at = np.concatenate((self._at, np.zeros(len(self._at), np.int64)))
        self._pool[begin:end] = np.frombuffer(encoded, np.uint8)
        self._at[row + 1] = end
        self.row_of[item_id] = row
        self.ids.append(item_id)
        return row


def _empty(places: int) -> npt.NDArray[Any]:
    table = np.zeros(places, _PLACE)
    table["row"] = -1
    return table


@compiled
def _index(table: npt.NDArray[Any], key: npt.NDArray[np.uint64], names: ItemNames, first: int) -> None:
    """Put the rows from `first` on into the table, by linear probing."""
    last = np.uint64(len(table) - 1)
    for row in range(first, len(names.at) - 1):
        hashed, _ = siphash(names.pool, names.at[row], names.at[row + 1] - names.at[row], key)
        at = np.int64(hashed & last)
        while table[at].row >= 0:
            at = np.int64(np.uint64(at + 1) & last)
        table[at].hash = hashed
        table[at].row = row


@compiled
def _look_up(
    table: npt.NDArray[Any], key: npt.NDArray[np.uint64], names: ItemNames, pool: _Bytes, at: _Spans, size: _Spans,
    hashes: npt.NDArray[np.uint64], rows: npt.NDArray[np.int32],
) -> None:  # fmt: skip
    last = np.uint64(len(table) - 1)
    # First all hashes, so that the processor waits for the table's places of many ids at once.
    for number in range(len(rows)):
        hashes[number], _ = siphash(pool, at[number], size[number], key)
    for number in range(len(rows)):
        hashed = hashes[number]
        place = np.int64(hashed & last)
        while table[place].row >= 0 and not (
            table[place].hash == hashed and _same(names, table[place].row, pool, at[number], size[number])
        ):
            place = np.int64(np.uint64(place + 1) & last)
        rows[number] = table[place].row


@compiled
def _same(names: ItemNames, row: int, pool: _Bytes, at: int, size: int) -> bool:
    """Whether a row's id is what stands in the buffer."""
    first = names.at[row]
    if names.at[row + 1] - first != size:
        return False
    same = 0
    while same < size and names.pool[first + same] == pool[at + same]:
        same += 1
    return same == size
