"""
The catalogue in memory: dense rows, one matrix of vectors, the cards of the items.

Not thread safe, with one exception: the worker applies records on its loop while no ranking call is running, but
rows may be given out at any time, because a `View` does not see them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.neighbours import Related
from models.quantisation import Quantised
from models.segments import Split
from streams import metrics
from streams.catalogue.attributes import ItemAttributes
from streams.catalogue.cards import Cards
from streams.catalogue.demand import Demand
from streams.catalogue.ids import ItemIds, ItemNames
from streams.catalogue.neighbours import Neighbours
from streams.catalogue.offer import Offer
from streams.catalogue.order import TieOrder
from streams.catalogue.records import (
    Applied,
    CatalogueRecord,
    ExperimentTold,
    ItemGone,
    ItemSource,
    ItemTold,
    NeighboursTold,
    RuleGone,
    RuleRefused,
    RuleTold,
    SignalsGone,
    SignalsTold,
    StageSpace,
    SwitchSpace,
    VectorGone,
    VectorTold,
)
from streams.catalogue.space import VectorSpace
from streams.catalogue.view import View
from streams.wire.items import Item
from streams.wire.models import Served
from streams.wire.neighbours import ItemNeighbours
from streams.wire.signals import ItemSignals

Floats = npt.NDArray[np.float32]

_FIRST_CAPACITY = 1_024


class Catalogue:
    """
    Items by row; a row, once given, is the item's for good.

    One vector space is served at a time. Another is loaded beside it (`stage`) and takes its place when it is complete
    (`switch`), in one step and without copying a vector.

    Parameters
    ----------
    dim
        Of vectors whose space is not told.
    half_life_popularity_s
        Half-life of popularity.
    split
        Segments of users whose demand is told apart.
    clock
        Tells the time.

    Attributes
    ----------
    offer
        What may be listed: what the shop, or while it says nothing a sighting, told of and did not delete, in stock and
        not blocked by a rule.
    changed_at
        (capacity,) int64: the revision at which the row's vector last changed.
    revision
        Grows with each change.
    signals_revision
        Grows with each change of popularity.
    followers, neighbours
        What follows an item in sessions, and its fitted neighbours.
    attributes
        Brand, category and price, as the cards tell them.

    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        half_life_popularity_s: float = 14 * 86400.0,
        split: Split | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.revision = 0
        self.signals_revision = 0
        self.followers = Neighbours()
        self.neighbours = Neighbours()
        self.attributes = ItemAttributes()
        self.offer = Offer(_FIRST_CAPACITY)
        self._clock = clock
        self.changed_at = np.zeros(_FIRST_CAPACITY, np.int64)
        self._demand = Demand(_FIRST_CAPACITY, half_life_popularity_s * 1000.0, split)
        self._space = VectorSpace(None, dim or 0, _FIRST_CAPACITY)
        self._staged: VectorSpace | None = None
        self._ids = ItemIds()
        self._cards = Cards()
        self._order = TieOrder()

    def __len__(self) -> int:
        """Return the number of rows given out."""
        return len(self._ids)

    @property
    def served(self) -> Served | None:
        """The vector space in use; None while unknown."""
        return self._space.served

    @property
    def vectors(self) -> Floats:
        """Unit rows (capacity, dim) float32 of the served space; zeros where no vector is known."""
        return self._space.vectors

    @property
    def coded(self) -> Quantised:
        """The codes of `vectors`, for the search."""
        return self._space.coded

    @property
    def has_vector(self) -> npt.NDArray[np.bool_]:
        """Which rows have a vector in the served space, (capacity,) bool."""
        return self._space.has_vector

    @property
    def dim(self) -> int:
        """Dimension of the vectors; 0 while no vector space is known."""
        return self._space.dim

    @property
    def popularity(self) -> Floats:
        """Decayed popularity (capacity,) float32, 1 for the most popular item."""
        return self._demand.popularity

    @property
    def rising(self) -> Floats:
        """How much demand for items rises (capacity,) float32, 1 where it does most."""
        return self._demand.rising

    @property
    def order(self) -> npt.NDArray[np.int64]:
        """Place (rows,) int64 of each row's id among all sorted ids: the tie order of lists."""
        return self._order.of(self._ids.ids)

    def view(self) -> View:
        """Return the catalogue as it stands now; call it where rows are given out, use it in another thread."""
        count = len(self._ids)
        served = self.served
        return View(
            served.fingerprint if served else "",
            self.vectors[:count],
            self.coded.first(count),
            self.popularity[:count],
            self.rising[:count],
            self._demand.of_segments[:count],
            self._demand.events[:count],
            Related(self.neighbours.family, self.followers.family, self._demand.damping),
            self.attributes.first(count),
            self.offer.open[:count],
            self.offer.promotions(count),
            self.order,
            self._ids.ids,
            self._ids.names,
        )

    @property
    def ids(self) -> list[str]:
        """The ids by row; not to be changed."""
        return self._ids.ids

    @property
    def names(self) -> ItemNames:
        """The ids of the rows as bytes, for compiled code."""
        return self._ids.names

    def row(self, item_id: str) -> int:
        """Return the item's row; a new one when the item was never met."""
        row = self._ids.row(item_id)
        if row >= len(self.changed_at):
            self._grow()
        return row

    def rows(self, ids: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the rows (n,) int32 of items; new ones for those never met."""
        rows = self._ids.rows(ids)
        while len(self._ids) > len(self.changed_at):
            self._grow()
        return rows

    def find(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the rows (n,) int64 of items, -1 for those never met; changes nothing."""
        return self._ids.find(ids)

    def look_up(
        self, pool: npt.NDArray[np.uint8], at: npt.NDArray[np.int32], size: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.int32]:
        """Return the rows (n,) int32 of ids in a buffer, -1 for those never met; see `ItemIds.look_up`."""
        return self._ids.look_up(pool, at, size)

    def item_id(self, row: int) -> str:
        """Return the id of a row."""
        return self._ids.text(row)

    def card(self, item_id: str) -> Item | None:
        """Return the item as the shop, or while it says nothing a sighting, last told it; None when gone."""
        return self._cards.of(item_id)

    def cards(self) -> list[Item]:
        """Return the card of every item that has one."""
        cards = (self.card(item_id) for item_id in self._ids.ids)
        return [card for card in cards if card is not None]

    def upsert_item(self, item: Item, source: ItemSource = "items") -> bool:
        """Take a snapshot; return whether the item's card changed. A sighting never stands over the shop's word."""
        before = self.card(item.item_id)
        self._cards.tell(item, source)
        return self._list(item.item_id, before)

    def delete_item(self, item_id: str, source: ItemSource = "items") -> bool:
        """
        Take a tombstone; return whether the item's card changed.

        The shop's tombstone is its word: no sighting lists the item again, only the shop does.
        """
        before = self.card(item_id)
        self._cards.withdraw(item_id, source)
        return self._list(item_id, before)

    def set_vector(self, item_id: str, vector: Floats) -> bool:
        """
        Take a unit vector (dim,) of the served space; return whether it is new or another one.

        Raises
        ------
        ValueError
            When the dimension is not the catalogue's.

        """
        row = self.row(item_id)
        if not self._space.set(row, vector):
            return False
        self._vector_changed(row)
        return True

    def drop_vector(self, item_id: str) -> bool:
        """Forget an item's vector in the served space; return whether there was one."""
        row = self._ids.row_of.get(item_id, -1)
        if row < 0 or not self._space.drop(row):
            return False
        self._vector_changed(row)
        return True

    def stage(self, served: Served | None) -> None:
        """Make room for another vector space beside the served one; None gives up the one there is."""
        self._staged = None if served is None else VectorSpace(served, served.dim, len(self.changed_at))

    def stage_vector(self, item_id: str, vector: Floats | None) -> None:
        """Take or forget (None) an item's vector in the staged space; nothing that is ranked changes."""
        assert self._staged is not None
        row = self.row(item_id)
        if vector is None:
            self._staged.drop(row)
        else:
            self._staged.set(row, vector)

    def switch(self) -> list[str]:
        """Serve the staged space, the whole of it at once; return the items that had no vector before."""
        assert self._staged is not None
        old, new = self._space, self._staged
        self._space, self._staged = new, None
        self.revision += 1
        self.changed_at[old.has_vector | new.has_vector] = self.revision
        return [self.item_id(row) for row in np.flatnonzero(new.has_vector & ~old.has_vector).tolist()]

    def set_signals(self, told: Sequence[ItemSignals]) -> None:
        """Take the demand for items, of an item that is told twice the last."""
        rows = self.rows([signals.item_id for signals in told])
        self._demand.set(
            rows,
            [signals.popularity for signals in told],
            [signals.trend for signals in told],
            [signals.ref_ts for signals in told],
            [signals.events for signals in told],
            [(signals.devices, signals.in_segments) for signals in told],
        )
        self.revision += 1
        self.signals_revision += 1

    def set_neighbours(self, told: ItemNeighbours) -> None:
        """Take what goes with an item, in place of what did."""
        row = self.row(told.item_id)
        for family, pairs in ((self.followers, told.followers), (self.neighbours, told.neighbours)):
            family.set(row, self.rows([name for name, _ in pairs]), [weight for _, weight in pairs])

    def apply(self, records: Iterable[CatalogueRecord]) -> Applied:
        """Take a batch of followed records in order and tell what changed."""
        applied = Applied()
        vectors: dict[str, None] = {}
        signals: list[ItemSignals] = []
        for record in records:
            match record:
                case VectorTold() | VectorGone() | StageSpace() | SwitchSpace():
                    self._apply_vectors(record, vectors)
                case SignalsTold(signals=told):
                    signals.append(told)
                case SignalsGone(item_id=item_id):
                    signals.append(ItemSignals(item_id, 0.0, 0, 0.0, 0))
                case NeighboursTold(neighbours=neighbours):
                    self.set_neighbours(neighbours)
                case ItemTold(item=item, source=source):
                    if self.upsert_item(item, source) and (card := self.card(item.item_id)) is not None:
                        applied.cards.append(card)
                case ItemGone(item_id=item_id, source=source):
                    self.delete_item(item_id, source)
                case ExperimentTold():
                    applied.experiments.append(record)
                case RuleTold() | RuleGone() | RuleRefused():
                    self._apply_rule(record, applied)
        if signals:
            self.set_signals(signals)
        applied.vectors.extend(vectors)
        self.pass_time(applied)
        metrics.CATALOGUE_ITEMS.labels("listed").set(int(self.offer.listed.sum()))
        metrics.CATALOGUE_ITEMS.labels("with_vector").set(int(self.has_vector.sum()))
        metrics.CATALOGUE_ITEMS.labels("known").set(len(self))
        return applied

    def pass_time(self, applied: Applied | None = None) -> Applied:
        """Let rules begin and end whose time has come; tell what may and what may not be listed since the last call."""
        applied = applied or Applied()
        self.offer.pass_time(round(self._clock() * 1000))
        changes = self.offer.take_changes()
        applied.closed.extend(changes.closed)
        applied.withheld.update((self.item_id(row), reason) for row, reason in changes.withheld.items())
        applied.released.extend(map(self.item_id, changes.released))
        return applied

    def withheld(self) -> dict[str, str]:
        """Return why each item that is withheld is."""
        return {self.item_id(row): reason for row, reason in self.offer.withheld().items()}

    def _apply_rule(self, record: RuleTold | RuleGone | RuleRefused, applied: Applied) -> None:
        match record:
            case RuleTold(rule=rule):
                self.offer.tell_rule(self.row(rule.item_id), rule, round(self._clock() * 1000))
            case RuleGone(item_id=item_id):
                self.offer.drop_rule(item_id)
            case RuleRefused(letter=letter):
                applied.refused.append(letter)

    def _apply_vectors(
        self, record: VectorTold | VectorGone | StageSpace | SwitchSpace, changed: dict[str, None]
    ) -> None:
        """Take what is told of vectors; keep in `changed` whose vector in the served space is new or another one."""
        match record:
            case VectorTold(item_id=item_id, vector=vector, staged=True):
                self.stage_vector(item_id, vector)
            case VectorTold(item_id=item_id, vector=vector):
                if self.set_vector(item_id, vector):
                    changed[item_id] = None
            case VectorGone(item_id=item_id, staged=True):
                self.stage_vector(item_id, None)
            case VectorGone(item_id=item_id):
                self.drop_vector(item_id)
                changed.pop(item_id, None)
            case StageSpace(space=space):
                self.stage(space)
            case SwitchSpace():
                changed.clear()
                changed.update(dict.fromkeys(self.switch()))

    def _list(self, item_id: str, before: Item | None) -> bool:
        card = self.card(item_id)
        if card == before:
            return False
        row = self.row(item_id)
        self.offer.tell_card(row, card)
        self.attributes.set(row, card)
        self.revision += 1
        return True

    def _vector_changed(self, row: int) -> None:
        self.revision += 1
        self.changed_at[row] = self.revision

    def _grow(self) -> None:
        """Double the arrays."""
        more = len(self.changed_at)

        def doubled(array: npt.NDArray[Any], fill: float) -> npt.NDArray[Any]:
            grown = np.full((2 * more, *array.shape[1:]), fill, array.dtype)
            grown[:more] = array
            return grown

        self._space.grow(2 * more)
        if self._staged is not None:
            self._staged.grow(2 * more)
        self.offer.grow(2 * more)
        self.changed_at = doubled(self.changed_at, 0)
        self._demand.grow(2 * more)
