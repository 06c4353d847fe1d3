"""Item ids and their dense rows, given out for good; the ids also as bytes, for compiled code."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_FIRST_BYTES = 16_384
_FIRST_ROWS = 1_024


class ItemNames(NamedTuple):
    """The ids of item rows as bytes: `pool[at[row]:at[row + 1]]` is the UTF-8 of a row's id."""

    pool: npt.NDArray[np.uint8]
    at: npt.NDArray[np.int64]


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
