"""How much items are asked for, by row: decayed masses of different times enter, popularity leaves."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.neighbours import damping

Floats = npt.NDArray[np.float32]


class Demand:
    """
    Decayed masses of catalogue rows.

    >>> demand = Demand(2, half_life_ms=1_000.0)
    >>> demand.set([0, 1], masses=[4.0, 4.0], ref_ts_ms=[0, 1_000])
    >>> demand.popularity.tolist()
    [0.5, 1.0]
    """

    def __init__(self, capacity: int, half_life_ms: float) -> None:
        # log2(mass) + ref / half-life compares masses of different times without a clock: both decay alike.
        self._demand = np.full(capacity, -np.inf, np.float64)
        self._half_life_ms = half_life_ms
        self._told: tuple[Floats, Floats] | None = None

    @property
    def popularity(self) -> Floats:
        """Decayed popularity (capacity,) float32, 1 for the most popular item."""
        return self._tell()[0]

    @property
    def damping(self) -> Floats:
        """What weights towards items are multiplied with, (capacity, 2); see `models.neighbours.damping`."""
        return self._tell()[1]

    def set(self, rows: npt.ArrayLike, masses: npt.ArrayLike, ref_ts_ms: npt.ArrayLike) -> None:
        """Take the masses (n,) of rows (n,) as they were at times (n,); 0 is none; the last told of a row counts."""
        known = np.asarray(masses, np.float64)
        logs = np.log2(known, out=np.full(known.shape, -np.inf), where=known > 0)
        self._demand[np.asarray(rows)] = logs + np.asarray(ref_ts_ms, np.float64) / self._half_life_ms
        self._told = None

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        more = capacity - len(self._demand)
        self._demand = np.append(self._demand, np.full(more, -np.inf))
        self._told = None

    def _tell(self) -> tuple[Floats, Floats]:
        if self._told is None:
            top = self._demand.max()
            relative = np.exp2(self._demand - top) if math.isfinite(top) else np.zeros(len(self._demand))
            popularity = relative.astype(np.float32)
            self._told = popularity, damping(popularity)
        return self._told
