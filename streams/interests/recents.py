"""The recent interactions of many users at once, copied out of the columns for ranking."""

from __future__ import annotations

import numpy as np

from models.compiled import compiled
from models.reasons import Events
from streams.interests.columns import Int64, Store


def recent_events(store: Store, rows: Int64) -> Events:
    """Return the newest interactions of hot users, oldest first."""
    ends = np.cumsum(store.users["recent_n"][rows], dtype=np.int64)
    count = int(ends[-1]) if len(ends) else 0
    events = Events(np.empty(count, np.int32), np.empty(count, np.uint8), np.empty(count, np.int64), ends)
    _copy(store, rows, events)
    return events


def newest_ts_ms(events: Events) -> Int64:
    """
    Return the time (n,) of each user's newest interaction, 0 without one.

    >>> ends = np.array([2, 2, 3])
    >>> newest_ts_ms(Events(np.zeros(3, np.int32), np.zeros(3, np.uint8), np.array([5, 7, 6]), ends)).tolist()
    [7, 0, 6]
    """
    ends = events.ends
    newest = np.zeros(len(ends), np.int64)
    some = np.diff(ends, prepend=0) > 0
    newest[some] = events.ts_ms[ends[some] - 1]
    return newest


@compiled
def _copy(store: Store, rows: Int64, events: Events) -> None:
    users, recents = store.users, store.recents
    at = 0
    for number in range(len(rows)):
        user = users[rows[number]]
        for slot in range(user.recent_at, user.recent_at + user.recent_n):
            interaction = recents[slot]
            events.items[at], events.kinds[at], events.ts_ms[at] = interaction.item, interaction.kind, interaction.ts
            at += 1
