"""
Ranking a batch of users against the catalogue: what `models.listing` makes, as it is published.

Runs in a thread while the catalogue stands still.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from models.contenders import Rows
from models.events import Weighing
from models.listing import make_lists
from models.neighbours import Scratch
from models.ranking import RankingParameters
from models.users import Users, nobody
from streams.catalogue.matrix import Catalogue
from streams.catalogue.view import View
from streams.settings import EVENT_TYPES, Settings
from streams.wire.events import TYPE_CODES
from streams.wire.ranked_items import ItemsWriter, Places
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

    """

    item_ids: tuple[str, ...]
    items_json: bytes
    price_marks: tuple[int, ...]

    @property
    def items(self) -> tuple[RankedItem, ...]:
        """The places."""
        return msgspec.json.decode(self.items_json, type=tuple[RankedItem, ...])


class Ranker:
    """Ranks users over one catalogue; used from one thread at a time."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self._catalogue = catalogue
        self._size = settings.list_size
        self._writer = ItemsWriter()
        self._scratch = Scratch()
        weights = np.array([settings.weights.get(name, 0.0) for name in EVENT_TYPES])
        weights[list(_NOTHING_LIKED)] = 0.0
        self._weighing = Weighing(weights, 1000.0 * np.array([settings.half_life_short_s, settings.half_life_long_s]))

    def default(self, parameters: RankingParameters | None = None, view: View | None = None) -> Ranked:
        """Return the list for visitors without events: the most popular items."""
        return self.rank(nobody(self._catalogue.dim, parameters or RankingParameters()), view)[0]

    def rank(self, users: Users, view: View | None = None) -> list[Ranked]:
        """
        Return the list of each user; vectors of another dimension are of another vector space and say nothing.

        Parameters
        ----------
        view
            Made beforehand by the thread that gives out rows, where that is another one; None makes it now.

        """
        view = self._catalogue.view() if view is None else view
        dim = view.vectors.shape[1]
        if users.interests.shape[2] != dim:
            users = users._replace(interests=np.zeros((3, len(users.parameters), dim), np.float32))
        table = Rows(view.vectors, view.coded, view.popularity, view.offered, view.order)
        lists = make_lists(
            users, table, view.related, view.attributes, view.promotions, self._size, self._weighing, self._scratch
        )
        reasons = lists.reasons
        places = Places(lists.items, lists.steps, lists.sources, reasons.items, reasons.kinds, reasons.shares)
        written = self._writer.write(places, view.names.pool, view.names.at)
        ids, marks = view.ids, view.attributes.price_marks
        sizes = (lists.items >= 0).sum(axis=1).tolist()
        prices = marks[lists.items].tolist() if marks.any() else [[]] * len(written)
        return [
            Ranked(tuple([ids[item] for item in items[:size]]), items_json, tuple(marked[:size]))
            for items, items_json, size, marked in zip(lists.items.tolist(), written, sizes, prices, strict=True)
        ]
