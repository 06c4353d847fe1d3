"""What a user met most often (P-TopFreq of Li et al.: "A Next Basket Recommendation Reality Check", TOIS 2023)."""

from __future__ import annotations

from models.baselines.baseline import Baseline, Doubles
from models.compiled import compiled
from models.interactions import Asking, Int32


class PersonalFrequency(Baseline):
    """The user's own items, the most frequent first and of these the latest; behind them the popular ones."""

    def __init__(self, users: int, items: int) -> None:
        super().__init__("personal frequency", users, items)

    def score(self, asking: Asking, scores: Doubles) -> None:
        """Score by the user's own count, and by less than one for how late the last event was."""
        events = self.events
        _count(asking.users, events.by_user.last, events.by_user.before, events.items, events.count, scores)


@compiled
def _count(users: Int32, last: Int32, before: Int32, items: Int32, count: int, scores: Doubles) -> None:
    for row in range(len(users)):
        event = last[users[row]]
        while event >= 0:
            item = items[event]
            if scores[row, item] == 0:
                scores[row, item] = (event + 1) / (count + 1)
            scores[row, item] += 1
            event = before[event]
