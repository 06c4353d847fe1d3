"""
Segments of users by context, and what is popular in each: a prior for those of whom little is known.

A segment is the part of the day, in UTC, in which a user's newest event lies, and the device it came from. Parts are
equal parts of 24 hours. Shops need not tell their hour: another one moves where the parts begin, not what is counted in
them. Devices are told apart by name, as many as are named; all others are one. Of a user whose device is not told, all
devices count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from models.leaders import strongest

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]

DAY_MS: Final = 86_400_000
#: Popularity in segments where none are told apart.
NO_SEGMENTS: Final = np.empty((0, 0, 1), np.float32)
#: Codes of a device that is not told, and of one that is not named; those between are places among the named, from 1.
NO_DEVICE: Final = 0
OTHER_DEVICE: Final = 255
#: Weight of events at which a user's own history counts as much as the prior: ten clicks.
_KAPPA: Final = 10.0
#: Of the items most asked for in a segment, so many are candidates for its users: three lists of ten, as of leaders.
_CANDIDATES: Final = 32


class Split(NamedTuple):
    """
    Into what segments users fall.

    Attributes
    ----------
    day_parts
        Parts of the day; 0 for all of it as one.
    devices
        Names of the devices that are told apart; without any, devices are not looked at.

    >>> Split(4).shape, Split(0, ("phone",)).shape, Split(4, ("phone", "tablet")).total, Split().total
    ((4, 1), (1, 3), 16, 0)
    """

    day_parts: int = 0
    devices: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Parts of the day, and kinds of devices: not told, each one named, all others; (0, 1) without segments."""
        if not self.devices:
            return self.day_parts, 1
        return max(self.day_parts, 1), len(self.devices) + 2

    @property
    def total(self) -> int:
        """Segments in all."""
        parts, kinds = self.shape
        return parts * kinds


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


def device_code(name: str, named: Sequence[str]) -> int:
    """
    Return the code of a device; names added behind the others change no code.

    >>> [device_code(name, ("phone", "tablet")) for name in ("", "tablet", "watch")]
    [0, 2, 255]
    """
    if not (name and named):
        return NO_DEVICE
    return named.index(name) + 1 if name in named else OTHER_DEVICE


def segment_of(ts_ms: npt.ArrayLike, devices: npt.ArrayLike, shape: tuple[int, int]) -> Ints:
    """
    Return the segments (n,) int64 of times (n,) in ms since the epoch and codes of devices (n,); see `Split.shape`.

    >>> segment_of([0, 11 * 3_600_000, 12 * 3_600_000, DAY_MS - 1], [0, 1, 2, 255], (2, 1)).tolist()
    [0, 0, 1, 1]
    >>> segment_of([0, 11 * 3_600_000, 12 * 3_600_000, DAY_MS - 1], [0, 1, 2, 255], (2, 4)).tolist()
    [0, 1, 6, 7]
    """
    parts, kinds = shape
    part = np.asarray(ts_ms, np.int64) % DAY_MS * parts // DAY_MS
    return part * kinds + np.minimum(np.asarray(devices, np.int64), kinds - 1)


def segments(
    weights: Doubles, masses: Doubles, ends: Ints, now_ms: Ints, devices: Codes, of_items: Floats
) -> Segments:  # fmt: skip
    """
    Return the priors of n users.

    >>> masses, ends, untold = np.array([5.0, 25.0, -np.inf]), np.array([0, 3]), np.zeros(2, np.uint8)
    >>> segments(np.ones(2), masses, ends, np.zeros(2), untold, np.ones((1, 4, 1), np.float32)).weights.tolist()
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
    devices
        (n,) uint8, code of the device it came from.
    of_items
        (rows, parts, kinds) float32 as in `Segments`, by `Split.shape`; that of no device holds all devices.

    """
    rows, parts, kinds = of_items.shape
    in_line = of_items.reshape(rows, parts * kinds)
    if not parts or not (weights > 0).any():
        return Segments(np.zeros(len(weights)), np.zeros(len(weights), np.int64), in_line)
    known = np.diff(np.append(0.0, np.cumsum(np.maximum(masses, 0.0)))[np.append(0, ends)])
    return Segments(weights * _KAPPA / (known + _KAPPA), segment_of(now_ms, devices, (parts, kinds)), in_line)


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
