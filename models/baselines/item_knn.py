"""Items like those a user met: cosine of the sets of users who met them."""

from __future__ import annotations

import numpy as np

from models.baselines.baseline import Baseline, Doubles
from models.compiled import compiled
from models.interactions import Asking, Int32, Int64


class ItemKNN(Baseline):
    """
    Item-to-item neighbours by cosine, drawn towards 0 for items of few users (Deshpande and Karypis, TOIS 2004).

    The similarity of two items is the number of users who met both over `sqrt(n_i n_j) + shrinkage`; each item keeps
    its `neighbours` most similar, and a list sums those of the user's distinct items.
    """

    def __init__(self, users: int, items: int, neighbours: int, shrinkage: float) -> None:
        super().__init__("item-kNN", users, items)
        self._neighbours = neighbours
        self._shrinkage = shrinkage
        self._near = np.empty((items, 0), np.int32)
        self._similar = np.empty((items, 0))

    def fit(self) -> None:
        """Find the neighbours of all items anew."""
        count = len(self.events.met)
        begins, items, _ = self.events.histories()
        order = np.argsort(items, kind="stable")
        users = np.repeat(np.arange(len(begins) - 1, dtype=np.int32), np.diff(begins))[order]
        met_by = np.searchsorted(items[order], np.arange(count + 1))
        self._near = np.full((count, self._neighbours), -1, np.int32)
        self._similar = np.zeros((count, self._neighbours))
        _fit(begins, items, met_by, users, self._shrinkage, np.zeros(count), np.empty(count, np.int32),
             self._near, self._similar)  # fmt: skip

    def score(self, asking: Asking, scores: Doubles) -> None:
        """Sum the neighbours of every distinct item of the user."""
        events = self.events
        marked = np.full(len(events.met), -1, np.int64)
        _sum(asking.users, events.by_user.last, events.by_user.before, events.items, self._near, self._similar,
             marked, scores)  # fmt: skip


@compiled
def _fit(
    begins: Int64,
    items: Int32,
    met_by: Int64,
    users: Int32,
    shrinkage: float,
    together: Doubles,
    touched: Int32,
    near: Int32,
    similar: Doubles,
) -> None:
    kept = near.shape[1]
    for item in range(len(met_by) - 1):
        count = 0
        for which in range(met_by[item], met_by[item + 1]):
            for place in range(begins[users[which]], begins[users[which] + 1]):
                other = items[place]
                if together[other] == 0:
                    touched[count] = other
                    count += 1
                together[other] += 1
        found = 0
        for place in range(count):
            other = touched[place]
            norm = np.sqrt(together[item] * (met_by[other + 1] - met_by[other])) + shrinkage
            if other != item:
                found = _keep(near[item], similar[item], found, kept, other, together[other] / norm)
        for place in range(count):
            together[touched[place]] = 0


@compiled
def _keep(near: Int32, similar: Doubles, found: int, kept: int, item: int, value: float) -> int:
    """Insert a neighbour where it belongs: most similar first, of equals the lower number."""
    if found == kept and not _before(value, item, similar[kept - 1], near[kept - 1]):
        return found
    place = found if found < kept else kept - 1
    while place > 0 and _before(value, item, similar[place - 1], near[place - 1]):
        near[place], similar[place] = near[place - 1], similar[place - 1]
        place -= 1
    near[place], similar[place] = item, value
    return min(found + 1, kept)


@compiled
def _before(value: float, item: int, other_value: float, other: int) -> bool:
    return bool(value > other_value or (value == other_value and item < other))


@compiled
def _sum(
    users: Int32,
    last: Int32,
    before: Int32,
    items: Int32,
    near: Int32,
    similar: Doubles,
    marked: Int64,
    scores: Doubles,
) -> None:
    for row in range(len(users)):
        event = last[users[row]]
        while event >= 0:
            item = items[event]
            event = before[event]
            if marked[item] == row:
                continue
            marked[item] = row
            for place in range(near.shape[1]):
                if near[item, place] < 0:
                    break
                scores[row, near[item, place]] += similar[item, place]
