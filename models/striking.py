"""Striking items from lists: each hole is filled by the best item that stands by, all others stay where they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.choosing import close_up
from models.compiled import compiled

Ints = npt.NDArray[np.int64]


def strike(items: npt.NDArray[np.int32], usable: npt.NDArray[np.bool_], size: int) -> Ints:
    """
    Return what n lists become when some of their items may be listed no more.

    Parameters
    ----------
    items
        (n, k) rows, best first, -1 behind the last; the first `size` are the list, the others stand by.
    usable
        (rows,) which may still be listed.

    Returns
    -------
    (n, k) places of `items`, -1 for none; a list is shorter where nothing stands by any more.

    >>> usable = np.array([True, False, True, True, False, True])
    >>> strike(np.array([[0, 1, 2, 4, 3, 5]], np.int32), usable, 3).tolist()
    [[0, 4, 2, 5, -1, -1]]

    """
    places = np.full(items.shape, -1, np.int64)
    _strike(items, usable, size, places)
    return places


@compiled
def _strike(items: npt.NDArray[np.int32], usable: npt.NDArray[np.bool_], size: int, places: Ints) -> None:
    for user in range(len(items)):
        mine, made = items[user], places[user]
        by = size
        for place in range(len(mine)):
            if place < size and mine[place] >= 0 and usable[mine[place]]:
                made[place] = place
                continue
            while by < len(mine) and (mine[by] < 0 or not usable[mine[by]]):
                by += 1
            if by < len(mine) and (place >= size or mine[place] >= 0):
                made[place] = by
                by += 1
        close_up(made)
