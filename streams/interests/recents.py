"""The histories of many users at once, copied out of the columns for ranking: recent interactions, and all items."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from models.compiled import compiled
from models.events import Events
from models.users import Owned
from streams.interests.columns import Int32, Int64, Rules, Store
from streams.wire.events import TYPE_CODES

_PURCHASES: Final = TYPE_CODES["purchases"]
_DISLIKES: Final = TYPE_CODES["dislikes"]
#: The half-life of the long vector, in which masses decay.
_LONG: Final = 1


def recent_events(store: Store, rows: Int64) -> Events:
    """Return the newest interactions of hot users, oldest first."""
    ends = np.cumsum(store.users["recent_n"][rows], dtype=np.int64)
    count = int(ends[-1]) if len(ends) else 0
    events = Events(np.empty(count, np.int32), np.empty(count, np.uint8), np.empty(count, np.int64), ends)
    _copy(store, rows, events)
    return events


def owned_items(store: Store, rules: Rules, rows: Int64, known: int) -> Owned:
    """
    Return the items that hot users interacted with, as of each user's newest interaction.

    Parameters
    ----------
    known
        Item rows in use.

    """
    users = store.users
    most = int((users["recent_n"][rows] + users["tally_n"][rows]).sum())
    owned = Owned(
        np.empty(most, np.int32), np.empty(most, np.float64), np.empty(most, np.bool_), np.empty(len(rows), np.int64)
    )
    # Zeros that nobody reads cost nothing: few items of a large catalogue are met.
    used = _own(store, rules, rows, np.zeros(known, np.int32), owned)
    return Owned(owned.items[:used], owned.masses[:used], owned.bought[:used], owned.ends)


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


@compiled
def _own(store: Store, rules: Rules, rows: Int64, place_of: Int32, owned: Owned) -> int:
    """Fill in the items, each once for a user; `place_of` (items,) is scratch: one more than where an item stands."""
    users, recents, tallies = store.users, store.recents, store.tallies
    used = 0
    for number in range(len(rows)):
        user = users[rows[number]]
        first, end = user.recent_at, user.recent_at + user.recent_n
        newest = recents[end - 1].ts if end > first else 0
        begin = used
        for place in range(user.tally_at, user.tally_at + user.tally_n):
            tally, item = tallies[place], store.tally_items[place]
            owned.items[used] = item
            owned.masses[used] = tally.mass * math.exp2(-(newest - tally.ts) / rules.half_lives_ms[_LONG])
            owned.bought[used] = tally.counts[_PURCHASES] > 0 and tally.counts[_DISLIKES] == 0
            used += 1
            place_of[item] = used
        for slot in range(first, end):
            item, kind = recents[slot].item, recents[slot].kind
            at = place_of[item] - 1
            if at < begin or at >= used or owned.items[at] != item:
                at = used
                owned.items[at], owned.masses[at], owned.bought[at] = item, 0.0, False
                used += 1
                place_of[item] = used
            if rules.negative[kind]:
                owned.masses[at], owned.bought[at] = -math.inf, False
            else:
                age = newest - recents[slot].ts
                owned.masses[at] += rules.weights[kind] * math.exp2(-age / rules.half_lives_ms[_LONG])
                owned.bought[at] |= kind == _PURCHASES and owned.masses[at] > -math.inf
        owned.ends[number] = used
    return used
