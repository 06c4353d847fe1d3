"""
Decayed popularity of items, exact: integer sums by epoch, so that order, merging and replay change nothing.

One `Popularity` holds the items of one owned partition.
"""

from __future__ import annotations

import msgspec

from models.decay import KEPT_EPOCHS, decayed_sum, epoch_share
from streams.settings import EVENT_TYPES, Settings
from streams.wire.signals import ItemSignals

_DAY_S = 86_400.0
#: Sums stop here, so that they fit the record's 64 bits: some 900 million purchases of one item in one half-life.
_MAX_SUM = 2**63 - 1
#: Types that are no demand.
_NOT_DEMAND = ("dislikes", "impressions")


def demand_weights(settings: Settings) -> tuple[float, ...]:
    """
    Return what one event adds to its item's popularity, by type code.

    >>> demand_weights(Settings())
    (0.5, 1.0, 3.0, 5.0, 0.0, 0.0)
    """
    return tuple(0.0 if name in _NOT_DEMAND else settings.weights.get(name, 0.0) for name in EVENT_TYPES)


class ItemDemand(msgspec.Struct, gc=False):
    """
    What is kept of one item: integer sums by epoch for two half-lives.

    Attributes
    ----------
    long, short
        Epoch number to the sum of `models.decay.epoch_share` of its events.
    newest_ms
        Time of the newest event.
    events
        Events counted.

    """

    long: dict[int, int]
    short: dict[int, int]
    newest_ms: int = 0
    events: int = 0


class Popularity:
    """
    Demand for items.

    Parameters
    ----------
    half_life_s
        Half-life of popularity.
    trend_half_life_s
        Half-life of the recent demand that `trend` compares with it.

    """

    def __init__(self, half_life_s: float, trend_half_life_s: float = _DAY_S) -> None:
        self._long_s = half_life_s
        self._short_s = trend_half_life_s
        self._items: dict[str, ItemDemand] = {}

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._items)

    def add(self, item_id: str, ts_ms: int, weight: float) -> None:
        """Count one event of an item, of a weight of 0 (no demand) or more."""
        demand = self._items.get(item_id)
        if demand is None:
            demand = self._items[item_id] = ItemDemand({}, {})
        demand.events += 1
        demand.newest_ms = max(demand.newest_ms, ts_ms)
        _add(demand.long, ts_ms, weight, self._long_s)
        _add(demand.short, ts_ms, weight, self._short_s)

    def value(self, item_id: str, now_ms: int) -> float:
        """Return the decayed mass of an item; 0 for one never met."""
        demand = self._items.get(item_id)
        return decayed_sum(demand.long, now_ms, self._long_s) if demand is not None else 0.0

    def trend(self, item_id: str, now_ms: int) -> float:
        """
        Return the rate of the last day over the long-term rate; 0 without demand.

        A steady rate r gives a decayed mass of r x half-life / ln 2, so steady demand reads 1.
        """
        demand = self._items.get(item_id)
        if demand is None or not (long := decayed_sum(demand.long, now_ms, self._long_s)) > 0:
            return 0.0
        return decayed_sum(demand.short, now_ms, self._short_s) / self._short_s / (long / self._long_s)

    def signals(self, item_id: str) -> ItemSignals:
        """
        Return what is published of an item, as of its newest event.

        Raises
        ------
        KeyError
            For an item never met.

        """
        demand = self._items[item_id]
        newest = demand.newest_ms
        return ItemSignals(item_id, self.value(item_id, newest), newest, self.trend(item_id, newest), demand.events)

    def state(self, item_id: str) -> ItemDemand:
        """Return what is kept of an item, to be stored at once: it changes with the next event."""
        return self._items[item_id]

    def restore(self, item_id: str, demand: ItemDemand) -> None:
        """Take back what was stored of an item."""
        self._items[item_id] = demand


def _add(epochs: dict[int, int], ts_ms: int, weight: float, half_life_s: float) -> None:
    epoch, share = epoch_share(ts_ms, weight, half_life_s)
    if not share:
        return
    newest = max(epochs, default=epoch)
    if epoch <= newest - KEPT_EPOCHS:
        return
    epochs[epoch] = min(epochs.get(epoch, 0) + share, _MAX_SUM)
    # Dropped by distance to the newest epoch, not by arrival: what is left does not depend on the order.
    for old in [known for known in epochs if known <= epoch - KEPT_EPOCHS]:
        del epochs[old]
