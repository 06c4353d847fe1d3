"""What was met next to the user's last item."""

from __future__ import annotations

from models.baselines.baseline import Baseline, Doubles
from models.compiled import compiled
from models.interactions import Asking, Int32


class CoOccurrence(Baseline):
    """
    Items by how often they stood near the user's last one: in the same session, or else among the user's own events.

    An event is near when at most `reach` steps lie between them, before or behind.
    """

    def __init__(self, users: int, items: int, reach: int) -> None:
        super().__init__("co-occurrence", users, items)
        self._reach = reach

    def score(self, asking: Asking, scores: Doubles) -> None:
        """Walk over all events of the last item, and from each to its neighbours."""
        events = self.events
        item, group = events.by_item, events.by_group
        _count(
            asking.users, events.by_user.last, events.items, item.last, item.before, group.before, group.after,
            self._reach, scores,
        )  # fmt: skip


@compiled
def _count(
    users: Int32,
    last_of_user: Int32,
    items: Int32,
    last_of_item: Int32,
    same_item: Int32,
    before: Int32,
    after: Int32,
    reach: int,
    scores: Doubles,
) -> None:
    for row in range(len(users)):
        newest = last_of_user[users[row]]
        if newest < 0:
            continue
        event = last_of_item[items[newest]]
        while event >= 0:
            for chain in (before, after):
                near, steps = chain[event], 0
                while near >= 0 and steps < reach:
                    scores[row, items[near]] += 1
                    near = chain[near]
                    steps += 1
            event = same_item[event]
