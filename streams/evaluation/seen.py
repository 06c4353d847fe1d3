"""Which items each user met: interactions enter in any order, the distinct items of users leave."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from models.interactions import Int32, Int64


class SeenItems:
    """
    The distinct items of each user.

    >>> seen = SeenItems(2)
    >>> seen.add(np.array([1, 1, 1], np.int32), np.array([7, 3, 7], np.int32))
    >>> [part.tolist() for part in seen.of([0, 1])]
    [[7, 3], [0, 2]]
    """

    def __init__(self, users: int) -> None:
        self._items: list[dict[int, None] | None] = [None] * users

    def add(self, users: Int32, items: Int32) -> None:
        """Take in interactions (n,) each."""
        for user, item in zip(users.tolist(), items.tolist(), strict=True):
            known = self._items[user]
            if known is None:
                self._items[user] = {item: None}
            else:
                known[item] = None

    def of(self, users: Sequence[int]) -> tuple[Int32, Int64]:
        """Return the items of users, one user's behind another's, and (n,) where each user's end."""
        parts = [self._items[user] or {} for user in users]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return np.fromiter(chain.from_iterable(parts), np.int32, int(ends[-1]) if len(ends) else 0), ends
