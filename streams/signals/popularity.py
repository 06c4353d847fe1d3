"""
Decayed popularity of items, exact: integer sums by epoch, so that order, merging and replay change nothing.

One `Popularity` holds the items of one owned partition, by row.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from models.decay import KEPT_EPOCHS, NO_EPOCH, add_to_epochs, decayed_sum, epoch_shares
from models.segments import Split, segment_of
from streams.settings import EVENT_TYPES, Settings
from streams.wire.signals import TREND_HALF_LIFE_S

_FIRST_ROWS = 1_024
#: Types that are no demand.
_NOT_DEMAND = ("dislikes", "impressions")

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]


def demand_weights(settings: Settings) -> tuple[float, ...]:
    """
    Return what one event adds to its item's popularity, by type code.

    >>> demand_weights(Settings())
    (0.5, 1.0, 3.0, 5.0, 0.0, 0.0)
    """
    return tuple(0.0 if name in _NOT_DEMAND else settings.weights.get(name, 0.0) for name in EVENT_TYPES)


class ItemDemand(msgspec.Struct, gc=False):
    """
    What is kept of one item: integer sums by epoch for two half-lives, and for the long one in each segment of users.

    Attributes
    ----------
    long, short
        Epoch number to the sum of `models.decay.epoch_share` of its events.
    newest_ms
        Time of the newest event.
    events
        Events counted.
    in_segments
        The parts of `long` since segments are told apart; empty where they are not.
    devices
        Names of the devices that the segments tell apart, see `models.segments.Split`.

    """

    long: dict[int, int]
    short: dict[int, int]
    newest_ms: int = 0
    events: int = 0
    in_segments: tuple[dict[int, int], ...] = ()
    devices: tuple[str, ...] = ()


class _Sums:
    """Sums by epoch of all rows for one half-life."""

    def __init__(self, half_life_s: float, rows: int = _FIRST_ROWS) -> None:
        self.half_life_s = half_life_s
        self._sums = np.zeros((rows, KEPT_EPOCHS), np.int64)
        self._newest = np.full(rows, NO_EPOCH, np.int64)

    def add(self, rows: Ints, ts_ms: Ints, weights: npt.NDArray[np.float64]) -> None:
        add_to_epochs(rows, *epoch_shares(ts_ms, weights, self.half_life_s), self._sums, self._newest)

    def get(self, row: int) -> dict[int, int]:
        newest = int(self._newest[row])
        if newest == NO_EPOCH:
            return {}
        epochs = range(newest - KEPT_EPOCHS + 1, newest + 1)
        sums = self._sums[row].tolist()
        return {epoch: share for epoch in epochs if (share := sums[epoch % KEPT_EPOCHS])}

    def set(self, row: int, sums: dict[int, int]) -> None:
        self._sums[row] = 0
        self._newest[row] = max(sums, default=NO_EPOCH)
        for epoch, share in sums.items():
            self._sums[row, epoch % KEPT_EPOCHS] = share

    def reserve(self, rows: int) -> None:
        more = rows - len(self._newest)
        self._sums = np.concatenate((self._sums, np.zeros((more, KEPT_EPOCHS), np.int64)))
        self._newest = np.append(self._newest, np.full(more, NO_EPOCH, np.int64))


class Popularity:
    """
    Demand for items: 408 bytes each, and 200 for each segment.

    Parameters
    ----------
    half_life_s
        Half-life of popularity.
    trend_half_life_s
        Half-life of the recent demand that `trend` compares with it.
    split
        Segments that are told apart.

    """

    def __init__(
        self, half_life_s: float, trend_half_life_s: float = TREND_HALF_LIFE_S, split: Split | None = None
    ) -> None:  # fmt: skip
        self._split = split or Split()
        self._long = _Sums(half_life_s)
        #: Of each item in each segment, those of one item side by side.
        self._in_segments = _Sums(half_life_s, _FIRST_ROWS * self._split.total)
        self._short = _Sums(trend_half_life_s)
        self._newest_ms = np.zeros(_FIRST_ROWS, np.int64)
        self._events = np.zeros(_FIRST_ROWS, np.int64)

    def add(self, rows: Ints, ts_ms: Ints, weights: npt.NDArray[np.float64], devices: Codes) -> None:
        """
        Count events.

        Parameters
        ----------
        rows, ts_ms
            (n,) each: of which item, and when.
        weights
            (n,) float64, 0 (no demand) or more.
        devices
            (n,) uint8, code of the device each came from.

        """
        if not len(rows):
            return
        self._reserve(int(rows.max()) + 1)
        self._long.add(rows, ts_ms, weights)
        self._short.add(rows, ts_ms, weights)
        if total := self._split.total:
            self._in_segments.add(rows * total + segment_of(ts_ms, devices, self._split.shape), ts_ms, weights)
        np.maximum.at(self._newest_ms, rows, ts_ms)
        np.add.at(self._events, rows, 1)

    def value(self, demand: ItemDemand, now_ms: int) -> float:
        """Return the decayed mass of an item; 0 for one never met."""
        return decayed_sum(demand.long, now_ms, self._long.half_life_s)

    def in_segments(self, demand: ItemDemand, now_ms: int) -> tuple[float, ...]:
        """Return the parts of an item's decayed mass in each segment, as far as they are known."""
        return tuple(decayed_sum(sums, now_ms, self._long.half_life_s) for sums in demand.in_segments)

    def trend(self, demand: ItemDemand, now_ms: int) -> float:
        """
        Return the rate of the last day over the long-term rate; 0 without demand.

        A steady rate r gives a decayed mass of r x half-life / ln 2, so steady demand reads 1.
        """
        if not (long := self.value(demand, now_ms)) > 0:
            return 0.0
        short = decayed_sum(demand.short, now_ms, self._short.half_life_s)
        return short / self._short.half_life_s / (long / self._long.half_life_s)

    def state(self, row: int) -> ItemDemand:
        """Return a copy of what is kept of an item; nothing for one never met."""
        if row >= len(self._events):
            return ItemDemand({}, {})
        newest_ms, events = int(self._newest_ms[row]), int(self._events[row])
        parts = tuple(self._in_segments.get(place) for place in self._segments_of(row))
        return ItemDemand(self._long.get(row), self._short.get(row), newest_ms, events, parts, self._split.devices)

    def restore(self, row: int, demand: ItemDemand) -> None:
        """Take back what was stored of an item; of other segments than these, they are counted from now on."""
        self._reserve(row + 1)
        if (demand.devices, len(demand.in_segments)) == (self._split.devices, self._split.total):
            for place, sums in zip(self._segments_of(row), demand.in_segments, strict=True):
                self._in_segments.set(place, sums)
        self._long.set(row, demand.long)
        self._short.set(row, demand.short)
        self._newest_ms[row] = demand.newest_ms
        self._events[row] = demand.events

    def _segments_of(self, row: int) -> range:
        """Return where the sums of an item in each segment stand."""
        return range(row * self._split.total, (row + 1) * self._split.total)

    def _reserve(self, rows: int) -> None:
        if rows <= len(self._events):
            return
        rows = max(rows, 2 * len(self._events))
        more = rows - len(self._events)
        self._long.reserve(rows)
        self._short.reserve(rows)
        self._in_segments.reserve(rows * self._split.total)
        self._newest_ms = np.append(self._newest_ms, np.zeros(more, np.int64))
        self._events = np.append(self._events, np.zeros(more, np.int64))
