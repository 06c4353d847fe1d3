"""The events of users as ranking reads them, and how much one says."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled

#: The newest events whose followers are looked at; each counts 1 / distance.
FOLLOWED_EVENTS: Final = 5
#: The newest events whose neighbours are looked at at all: one further back is the whole history's to tell of.
LOOKED_AT: Final = 64
#: Stands for a half-life of 0, after which nothing but the newest event counts.
_NO_HALF_LIFE: Final = 1e-9


class Events(NamedTuple):
    """
    The recent events of n users, those of one user behind those of another, oldest first.

    Attributes
    ----------
    items
        (e,) int32, rows of the items met.
    kinds
        (e,) uint8, type codes.
    ts_ms
        (e,) int64, event times.
    ends
        (n,) int64, where each user's end.

    """

    items: npt.NDArray[np.int32]
    kinds: npt.NDArray[np.uint8]
    ts_ms: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]


class Weighing(NamedTuple):
    """
    How an event's weight comes about.

    Attributes
    ----------
    of_kind
        (types,) float64, what an event adds to an interest vector; 0 for types that speak for nothing.
    half_lives_ms
        (2,) float64, of the short and of the long vector.

    """

    of_kind: npt.NDArray[np.float64]
    half_lives_ms: npt.NDArray[np.float64]


@compiled
def reach(distance: int, most: int, half_life_events: float) -> int:
    """Return how many of an item's neighbours, of `most` kept, the event so many liked events ago speaks of."""
    return math.ceil(most * near(distance, half_life_events))


@compiled
def near(distance: int, half_life_events: float) -> float:
    """Return what the event so many liked events before the newest counts for its fitted neighbours."""
    return math.exp2(-distance / max(half_life_events, _NO_HALF_LIFE)) if distance < LOOKED_AT else 0.0


@compiled
def following(distance: int) -> float:
    """Return what that event counts for its followers."""
    return 1.0 / (distance + 1) if distance < FOLLOWED_EVENTS else 0.0


@compiled
def recalled(mass: float) -> float:
    """
    Return what an item of the user's history counts for its fitted neighbours by all that was done with it, decayed.

    The root, so that what is bought each week does not drown everything else.
    """
    return math.sqrt(mass) if mass > 0.0 else 0.0
