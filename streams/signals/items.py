"""The items one partition knows: its own, by row, and those that its own lead to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streams.signals.routing import item_partition

Ints = npt.NDArray[np.int64]


class ItemTable:
    """
    Numbers for item ids, given out for good.

    Attributes
    ----------
    ids
        Every item by its number.
    own
        Number of each row: the items this partition owns, in the order in which they were met.

    """

    def __init__(self, partition: int, partitions: int) -> None:
        self.ids: list[str] = []
        self.own: list[int] = []
        self._partition = partition
        self._partitions = partitions
        self._numbers: dict[str, int] = {}
        self._rows = np.empty(1_024, np.int64)

    def numbers(self, ids: Sequence[str]) -> Ints:
        """Return the numbers (n,) int64 of items; new ones for those never met."""
        found = list(map(self._numbers.get, ids))
        if None in found:
            found = [self._add(item_id) for item_id in ids]
        return np.array(found, np.int64)

    def rows(self, numbers: Ints) -> Ints:
        """Return the rows (n,) int64 of items by number, -1 where another partition owns the item."""
        rows: Ints = self._rows[numbers]
        return rows

    def row(self, item_id: str) -> int:
        """
        Return the row of an item of this partition, a new one when it was never met.

        Raises
        ------
        KeyError
            When another partition owns the item.

        """
        row = int(self._rows[self.numbers([item_id])[0]])
        if row < 0:
            raise KeyError(item_id)
        return row

    def item_id(self, row: int) -> str:
        """Return the id of a row."""
        return self.ids[self.own[row]]

    def _add(self, item_id: str) -> int:
        number = self._numbers.setdefault(item_id, len(self.ids))
        if number < len(self.ids):
            return number
        self.ids.append(item_id)
        if number == len(self._rows):
            self._rows = np.append(self._rows, np.empty_like(self._rows))
        is_own = item_partition(item_id, self._partitions) == self._partition
        self._rows[number] = len(self.own) if is_own else -1
        if is_own:
            self.own.append(number)
        return number
