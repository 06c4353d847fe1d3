"""
Ranking a batch of users against the catalogue: what `models.listing` makes, as it is published.

Runs in a thread while the catalogue stands still.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from models.contenders import Rows
from models.events import Weighing
from models.exploration import CERTAIN, Met
from models.listing import STEPS, Lists, make_lists
from models.neighbours import Scratch
from models.ranking import RankingParameters
from models.reranking import Promotions
from models.striking import strike
from models.users import Users, nobody
from streams.catalogue.matrix import Catalogue
from streams.catalogue.view import View
from streams.refresh.scoring import Scoring
from streams.settings import EVENT_TYPES, Settings
from streams.wire.events import TYPE_CODES
from streams.wire.ranked_items import BOOSTED, EXPLORED, PINNED, ItemsWriter, Places
from streams.wire.recommendations import RankedItem

_NOTHING_LIKED = frozenset({TYPE_CODES["dislikes"], TYPE_CODES["impressions"]})


class Ranked(NamedTuple):
    """
    A list, best first; shorter than asked only where the catalogue has no more items.

    Attributes
    ----------
    item_ids
        What is listed.
    items_json
        The places as they stand in a published list: see `RankedItem`.
    price_marks
        Of the items; empty where no price is known.
    explored
        Rank of the exploration slot and propensity of what stands there, see `models.consistency.Previous`.

    """

    item_ids: tuple[str, ...]
    items_json: bytes
    price_marks: tuple[int, ...]
    explored: tuple[int, int] = (0, 0)

    @property
    def items(self) -> tuple[RankedItem, ...]:
        """The places."""
        return msgspec.json.decode(self.items_json, type=tuple[RankedItem, ...])


class Ranking(NamedTuple):
    """
    The lists of n users, and what they are made of.

    Attributes
    ----------
    lists
        As they are published.
    places
        (n, size + spare, ...) what stands in them, and behind that what stands by.
    price_marks
        (n, size + spare) uint16, of the items.

    """

    lists: list[Ranked]
    places: Places
    price_marks: npt.NDArray[np.uint16]


class Ranker:
    """
    Ranks users over one catalogue; used from one thread at a time.

    Parameters
    ----------
    spare
        How many items stand by behind each list.

    Attributes
    ----------
    scoring
        The learned scorer, whose file may be read again at any time.

    Raises
    ------
    ConfigurationError
        When the scorer's file cannot be used.

    """

    def __init__(self, catalogue: Catalogue, settings: Settings, spare: int = 0) -> None:
        self._catalogue = catalogue
        self._size, self._spare = settings.list_size, spare
        self._writer = ItemsWriter()
        self._scratch = Scratch()
        self.scoring = Scoring(settings.scorer_file)
        weights = np.array([settings.weights.get(name, 0.0) for name in EVENT_TYPES])
        weights[list(_NOTHING_LIKED)] = 0.0
        self._weighing = Weighing(weights, 1000.0 * np.array([settings.half_life_short_s, settings.half_life_long_s]))

    def default(
        self, parameters: RankingParameters | None = None, view: View | None = None, now_ms: int = 0
    ) -> Ranked:  # fmt: skip
        """Return the list for visitors without events: the most popular items, `now_ms` telling in which segment."""
        return self.rank(nobody(self._catalogue.dim, parameters or RankingParameters(), now_ms), view)[0]

    def rank(self, users: Users, view: View | None = None) -> list[Ranked]:
        """
        Return the list of each user; vectors of another dimension are of another vector space and say nothing.

        Parameters
        ----------
        view
            Made beforehand by the thread that gives out rows, where that is another one; None makes it now.

        """
        return self.make(users, view).lists

    def make(self, users: Users, view: View | None = None) -> Ranking:
        """Return the list of each user with what stands by; parameters are those of `rank`."""
        view = self._catalogue.view() if view is None else view
        dim = view.vectors.shape[1]
        if users.interests.shape[2] != dim:
            users = users._replace(interests=np.zeros((3, len(users.parameters), dim), np.float32))
        table = Rows(view.vectors, view.coded, view.popularity, view.offered, view.order)
        lists = make_lists(
            users, table, Met(view.events, *view.names), view.related, view.rising, view.attributes, view.promotions,
            self._size, self._weighing, self._scratch, self._spare, self.scoring.of(view.fingerprint, dim),
            view.of_segments,
        )  # fmt: skip
        _tell_promoted(lists, view.promotions, self._size)
        propensities, reasons = _tell_explored(lists), lists.reasons
        places = Places(
            lists.items, lists.steps, lists.sources, propensities, reasons.items, reasons.kinds, reasons.shares
        )
        marks = view.attributes.price_marks
        return self._write(places, marks[lists.items] if len(marks) else np.zeros(lists.items.shape, np.uint16), view)

    def strike(self, places: Places, price_marks: npt.NDArray[np.uint16], view: View) -> Ranking:
        """Return what lists that were made before become without the items that may be listed no more."""
        order = strike(places.items, view.offered, self._size)
        columns = [_at(column, order) for column in (*places, price_marks)]
        columns[0][order < 0] = -1
        return self._write(Places(*columns[:-1]), columns[-1], view)

    def _write(self, places: Places, price_marks: npt.NDArray[np.uint16], view: View) -> Ranking:
        listed = places.items[:, : self._size]
        written = self._writer.write(places, view.names.pool, view.names.at, self._size)
        ids = view.ids
        sizes = (listed >= 0).sum(axis=1).tolist()
        prices = price_marks[:, : self._size].tolist() if price_marks.any() else [[]] * len(written)
        lists = [
            Ranked(tuple([ids[item] for item in items[:size]]), items_json, tuple(marked[:size]))
            for items, items_json, size, marked in zip(listed.tolist(), written, sizes, prices, strict=True)
        ]
        drawn = (places.propensities[:, : self._size] < CERTAIN) & (listed >= 0)
        for user in np.flatnonzero(drawn.any(axis=1)).tolist():
            slot = int(drawn[user].argmax())
            told = int(places.propensities[user, slot]) * (1 if places.sources[user, slot] == EXPLORED else -1)
            lists[user] = lists[user]._replace(explored=(slot + 1, told))
        return Ranking(lists, places, price_marks)


def _at(column: npt.NDArray[Any], order: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return a column (n, k, ...) in another order (n, k)."""
    return np.ascontiguousarray(
        np.take_along_axis(column, order.reshape(*order.shape, *[1] * (column.ndim - 2)), axis=1)
    )


def _tell_promoted(lists: Lists, promotions: Promotions, size: int) -> None:
    """Name the rule as the source of items that stand where they do by it."""
    if promotions.boosts.any():
        by = np.rint(promotions.boosts[lists.items] * STEPS)
        lists.sources[(lists.items >= 0) & (by > 0) & (by > lists.steps)] = BOOSTED
    if len(pinned := promotions.pinned[:size]):
        first = lists.items[:, : len(pinned)]
        lists.sources[:, : len(pinned)][(first >= 0) & (first == pinned)] = PINNED


def _tell_explored(lists: Lists) -> npt.NDArray[np.int64]:
    """Name exploration as the source of items that stand where they do by it; return all propensities, see `Places`."""
    propensities = np.full(lists.items.shape, CERTAIN, np.int64)
    if (explored := lists.explored) is not None:
        who = np.flatnonzero(explored.slots >= 0)
        propensities[who, explored.slots[who]] = explored.propensities[who]
        put = np.flatnonzero(explored.items >= 0)
        lists.sources[put, explored.slots[put]] = EXPLORED
    return propensities
