"""Who was erased, and when: what holds off the records that were appended before."""

from __future__ import annotations

import itertools
from typing import Final

from streams.interests.budget import Budget

#: Bytes a mark takes in memory: an id, a number and a place in a dict.
_MARK_BYTES: Final = 250


class Marks:
    """
    The marks of one partition.

    >>> marks = Marks(Budget(10, 10_000))
    >>> marks.put("u", 5)
    >>> marks.expire(before_ms=4, most=9), marks.expire(before_ms=5, most=9), marks.at_ms
    ([], ['u'], {})

    Attributes
    ----------
    at_ms
        User to the time of the erasure, ms: records appended up to then are not the user's. The same dict for good.
    newest_ms
        No mark is newer; -1 before the first.

    """

    def __init__(self, budget: Budget) -> None:
        self.at_ms: dict[str, int] = {}
        self._budget = budget
        self.newest_ms = -1
        self._in_order = True
        self._owed: set[str] = set()

    def put(self, user_id: str, at_ms: int, *, cache_owed: bool = False) -> None:
        """Mark a user; `cache_owed` says that the cache has still to forget the user."""
        self.drop(user_id)
        self._in_order &= at_ms >= self.newest_ms
        self.newest_ms = max(at_ms, self.newest_ms)
        self.at_ms[user_id] = at_ms
        self._budget.add_bytes(_MARK_BYTES)
        if cache_owed:
            self._owed.add(user_id)

    def drop(self, user_id: str) -> None:
        """Take a mark away."""
        self._owed.discard(user_id)
        if self.at_ms.pop(user_id, None) is not None:
            self._budget.add_bytes(-(_MARK_BYTES))

    def owed(self) -> list[str]:
        """Return, once, the users whose marks said that the cache has to forget them."""
        owed, self._owed = self._owed, set()
        return sorted(owed)

    def expire(self, before_ms: int, most: int) -> list[str]:
        """Take away the marks up to a time, the oldest first, `most` at once; return whose they were."""
        if not self._in_order:
            # In place: whoever drops records looks into this very dict.
            marks = sorted(self.at_ms.items(), key=lambda mark: mark[1])
            self.at_ms.clear()
            self.at_ms.update(marks)
            self._in_order = True
        first = itertools.islice(self.at_ms.items(), most)
        expired = [user_id for user_id, _ in itertools.takewhile(lambda mark: mark[1] <= before_ms, first)]
        for user_id in expired:
            self.drop(user_id)
        return expired

    def clear(self) -> None:
        """Give everything back to the budget."""
        self._budget.add_bytes(-(_MARK_BYTES * len(self.at_ms)))
        self.at_ms.clear()
