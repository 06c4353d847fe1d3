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
#: A longer pause between two events begins a session.
SESSION_GAP_MS: Final = 30 * 60_000
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
def earlier(events: Events, user: int, weighing: Weighing, mass: float) -> float:
    """
    Return the share, 0..1, of what all events of a user weigh that came before the session of the newest one.

    1 for users without events: nothing is known of a session of theirs.

    Parameters
    ----------
    mass
        What all of them weigh.

    """
    if mass <= 0.0:
        return 1.0
    first, at = events.ends[user - 1] if user else 0, events.ends[user] - 1
    of_session = 0.0
    while at >= first:
        of_session += weighing.of_kind[events.kinds[at]]
        if at == first or events.ts_ms[at] - events.ts_ms[at - 1] > SESSION_GAP_MS:
            break
        at -= 1
    return max(1.0 - of_session / mass, 0.0)


@compiled
def recalled(mass: float) -> float:
    """
    Return what an item of the user's history counts for its fitted neighbours by all that was done with it, decayed.

    The root, so that what is bought each week does not drown everything else.
    """
    return math.sqrt(mass) if mass > 0.0 else 0.0
