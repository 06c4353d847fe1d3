"""What users had met before each moment of a log, found by sorting it once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.interactions import Int32, Int64, Interactions


class Histories:
    """
    Histories of a log.

    A moment is a position in the log: what stands before it had happened.

    >>> log = Interactions(*(np.array(column, np.int32) for column in ([3, 3, 3, 5], [7, 8, 7, 7], *4 * [[0] * 4])))
    >>> histories = Histories(log)
    >>> users, moments = np.array([3, 3, 5], np.int32), np.array([3, 1, 3])
    >>> [found.tolist() for found in (histories.lengths(users, moments), histories.distinct(users, moments))]
    [[3, 1, 0], [2, 1, 0]]
    >>> histories.met(users, moments, np.array([8, 8, 7], np.int32)).tolist()
    [True, False, False]
    >>> [column.tolist() for column in histories.items(users, moments)]
    [[7, 8, 7, 7], [3, 4, 4]]
    """

    def __init__(self, log: Interactions) -> None:
        self._items = log.items
        self._count = len(log.users)
        positions = np.arange(self._count, dtype=np.int64)
        self._moments = np.sort(log.users.astype(np.int64) * self._count + positions)
        self._width = int(log.items.max(initial=0)) + 1
        pairs = self._pairs(log.users, log.items)
        self._met, first = np.unique(pairs, return_index=True)
        self._first = first.astype(np.int64)
        self._first_moments = np.sort(log.users[first].astype(np.int64) * self._count + first)

    def lengths(self, users: Int32, moments: Int64) -> Int64:
        """Return how many events each user had before a moment."""
        begin, end = self._range(self._moments, users, moments)
        return end - begin

    def distinct(self, users: Int32, moments: Int64) -> Int64:
        """Return how many different items each user had met before a moment."""
        begin, end = self._range(self._first_moments, users, moments)
        return end - begin

    def met(self, users: Int32, moments: Int64, items: Int32) -> npt.NDArray[np.bool_]:
        """Return whether each user had met an item before a moment."""
        if not self._count:
            return np.zeros(len(users), bool)
        wanted = self._pairs(users, items)
        place = np.minimum(np.searchsorted(self._met, wanted), len(self._met) - 1)
        found = (self._met[place] == wanted) & (items < self._width)
        return np.asarray(found & (self._first[place] < moments), bool)

    def items(self, users: Int32, moments: Int64) -> tuple[Int32, Int64]:
        """Return the items of each history in order, repeats too, and where each history ends: (h,), (n,)."""
        begin, end = self._range(self._moments, users, moments)
        ends = np.cumsum(end - begin)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - (end - begin), end - begin)
        positions = self._moments[np.repeat(begin, end - begin) + within] % max(self._count, 1)
        return self._items[positions], ends

    def _pairs(self, users: Int32, items: Int32) -> Int64:
        return users.astype(np.int64) * self._width + items

    def _range(self, moments: Int64, users: Int32, before: Int64) -> tuple[Int64, Int64]:
        start = users.astype(np.int64) * self._count
        begin = np.searchsorted(moments, start).astype(np.int64)
        return begin, np.searchsorted(moments, start + before).astype(np.int64)
