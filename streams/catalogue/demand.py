"""How much items are asked for, by row: masses and trends of different times enter, popularity and its rise leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.neighbours import damping
from models.segments import NO_DEVICE, Split
from streams.wire.signals import TREND_HALF_LIFE_S

Floats = npt.NDArray[np.float32]

#: What is added to the variance, the weight of one purchase: without it one event makes a rare item rise most of all.
_DOUBT: Final = 5.0

#: Demand of a day that every item is taken to have at both rates, so that a rare one is timely by little.
_STEADY: Final = 1.0


class _Told(NamedTuple):
    popularity: Floats
    damping: Floats
    rising: Floats
    of_segments: Floats


class Demand:
    """
    Decayed masses of catalogue rows.

    Parameters
    ----------
    capacity
        Rows.
    half_life_ms
        Half-life of the masses.
    split
        Segments whose masses are told apart.

    >>> demand = Demand(2, half_life_ms=1_000.0)
    >>> demand.set([0, 1], masses=[4.0, 4.0], trends=[0.5, 3.0], ref_ts_ms=[0, 1_000], events=[4, 7])
    >>> demand.popularity.tolist()
    [0.5, 1.0]
    >>> demand.rising.tolist()
    [0.0, 1.0]

    Attributes
    ----------
    events
        (capacity,) int64, events counted of each row in all.

    """

    def __init__(self, capacity: int, half_life_ms: float, split: Split | None = None) -> None:
        self.events = np.zeros(capacity, np.int64)
        # log2(mass) + ref / half-life compares masses of different times without a clock: both decay alike.
        self._demand = np.full(capacity, -np.inf, np.float64)
        # The same of trends, quotients of a short and a long mass: they lose as many powers of two as these differ by.
        self._trend = np.full(capacity, -np.inf, np.float64)
        self._split = split or Split()
        self._in_segments = np.full((capacity, *self._split.shape), -np.inf, np.float64)
        self._half_life_ms = half_life_ms
        self._trend_decay_per_ms = max(1 / (1000 * TREND_HALF_LIFE_S) - 1 / half_life_ms, 0.0)
        #: What an item of a steady rate has of its long-term mass within the trend's half-life.
        self._late_share = 1000 * TREND_HALF_LIFE_S / half_life_ms
        self._newest_ms = 0.0
        self._told: _Told | None = None

    @property
    def popularity(self) -> Floats:
        """Decayed popularity (capacity,) float32, 1 for the most popular item."""
        return self._tell().popularity

    @property
    def damping(self) -> Floats:
        """What weights towards items are multiplied with, (capacity, 4); see `models.neighbours.damping`."""
        return self._tell().damping

    @property
    def rising(self) -> Floats:
        """
        How surely items are asked for more of late than at their long-term rate, (capacity,) float32.

        (late - expected) / sqrt(expected + 5), 1 for the item that has most of it and 0 for those at or below their
        rate: how many standard deviations of a Poisson count that is. The multiple would put an item with one event,
        today, at the top, and the difference what is always popular.
        """
        return self._tell().rising

    @property
    def of_segments(self) -> Floats:
        """Decayed popularity in each segment (capacity, *shape) float32, 1 for its most popular item."""
        return self._tell().of_segments

    def set(
        self, rows: npt.ArrayLike, masses: npt.ArrayLike, trends: npt.ArrayLike, ref_ts_ms: npt.ArrayLike,
        events: npt.ArrayLike,
        in_segments: Sequence[tuple[tuple[str, ...], tuple[float, ...]]] = (),
    ) -> None:  # fmt: skip
        """
        Take the masses (n,), trends (n,) and events (n,) of rows (n,) as of times (n,); the last told of a row counts.

        Parameters
        ----------
        masses
            0 is none.
        trends
            Rate of late over the long-term rate, see `streams.wire.signals.ItemSignals`.
        in_segments
            n times the devices that are told apart, and the masses in each segment; of other segments, as of a signals
            worker with other settings, they are not known.

        """
        at, times_ms = np.asarray(rows), np.asarray(ref_ts_ms, np.float64)
        self.events[at] = events
        self._demand[at] = _log2(masses) + times_ms / self._half_life_ms
        self._trend[at] = _log2(trends) + times_ms * self._trend_decay_per_ms
        if total := self._split.total:
            nothing = (0.0,) * total
            known = np.array(
                [
                    masses_in if (devices, len(masses_in)) == (self._split.devices, total) else nothing
                    for devices, masses_in in in_segments or [((), ())] * len(at)
                ]
            ).reshape(len(at), *self._split.shape)
            # Of whom no device is known, all devices tell.
            known[:, :, NO_DEVICE] = known.sum(axis=2)
            self._in_segments[at] = _log2(known) + times_ms[:, None, None] / self._half_life_ms
        self._newest_ms = max(self._newest_ms, float(times_ms.max(initial=0.0)))
        self._told = None

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        more = capacity - len(self._demand)
        self.events = np.append(self.events, np.zeros(more, np.int64))
        self._demand = np.append(self._demand, np.full(more, -np.inf))
        self._trend = np.append(self._trend, np.full(more, -np.inf))
        nothing = np.full((more, *self._split.shape), -np.inf)
        self._in_segments = np.concatenate([self._in_segments, nothing])
        self._told = None

    def _tell(self) -> _Told:
        if self._told is None:
            relative = _relative(self._demand)
            popularity = relative.astype(np.float32)
            trend = np.exp2(self._trend - self._newest_ms * self._trend_decay_per_ms)
            expected = np.exp2(self._demand - self._newest_ms / self._half_life_ms) * self._late_share
            surely = expected * np.maximum(trend - 1.0, 0.0) / np.sqrt(expected + _DOUBT)
            most = surely.max()
            rising = (surely / most if most > 0 else surely).astype(np.float32)
            timely = ((expected * trend + _STEADY) / (expected + _STEADY)).astype(np.float32)
            of_segments = _relative(self._in_segments).astype(np.float32)
            self._told = _Told(popularity, damping(popularity, timely), rising, of_segments)
        return self._told


def _relative(logs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what logarithms to base 2 stand for, over all rows 1 for the greatest; zeros where there is none."""
    top = logs.max(axis=0, initial=-np.inf)
    relative: npt.NDArray[np.float64] = np.exp2(logs - np.where(np.isfinite(top), top, 0.0))
    return relative


def _log2(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    known = np.asarray(values, np.float64)
    return np.log2(known, out=np.full(known.shape, -np.inf), where=known > 0)
