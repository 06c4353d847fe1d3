"""The tie order of lists: item ids in the order of their rows enter, the place of each among all sorted ids leaves."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

#: Above this many new ids a full sort is cheaper than putting each in its place.
_MAX_INSERTS = 64


class TieOrder:
    """
    Places of ids among all sorted ids, kept up to date as rows are given out.

    >>> order = TieOrder()
    >>> order.of(["b", "a"]).tolist(), order.of(["b", "a", "ab"]).tolist()
    ([1, 0], [2, 0, 1])
    """

    def __init__(self) -> None:
        self._sorted: list[str] = []
        self._places = np.empty(0, np.int64)

    def of(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the place (rows,) int64 of each id; `ids` are those of the last call with new ones behind them."""
        missing = ids[len(self._places) :]
        if len(missing) > _MAX_INSERTS:
            rows = sorted(range(len(ids)), key=ids.__getitem__)
            self._sorted = [ids[row] for row in rows]
            self._places = np.empty(len(rows), np.int64)
            self._places[rows] = np.arange(len(rows))
        else:
            for item_id in missing:
                place = bisect.bisect_left(self._sorted, item_id)
                self._sorted.insert(place, item_id)
                self._places = np.append(self._places + (self._places >= place), place)
        return self._places
