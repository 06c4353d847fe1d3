"""What everybody met: counts, and counts that fade."""

from __future__ import annotations

import numpy as np

from models.baselines.baseline import Baseline, Doubles
from models.interactions import Asking, Interactions

#: Weights are of a fixed moment and grow with time; beyond 2^60 all are brought down to a later one.
_HALVINGS_BETWEEN = 60


class Popularity(Baseline):
    """The items met most often."""

    def __init__(self, users: int, items: int) -> None:
        super().__init__("popularity", users, items)

    def score(self, asking: Asking, scores: Doubles) -> None:
        """Score by the number of events."""
        assert len(asking.users) == len(scores)
        scores[:] = self.events.met


class DecayedPopularity(Baseline):
    """The items met most often, an event worth half after each half-life (forward decay, Cormode et al., ICDE 2009)."""

    def __init__(self, users: int, items: int, half_life_ms: float) -> None:
        super().__init__("decayed popularity", users, items)
        self._half_life_ms = half_life_ms
        self._mass = np.zeros(items)
        self._landmark_ms: int | None = None

    def learn(self, log: Interactions) -> None:
        """Add the events with the weight of their time."""
        super().learn(log)
        if not len(log.items):
            return
        newest_ms = int(log.ts_ms[-1])
        if self._landmark_ms is None:
            self._landmark_ms = newest_ms
        if newest_ms - self._landmark_ms > _HALVINGS_BETWEEN * self._half_life_ms:
            self._mass *= 0.5 ** ((newest_ms - self._landmark_ms) / self._half_life_ms)
            self._landmark_ms = newest_ms
        np.add.at(self._mass, log.items, 2.0 ** ((log.ts_ms - self._landmark_ms) / self._half_life_ms))

    def score(self, asking: Asking, scores: Doubles) -> None:
        """Score by the decayed mass; that all of it is of one moment changes no order."""
        assert len(asking.users) == len(scores)
        scores[:] = self._mass
