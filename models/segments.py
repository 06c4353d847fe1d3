"""
Segments of users by context, and what is popular in each: a prior for those of whom little is known.

A segment is the part of the day, in UTC, in which a user's newest event lies: equal parts of 24 hours. Shops need not
tell their hour: another one moves where the parts begin, not what is counted in them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from models.leaders import strongest

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

DAY_MS: Final = 86_400_000
#: Popularity in segments where none are told apart.
NO_SEGMENTS: Final = np.empty((0, 0), np.float32)
#: Weight of events at which a user's own history counts as much as the prior: ten clicks.
_KAPPA: Final = 10.0
#: Of the items most asked for in a segment, so many are candidates for its users: three lists of ten, as of leaders.
_CANDIDATES: Final = 32


class Segments(NamedTuple):
    """
    The priors of n users.

    Attributes
    ----------
    weights
        (n,) float64, what a prior counts for each user, less the more is known of the user; 0 where it says nothing.
    chosen
        (n,) int64, the segment of each user.
    of_items
        (rows, segments) float32, decayed popularity in each segment, 1 for its most popular item.

    """

    weights: Doubles
    chosen: Ints
    of_items: Floats


def segment_of(ts_ms: npt.ArrayLike, parts: int) -> Ints:
    """
    Return the segments (n,) int64 of times (n,) in ms since the epoch, of so many parts of the day.

    >>> segment_of([0, 11 * 3_600_000, 12 * 3_600_000, DAY_MS - 1], 2).tolist()
    [0, 0, 1, 1]
    """
    return np.asarray(ts_ms, np.int64) % DAY_MS * parts // DAY_MS


def segments(weights: Doubles, masses: Doubles, ends: Ints, now_ms: Ints, of_items: Floats) -> Segments:
    """
    Return the priors of n users.

    >>> masses, ends = np.array([5.0, 25.0, -np.inf]), np.array([0, 3])
    >>> segments(np.ones(2), masses, ends, np.zeros(2), np.ones((1, 4), np.float32)).weights.tolist()
    [1.0, 0.25]

    Parameters
    ----------
    weights
        (n,) float64, what the prior counts for a user without a history.
    masses, ends
        What is left of the weight of each item of the users' histories, nothing of those below 0, which were disliked;
        (n,) where each user's end.
    now_ms
        (n,) int64, time of each user's newest event.
    of_items
        As in `Segments`; without a column where segments are not told apart.

    """
    parts = of_items.shape[1]
    if not parts or not (weights > 0).any():
        return Segments(np.zeros(len(weights)), np.zeros(len(weights), np.int64), of_items)
    known = np.diff(np.append(0.0, np.cumsum(np.maximum(masses, 0.0)))[np.append(0, ends)])
    return Segments(weights * _KAPPA / (known + _KAPPA), segment_of(now_ms, parts), of_items)


def favourites(told: Segments, usable: npt.NDArray[np.bool_], order: Ints) -> npt.NDArray[np.int32]:
    """
    Return the items (n, p) most asked for in the segment of each user with whom that counts; -1 behind the last.

    Parameters
    ----------
    usable, order
        (rows,) bool and int64: what may be listed at all, and the order of equals.

    """
    asked = told.weights > 0
    if not asked.any():
        return np.empty((len(asked), 0), np.int32)
    found = np.full((told.of_items.shape[1], _CANDIDATES), -1, np.int32)
    for segment in np.unique(told.chosen[asked]).tolist():
        items = strongest(np.ascontiguousarray(told.of_items[:, segment]), usable, order, _CANDIDATES)
        found[segment, : len(items)] = items
    return np.where(asked[:, None], found[told.chosen], np.int32(-1))


@compiled
def prior(told: Segments, user: int, item: int) -> float:
    """Return what an item's popularity in a user's segment adds to its score."""
    if told.weights[user] <= 0.0:
        return 0.0
    return float(told.weights[user] * told.of_items[item, told.chosen[user]])
