"""How far two vector spaces agree on what is near what: the gate of a model upgrade."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.ranking import Floats

#: Neighbours compared of each item: about what a person sees of a list.
NEIGHBOURS = 10
#: Queries of one matrix product: 20 MB of scores over 20,000 rows.
_BLOCK = 256


def neighbour_overlap(old: Floats, new: Floats, queries: int, neighbours: int = NEIGHBOURS) -> float | None:
    """
    Return the mean share of an item's nearest neighbours in one space that are its nearest in the other too.

    Two spaces that have nothing to do with each other share `neighbours / rows` by chance.

    Parameters
    ----------
    old, new
        (rows, dim) unit vectors of the same items in the same order; dimensions may differ.
    queries
        The first of the rows that are asked for; all are candidates.

    Returns
    -------
    Mean recall in 0..1; None where there are not two rows to compare.

    >>> axes = np.eye(4, dtype=np.float32)
    >>> turned = axes[:, ::-1]
    >>> neighbour_overlap(axes, turned, 4, 3), neighbour_overlap(axes[:1], turned[:1], 1)
    (1.0, None)
    """
    rows = len(old)
    wanted = min(neighbours, rows - 1)
    queries = min(queries, rows)
    if wanted < 1 or queries < 1:
        return None
    shared = 0
    for start in range(0, queries, _BLOCK):
        asked = np.arange(start, min(start + _BLOCK, queries))
        both = np.concatenate([_nearest(space, asked, wanted) for space in (old, new)], axis=1)
        both.sort(axis=1)
        # Each row names an item at most twice, once for each space.
        shared += int((both[:, 1:] == both[:, :-1]).sum())
    return shared / (queries * wanted)


def _nearest(space: Floats, asked: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Return the rows (n, count) nearest to each asked row, itself left out, in no order."""
    scores = space[asked] @ space.T
    scores[np.arange(len(asked)), asked] = -np.inf
    return np.argpartition(scores, -count, axis=1)[:, -count:]
