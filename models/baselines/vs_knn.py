"""
Sessions like the current one (VS-kNN: Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms").

UMUAI 28, 2018. The current session is a vector of its items in which later ones weigh more; a past session is worth the
product with that vector, and an item the sum over the nearest sessions that hold it, each times how late in the current
session the latest item of both stood.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.baselines.baseline import Baseline, Doubles
from models.compiled import compiled
from models.interactions import Asking, Int32, Int64, Interactions

#: Newest events of a user that are the current session, and events of one where the log names no sessions.
WINDOW = 30


class VSKNN(Baseline):
    """
    Nearest past sessions among those that lately held one of the user's newest 30 items.

    The session of the user's newest event is no neighbour. In a log without sessions every 30 events of a user are one,
    and none of the user's own are.
    """

    def __init__(self, users: int, items: int, neighbours: int, sample: int) -> None:
        """Compare with the `sample` latest sessions that share an item; sum over the `neighbours` nearest of them."""
        super().__init__("VS-kNN", users, items, run=WINDOW)
        self._neighbours = neighbours
        self._sample = sample
        self._named = False
        self._near = _Near(np.empty(0), np.empty(0), np.empty(0, np.int64), np.empty(0, np.int32))
        self._window = np.empty(WINDOW, np.int32)
        self._marked = np.full(items, -1, np.int64)
        self._stamp = 0

    def learn(self, log: Interactions) -> None:
        """Take in events, and whether they name their sessions."""
        super().learn(log)
        self._named |= bool((log.sessions >= 0).any())
        groups = len(self.events.by_group.last)
        if groups > len(self._near.found):
            self._near = _Near(
                np.empty(groups), np.empty(groups), np.full(groups, -1, np.int64), np.empty(groups, np.int32)
            )

    def score(self, asking: Asking, scores: Doubles) -> None:
        """Find the nearest sessions of each who asks, and sum them up."""
        events = self.events
        near, group, item = self._near, events.by_group, events.by_item
        for row, user in enumerate(asking.users):
            count = _compare(
                int(events.by_user.last[user]), events.by_user.before, events.users, events.items, events.groups,
                item.last, item.before, -1 if self._named else user, self._sample, self._stamp, self._window, near,
            )  # fmt: skip
            found = near.found[:count]
            found = found[np.argsort(-group.last[found], kind="stable")[: self._sample]]
            found = found[np.argsort(-near.product[found], kind="stable")[: self._neighbours]]
            _sum(found, near.product, near.decay, group.last, group.before, events.items, self._stamp, self._marked,
                 scores[row])  # fmt: skip
            self._stamp += WINDOW + len(group.last)


class _Near(NamedTuple):
    """
    Sessions that share an item with the current one.

    Attributes
    ----------
    product, decay
        (groups,) float64: the product with the current session, and the weight of the latest item of both.
    marked
        (groups,) int64: the stamp of the current session, and how many steps back the last item found in it stands.
    found
        (groups,) int32: those found.

    """

    product: Doubles
    decay: Doubles
    marked: Int64
    found: Int32


@compiled
def _compare(
    newest: int,
    before: Int32,
    users: Int32,
    items: Int32,
    groups: Int32,
    last_of_item: Int32,
    same_item: Int32,
    barred_user: int,
    sample: int,
    stamp: int,
    window: Int32,
    near: _Near,
) -> int:
    """Fill `near` and return how many sessions were found."""
    length, event = 0, newest
    while event >= 0 and length < len(window):
        window[length] = event
        length += 1
        event = before[event]
    count = 0
    for step in range(length):
        item = items[window[step]]
        if _stands_before(items, window, step, item):
            continue
        # In whole numbers, so that equal products are equal; the authors' are these over the length.
        weight = float(length - step)
        event, taken = last_of_item[item], 0
        while event >= 0 and taken < sample:
            group = groups[event]
            own = group == groups[newest] or users[event] == barred_user
            event = same_item[event]
            if own or near.marked[group] == stamp + step:
                continue
            taken += 1
            if near.marked[group] < stamp:
                near.product[group] = 0.0
                # 1 / step of the latest shared item: "div" in the authors' code, their choice for this sum.
                near.decay[group] = 1 / (step + 1)
                near.found[count] = group
                count += 1
            near.product[group] += weight
            near.marked[group] = stamp + step
    return count


@compiled
def _stands_before(items: Int32, window: Int32, step: int, item: int) -> bool:
    for earlier in range(step):  # noqa: SIM110  # numba compiles no generators
        if items[window[earlier]] == item:
            return True
    return False


@compiled
def _sum(
    found: Int32,
    product: Doubles,
    decay: Doubles,
    last_of_group: Int32,
    before: Int32,
    items: Int32,
    stamp: int,
    marked: Int64,
    scores: Doubles,
) -> None:
    for group in found:
        event = last_of_group[group]
        while event >= 0:
            item = items[event]
            if marked[item] != stamp + group:
                marked[item] = stamp + group
                scores[item] += product[group] * decay[group]
            event = before[event]
