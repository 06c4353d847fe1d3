"""Users on whose lists something stands that may be listed no more: those who were active last come first."""

from __future__ import annotations

from collections.abc import Container, Iterable
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from models.exploration import CERTAIN
from streams.refresh.shelf import Shelf, Shelved
from streams.wire.ranked_items import EXPLORED

P = TypeVar("P")


class Struck(NamedTuple, Generic[P]):
    """
    Users whose lists are to be changed.

    Attributes
    ----------
    user_ids, shelved
        Users, and their lists as they are on the shelf.
    lost
        Users whose list is to be ranked again: it left the shelf while they waited; or an item was drawn for it, beside
        which what stands by may break a cap; or its exploration slot is struck, which only ranking can fill.

    """

    user_ids: list[str]
    shelved: Shelved
    lost: list[tuple[P, str]]


class Strikes(Generic[P]):
    """The lists of a shelf that are to be changed without ranking again."""

    def __init__(self, shelf: Shelf[P]) -> None:
        self._shelf = shelf
        self._waiting: dict[str, P] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._waiting

    def add(self, closed: Iterable[int], rows: int) -> None:
        """Take in every list on which one of these item rows stands, of `rows` that there are."""
        holders = {user_id: self._shelf.partition(user_id) for user_id in self._shelf.holders(closed, rows)}
        if not self._waiting:
            self._waiting = holders
        elif holders:
            waiting = self._waiting | holders
            # Whose list left the shelf is told by `take`, whenever that is.
            self._waiting = {user_id: waiting[user_id] for user_id in self._shelf.latest_first(waiting)} | waiting

    def forget(self, partition: P) -> None:
        """Drop the users of a partition that is no longer owned."""
        for user_id in [user_id for user_id, owner in self._waiting.items() if owner is partition]:
            del self._waiting[user_id]

    def take(self, count: int, is_open: npt.NDArray[np.bool_], owed: Container[str]) -> Struck[P]:
        """
        Remove up to `count` users and return those whose lists are to be changed.

        Whose list changed in the meantime, and holds nothing any more that is not open, is left out. So is who is
        `owed` a list anyway: it will have seen what this one has not, a purchase perhaps.
        """
        taken = list(islice(self._waiting.items(), count))
        for user_id, _ in taken:
            del self._waiting[user_id]
        taken = [(user_id, partition) for user_id, partition in taken if user_id not in owed]
        user_ids = [user_id for user_id, _ in taken if user_id in self._shelf]
        lost = [(partition, user_id) for user_id, partition in taken if user_id not in self._shelf]
        shelved = self._shelf.get(user_ids)
        listed = shelved.places.items[:, : self._shelf.size]
        closed = (listed >= 0) & ~is_open[listed]
        struck = closed.any(axis=1)
        drawn = (shelved.places.sources == EXPLORED).any(axis=1)
        again = struck & (drawn | (closed & (shelved.places.propensities[:, : self._shelf.size] < CERTAIN)).any(axis=1))
        lost += [(self._shelf.partition(user_ids[place]), user_ids[place]) for place in np.flatnonzero(again).tolist()]
        held = np.flatnonzero(struck & ~again)
        return Struck([user_ids[place] for place in held.tolist()], shelved.only(held), lost)
