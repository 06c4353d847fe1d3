"""
An approximate index over codes: a graph that is built once, never changed, and thrown away whole.

HNSW, by usearch (Malkov, Yashunin: "Efficient and robust approximate nearest neighbor search using Hierarchical
Navigable Small World graphs", TPAMI 2020).

Deleting from such a graph leaves points that no search reaches; so what changes after the build is kept beside it
(`models.index`), and a new graph takes its place.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from usearch.index import BatchMatches, Index

from models.quantisation import Codes, Floats, quantise

Ints = npt.NDArray[np.int64]

#: Least mean share of the true 100 best that a search must find.
MIN_RECALL = 0.98
#: What a graph is tuned to: other queries than those it is tried on find a little less.
_TUNED_RECALL = 0.985
#: Links of a node: on product texts 24 found one part in a hundred more than 16 and took 1.7 times as long to build.
_LINKS = 16
_BUILD_EXPANSION = 128
#: Nodes looked at by a search: doubled until the recall is reached. Beyond the last an exact search is as fast.
_EXPANSIONS = (128, 256, 512, 1_024, 2_048, 4_096)
#: Rows added between two looks at whether the build is still wanted: about half a second.
_BUILD_ROWS = 1_000


class Graph:
    """
    An immutable graph over rows.

    Parameters
    ----------
    codes
        (n, d) int8, copied.
    rows
        (n,) int64, what the search calls them.
    wanted
        Asked now and then; the build ends with `InterruptedError` once it is False.

    """

    def __init__(self, codes: Codes, rows: Ints, wanted: Callable[[], bool] = lambda: True) -> None:
        self.rows = rows
        self._index = Index(
            ndim=codes.shape[1], metric="cos", dtype="i8", connectivity=_LINKS, expansion_add=_BUILD_EXPANSION
        )
        for start in range(0, len(rows), _BUILD_ROWS):
            if not wanted():
                raise InterruptedError("the graph is not wanted any more")
            part = rows[start : start + _BUILD_ROWS]
            # One thread: the other cores belong to those who read and rank meanwhile.
            self._index.add(part.astype(np.uint64), codes[part], threads=1)

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return int(self._index.memory_usage)

    def nearest(self, interest: Floats, count: int) -> Ints:
        """Return about the `count` rows (n, count) of least angle to queries (n, d); -1 where there are no more."""
        count = min(count, len(self))
        if not count:
            return np.empty((len(interest), 0), np.int64)
        matches = self._index.search(quantise(interest).codes, count, threads=1)
        # One query alone comes back without its axis, and as many rows as were found.
        keys = np.full((len(interest), count), -1, np.int64)
        if isinstance(matches, BatchMatches):
            found = np.arange(count) < np.asarray(matches.counts)[:, None]
            keys[found] = matches.keys[found]
        else:
            keys[0, : len(matches)] = matches.keys
        return keys

    def tune(self, interest: Floats, best: Ints) -> float:
        """
        Take the least expansion that finds enough, and return the recall it has.

        Parameters
        ----------
        interest
            (n, d) float32, queries like those to come.
        best
            (n, k) int64, their true best rows.

        """
        found = 0.0
        for expansion in _EXPANSIONS:
            self._index.expansion_search = expansion  # type: ignore[misc]  # its setter stands where types do not see it
            found = recall(self.nearest(interest, candidates(best.shape[1])), best)
            if found >= _TUNED_RECALL:
                break
        return found


def recall(found: Ints, best: Ints) -> float:
    """
    Return the mean share of the best rows (n, k) that are among those found (n, c); -1 stands for none in both.

    >>> recall(np.array([[3, 1], [-1, 2]]), np.array([[1, 2], [2, -1]]))
    0.75
    """
    pairs = [(set(mine.tolist()), set(true.tolist()) - {-1}) for mine, true in zip(found, best, strict=True)]
    return float(np.mean([len(mine & true) / len(true) for mine, true in pairs if true]))


def candidates(k: int) -> int:
    """
    Return of how many rows the k best are taken: codes put rows of nearly the same score in the wrong order.

    >>> candidates(100)
    250
    """
    return 2 * k + 50
