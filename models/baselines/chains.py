"""
A growing log in which every event knows the one before it of the same user, item and session.

What a user did lately, who else met an item and what else a session held are walks along such chains: nothing is
counted twice over, and taking in an event costs the same however long the log is.
"""

from __future__ import annotations

import numpy as np

from models.compiled import compiled
from models.interactions import Int32, Int64, Interactions


class Chain:
    """
    Events of one key behind each other.

    Attributes
    ----------
    last
        (keys,) int32: position of each key's newest event, -1 where it has none; grows with the keys.
    before, after
        (capacity,) int32: positions of the neighbours of each event among those of its key, -1 behind the ends.

    """

    def __init__(self, keys: int) -> None:
        self.last = np.full(keys, -1, np.int32)
        self.before = np.empty(0, np.int32)
        self.after = np.empty(0, np.int32)

    def extend(self, keys: Int32, begin: int) -> None:
        """Append events with these keys, the first at position `begin`."""
        self.last = grown(self.last, int(keys.max(initial=-1)) + 1, -1)
        self.before = grown(self.before, begin + len(keys), -1)
        self.after = grown(self.after, begin + len(keys), -1)
        _link(keys, begin, self.last, self.before, self.after)


class Events:
    """
    A log that grows.

    Attributes
    ----------
    count
        Events so far.
    items, users, groups
        (capacity,) int32. The group of an event is its session; where it names none, a run of its user's events.
    by_user, by_item, by_group
        Chains.
    met
        (items,) int64: events of each item.

    """

    def __init__(self, users: int, items: int, *, run: int | None = None) -> None:
        """Begin with nothing; `run` events of a user without sessions are one group, all of them when it is None."""
        self.count = 0
        self.items = np.empty(0, np.int32)
        self.users = np.empty(0, np.int32)
        self.groups = np.empty(0, np.int32)
        self.by_user, self.by_item, self.by_group = Chain(users), Chain(items), Chain(0)
        self.met = np.zeros(items, np.int64)
        self._run = run
        self._group_of_session = np.empty(0, np.int32)
        self._group_of_user = np.full(users, -1, np.int32)
        self._left_in_group = np.zeros(users, np.int32)
        self._group_count = 0

    def extend(self, log: Interactions) -> None:
        """Append what happened next."""
        begin, end = self.count, self.count + len(log.items)
        self.items, self.users = grown(self.items, end, -1), grown(self.users, end, -1)
        self.groups = grown(self.groups, end, -1)
        self.items[begin:end], self.users[begin:end] = log.items, log.users
        self._group_of_session = grown(self._group_of_session, int(log.sessions.max(initial=-1)) + 1, -1)
        self._group_count = _number_groups(
            log.users, log.sessions, self._run or np.iinfo(np.int32).max, self._group_count, self._group_of_session,
            self._group_of_user, self._left_in_group, self.groups[begin:end],
        )  # fmt: skip
        self.by_user.extend(log.users, begin)
        self.by_item.extend(log.items, begin)
        self.by_group.extend(self.groups[begin:end], begin)
        np.add.at(self.met, log.items, 1)
        self.count = end

    def histories(self) -> tuple[Int64, Int32, Int32]:
        """
        Return the distinct items of all users: where each user's begin (users + 1,), the items, how often each.

        Items of one user ascend.
        """
        width = len(self.met)
        keys, counts = np.unique(
            self.users[: self.count].astype(np.int64) * width + self.items[: self.count], return_counts=True
        )
        begins = np.searchsorted(keys, np.arange(len(self.by_user.last) + 1, dtype=np.int64) * width)
        return begins, (keys % width).astype(np.int32), counts.astype(np.int32)

    def history(self, user: int) -> tuple[Int32, Int64]:
        """Return the distinct items of one user, ascending, and how often each was met."""
        found, event = [], int(self.by_user.last[user])
        while event >= 0:
            found.append(self.items[event])
            event = int(self.by_user.before[event])
        items, counts = np.unique(np.array(found, np.int32), return_counts=True)
        return items, counts.astype(np.int64)


def grown(column: Int32, needed: int, empty: int) -> Int32:
    """Return a column of at least so many places, twice as many as before so that growing is rare."""
    if needed <= len(column):
        return column
    longer = np.full(max(needed, 2 * len(column)), empty, np.int32)
    longer[: len(column)] = column
    return longer


@compiled
def _link(keys: Int32, begin: int, last: Int32, before: Int32, after: Int32) -> None:
    for offset in range(len(keys)):
        here, previous = begin + offset, last[keys[offset]]
        before[here] = previous
        after[here] = -1
        if previous >= 0:
            after[previous] = here
        last[keys[offset]] = here


@compiled
def _number_groups(
    users: Int32,
    sessions: Int32,
    run: int,
    count: int,
    group_of_session: Int32,
    group_of_user: Int32,
    left_in_group: Int32,
    groups: Int32,
) -> int:
    for event in range(len(users)):
        user, session = users[event], sessions[event]
        if session >= 0:
            if group_of_session[session] < 0:
                group_of_session[session] = count
                count += 1
            groups[event] = group_of_session[session]
            continue
        if left_in_group[user] == 0:
            group_of_user[user] = count
            left_in_group[user] = run
            count += 1
        left_in_group[user] -= 1
        groups[event] = group_of_user[user]
    return count
