"""One family of item-to-item neighbours in memory: published lists enter, rows and weights leave."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.neighbours import Family
from streams.wire.neighbours import MAX_NEIGHBOURS

Rows = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


class Neighbours:
    """
    The neighbours of catalogue rows, heaviest first; 512 bytes for each item that has any.

    Items without neighbours take 4 bytes, and nothing is held before the first that has some. Not thread safe:
    changed where the catalogue is.

    >>> neighbours = Neighbours()
    >>> neighbours.set(7, np.array([3, 9]), np.array([0.5, 0.25]))
    >>> neighbours.of(7)[0].tolist(), neighbours.of(8)[0].tolist()
    ([3, 9], [])
    """

    def __init__(self) -> None:
        #: Place of each catalogue row in the arrays, -1 without one.
        self._place: Rows = np.empty(0, np.int32)
        self._count = np.zeros(0, np.uint8)
        self._rows: Rows = np.empty((0, MAX_NEIGHBOURS), np.int32)
        self._weights: Floats = np.empty((0, MAX_NEIGHBOURS), np.float32)
        self._used = 0
        self._free: list[int] = []

    def __len__(self) -> int:
        """Return the number of items that have neighbours."""
        return self._used - len(self._free)

    @property
    def family(self) -> Family:
        """The arrays as ranking reads them; they stand until the next change."""
        return Family(self._place, self._count, self._rows, self._weights)

    def of(self, row: int) -> tuple[Rows, Floats]:
        """Return the rows (k,) int32 of an item's neighbours, and their weights (k,) float32; not to be changed."""
        place = int(self._place[row]) if row < len(self._place) else -1
        if place < 0:
            return self._rows[:0, 0], self._weights[:0, 0]
        count = int(self._count[place])
        return self._rows[place, :count], self._weights[place, :count]

    def set(self, row: int, neighbours: npt.ArrayLike, weights: npt.ArrayLike) -> None:
        """
        Take an item's neighbours, at most 64, heaviest first; none forgets what was held.

        Raises
        ------
        ValueError
            When rows and weights do not fit together or are too many.

        """
        rows, values = np.asarray(neighbours, np.int32), np.asarray(weights, np.float32)
        if rows.shape != values.shape or len(rows) > MAX_NEIGHBOURS:
            raise ValueError(f"neighbours of shape {rows.shape} with weights of shape {values.shape}")
        if not len(rows):
            self._forget(row)
            return
        place = self._place_of(row)
        self._count[place] = len(rows)
        self._rows[place, : len(rows)], self._weights[place, : len(rows)] = rows, values

    def _forget(self, row: int) -> None:
        if row < len(self._place) and (place := int(self._place[row])) >= 0:
            self._place[row] = -1
            self._free.append(place)

    def _place_of(self, row: int) -> int:
        if row >= len(self._place):
            more = max(row + 1, 2 * len(self._place)) - len(self._place)
            self._place = np.append(self._place, np.full(more, -1, np.int32))
        place = int(self._place[row])
        if place < 0:
            place = self._place[row] = self._free.pop() if self._free else self._next()
        return int(place)

    def _next(self) -> int:
        place, self._used = self._used, self._used + 1
        if place == len(self._count):
            more = max(64, place)
            self._count = np.append(self._count, np.zeros(more, np.uint8))
            self._rows = np.concatenate((self._rows, np.zeros((more, MAX_NEIGHBOURS), np.int32)))
            self._weights = np.concatenate((self._weights, np.zeros((more, MAX_NEIGHBOURS), np.float32)))
        return place
