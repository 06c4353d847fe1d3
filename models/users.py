"""What the lists of a batch of users are decided from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models import consistency
from models.consistency import Previous, no_previous
from models.events import Events
from models.ranking import Floats, RankingParameters

Ints = npt.NDArray[np.int64]


class Owned(NamedTuple):
    """
    The items that n users interacted with, those of the recent events among them, each once for a user.

    Attributes
    ----------
    items
        (o,) int32, rows; those of one user behind those of another.
    masses
        (o,) float64, what the user's events add to the long interest vector, decayed to the newest event.
    bought
        (o,) bool: purchased, and never disliked.
    ends
        (n,) int64, where each user's end.

    """

    items: npt.NDArray[np.int32]
    masses: npt.NDArray[np.float64]
    bought: npt.NDArray[np.bool_]
    ends: Ints


class Excluded(NamedTuple):
    """
    The items that n users purchased or disliked.

    Attributes
    ----------
    items
        (p,) int32; rows that do not exist exclude nothing.
    ts_ms
        (p,) int64, time of the newest of these events.
    ends
        (n,) int64, where each user's end.

    """

    items: npt.NDArray[np.int32]
    ts_ms: Ints
    ends: Ints


class Users(NamedTuple):
    """
    What the lists of n users are decided from.

    Attributes
    ----------
    interests
        (3, n, d) float32, short, long and negative interest vectors: sums of item vectors by event weight, decayed to
        `now_ms`; zeros when empty.
    events
        The recent events: what neighbours are looked for of, and reasons among.
    owned
        All items of the user's history that are still told apart.
    excluded
        Items that may not be listed, or not yet again.
    now_ms
        (n,) int64, time of each user's newest event.
    devices
        (n,) uint8, code of the device it came from; see `models.segments`.
    parameters
        One for each user.
    previous
        The lists they had before, where these are to be held on to.
    keys
        (n,) uint64 that stand for the users: the same user reads the same everywhere. 0 for nobody.

    """

    interests: Floats
    events: Events
    owned: Owned
    excluded: Excluded
    now_ms: Ints
    devices: npt.NDArray[np.uint8]
    parameters: Sequence[RankingParameters]
    previous: Previous
    keys: npt.NDArray[np.uint64]

    def only(self, chosen: Ints) -> Users:
        """Return some (m,) of the users."""
        events, owned, excluded, before = self.events, self.owned, self.excluded, self.previous
        of_events, of_owned, of_excluded = (_places(part.ends, chosen) for part in (events, owned, excluded))
        return Users(
            np.ascontiguousarray(self.interests[:, chosen]),
            Events(
                events.items[of_events], events.kinds[of_events], events.ts_ms[of_events],
                _sizes(events.ends, chosen).cumsum(),
            ),
            Owned(
                owned.items[of_owned], owned.masses[of_owned], owned.bought[of_owned],
                _sizes(owned.ends, chosen).cumsum(),
            ),
            Excluded(
                excluded.items[of_excluded], excluded.ts_ms[of_excluded], _sizes(excluded.ends, chosen).cumsum()
            ),
            self.now_ms[chosen],
            self.devices[chosen],
            [self.parameters[user] for user in chosen.tolist()],
            Previous(
                before.rows[chosen], before.since_ms[chosen], before.price_marks[chosen], before.made_ms[chosen],
                before.moved[chosen], before.explored[chosen],
            ),
            self.keys[chosen],
        )  # fmt: skip


def nobody(dim: int, parameters: RankingParameters, now_ms: int = 0) -> Users:
    """Return one user without a history, who asks at a time."""
    none, end = np.empty(0, np.int64), np.zeros(1, np.int64)
    rows = np.empty(0, np.int32)
    return Users(
        np.zeros((3, 1, dim), np.float32),
        Events(rows, np.empty(0, np.uint8), none, end),
        Owned(rows, np.empty(0, np.float64), np.empty(0, np.bool_), end),
        nothing_excluded(1),
        end + now_ms,
        np.zeros(1, np.uint8),
        [parameters],
        no_previous(1),
        np.zeros(1, np.uint64),
    )


def nothing_excluded(users: int) -> Excluded:
    """Return what excludes nothing for anyone."""
    return Excluded(np.empty(0, np.int32), np.empty(0, np.int64), np.zeros(users, np.int64))


def joined(parts: Sequence[Users]) -> Users:
    """Return the users of several parts, of one dimension each, as one batch; at least one part."""
    if len(parts) == 1:
        return parts[0]
    events, owned, excluded = (
        [part.events for part in parts],
        [part.owned for part in parts],
        [part.excluded for part in parts],
    )
    return Users(
        np.concatenate([part.interests for part in parts], axis=1),
        Events(
            np.concatenate([part.items for part in events]),
            np.concatenate([part.kinds for part in events]),
            np.concatenate([part.ts_ms for part in events]),
            _ends([part.ends for part in events]),
        ),
        Owned(
            np.concatenate([part.items for part in owned]),
            np.concatenate([part.masses for part in owned]),
            np.concatenate([part.bought for part in owned]),
            _ends([part.ends for part in owned]),
        ),
        Excluded(
            np.concatenate([part.items for part in excluded]),
            np.concatenate([part.ts_ms for part in excluded]),
            _ends([part.ends for part in excluded]),
        ),
        np.concatenate([part.now_ms for part in parts]),
        np.concatenate([part.devices for part in parts]),
        [parameters for part in parts for parameters in part.parameters],
        consistency.joined([part.previous for part in parts]),
        np.concatenate([part.keys for part in parts]),
    )


def _ends(parts: Sequence[Ints]) -> Ints:
    """Return ends of parts that stand one behind another."""
    before = np.cumsum([0, *(part[-1] if len(part) else 0 for part in parts[:-1])])
    return np.concatenate([part + start for part, start in zip(parts, before, strict=True)])


def _sizes(ends: Ints, chosen: Ints) -> Ints:
    """Return how much stands at each of the chosen (m,)."""
    return np.diff(ends, prepend=0)[chosen]


def _places(ends: Ints, chosen: Ints) -> Ints:
    """Return where all stands that stands at the chosen, one behind the other."""
    sizes = _sizes(ends, chosen)
    behind = np.cumsum(sizes)
    return np.repeat(ends[chosen] - behind, sizes) + np.arange(int(sizes.sum()))
