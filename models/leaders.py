"""The strongest items by one measure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.compiled import compiled

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def strongest(values: Floats, usable: Flags, order: Ints, count: int) -> Rows:
    """
    Return the usable rows (count or fewer,) int32 with the greatest values above 0, best first.

    >>> values = np.array([0.0, 0.5, 1.0, 0.5, 0.75], np.float32)
    >>> strongest(values, np.array([True, True, True, True, False]), np.array([0, 3, 2, 1, 4]), 2).tolist()
    [2, 3]

    Parameters
    ----------
    order
        (rows,) int64: of equals the one of the smaller comes first.

    """
    best = np.empty(count, np.int32)
    return best[: _lead(values, usable, order, best)]


@compiled
def _lead(values: Floats, usable: Flags, order: Ints, best: Rows) -> int:
    """Put each row in its place, the last one leaves; return how many there are."""
    filled = 0
    for row in range(len(values)):
        if not usable[row] or not values[row] > 0.0:
            continue
        if filled == len(best):
            if not _before(values, order, row, best[filled - 1]):
                continue
            filled -= 1
        at = filled
        while at > 0 and _before(values, order, row, best[at - 1]):
            best[at] = best[at - 1]
            at -= 1
        best[at] = row
        filled += 1
    return filled


@compiled
def _before(values: Floats, order: Ints, row: int, other: int) -> bool:
    return bool(values[row] > values[other] or (values[row] == values[other] and order[row] < order[other]))
