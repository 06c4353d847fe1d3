"""What all baselines share: a log that grows, masks of seen items, and the best of scores."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from models.baselines.chains import Events
from models.compiled import compiled
from models.interactions import Asking, Int32, Int64, Interactions

#: Numbers of one block of scores: 32 MB.
_SCORES_AT_ONCE = 1 << 22

Doubles = npt.NDArray[np.float64]


class Baseline(ABC):
    """
    A system that scores all items for each who asks.

    Items of equal score stand in the order of their popularity, those equally popular in the order of their numbers.

    Attributes
    ----------
    name
        What it is called in tables.
    events
        All that was learned.

    """

    def __init__(self, name: str, users: int, items: int, *, run: int | None = None) -> None:
        self.name = name
        self.events = Events(users, items, run=run)

    def learn(self, log: Interactions) -> None:
        """Take in what happened since the last call, in order."""
        self.events.extend(log)

    def fit(self) -> None:  # noqa: B027  # most have nothing to fit
        """Fit what is fitted from time to time; here, nothing."""

    def recommend(self, asking: Asking, size: int, *, exclude_seen: bool) -> Int32:
        """Return the best items (n, size) int32 of each who asks, best first; -1 behind the last."""
        events = self.events
        lists = np.full((len(asking.users), size), -1, np.int32)
        rows = max(1, _SCORES_AT_ONCE // len(events.met))
        for begin in range(0, len(lists), rows):
            here = slice(begin, begin + rows)
            scores = np.zeros((len(lists[here]), len(events.met)))
            self.score(Asking(asking.users[here], asking.sessions[here], asking.ts_ms[here]), scores)
            if exclude_seen:
                _mask(asking.users[here], events.by_user.last, events.by_user.before, events.items, scores)
            take_best(scores, events.met, lists[here])
        return lists

    @abstractmethod
    def score(self, asking: Asking, scores: Doubles) -> None:
        """Set or add to `scores` (n, items) float64, zeros on entry; -inf for an item that must not be listed."""


@compiled
def _mask(users: Int32, last: Int32, before: Int32, items: Int32, scores: Doubles) -> None:
    for row in range(len(users)):
        event = last[users[row]]
        while event >= 0:
            scores[row, items[event]] = -np.inf
            event = before[event]


@compiled
def take_best(scores: Doubles, popularity: Int64, lists: Int32) -> None:
    """Set each row of `lists` to the items of highest score; equal ones by popularity, then by number."""
    size = lists.shape[1]
    for row in range(scores.shape[0]):
        count = 0
        for item in range(scores.shape[1]):
            score, met = scores[row, item], popularity[item]
            if score == -np.inf or (count == size and not _better(scores, popularity, row, score, met, lists)):
                continue
            place = count if count < size else size - 1
            while place > 0:
                above = lists[row, place - 1]
                other = scores[row, above]
                if other > score or (other == score and popularity[above] >= met):
                    break
                lists[row, place] = above
                place -= 1
            lists[row, place] = item
            count = min(count + 1, size)


@compiled
def _better(scores: Doubles, popularity: Int64, row: int, score: float, met: int, lists: Int32) -> bool:
    worst = lists[row, lists.shape[1] - 1]
    lowest = scores[row, worst]
    return bool(score > lowest or (score == lowest and met > popularity[worst]))
