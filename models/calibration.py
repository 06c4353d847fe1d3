"""
Lists whose categories have the shares they have among the user's events.

Steck: "Calibrated Recommendations", RecSys 2018: greedily the item after which `(1 - l) sum s - l KL(p || q~)` is
largest, with p the categories of the events, q those of the list and `q~ = .99 q + .01 p`.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from models.events import Events, Weighing

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: How much of p is in q~: enough to keep the divergence finite while a category is not on the list.
SMOOTHING: Final = 0.01
#: Categories of a user that can be told apart; those met longest ago are left out.
MAX_CATEGORIES: Final = 64


class Profile(NamedTuple):
    """
    The categories of one user's events, scratch.

    Attributes
    ----------
    categories
        (MAX_CATEGORIES,) int64.
    shares
        (MAX_CATEGORIES,) float64, p: what is left of the events' weights, together 1.
    mass
        (1,) float64, what is left of the weights of all these events.
    listed
        (MAX_CATEGORIES + 1,) int64, items of each category on the list so far; the last place is for all others.
    divergences
        (MAX_CATEGORIES + 1,) float64, KL(p || q~) after one more item of each.

    """

    categories: Ints
    shares: Doubles
    mass: Doubles
    listed: Ints
    divergences: Doubles


def no_profile() -> Profile:
    """Return scratch for one user."""
    return Profile(
        np.zeros(MAX_CATEGORIES, np.int64),
        np.zeros(MAX_CATEGORIES),
        np.zeros(1),
        np.zeros(MAX_CATEGORIES + 1, np.int64),
        np.zeros(MAX_CATEGORIES + 1),
    )


@compiled
def tell(
    events: Events, user: int, now_ms: int, categories: npt.NDArray[np.int32], weighing: Weighing, profile: Profile
) -> int:
    """
    Fill a profile from a user's events, weights decayed by the long half-life; return its number of categories.

    Parameters
    ----------
    categories
        (items,) int32, -1 where none is known; rows beyond say nothing.

    """
    count = 0
    total = 0.0
    first = events.ends[user - 1] if user else 0
    for back in range(events.ends[user] - first):
        place = events.ends[user] - 1 - back
        item, weight = np.int64(events.items[place]), weighing.of_kind[events.kinds[place]]
        if item >= len(categories) or categories[item] < 0 or weight <= 0.0:
            continue
        at = find(profile, count, categories[item])
        if at == count:
            if count == MAX_CATEGORIES:
                continue
            profile.categories[at], profile.shares[at] = categories[item], 0.0
            count += 1
        age_ms = max(now_ms - events.ts_ms[place], 0)
        mass = weight * math.exp2(-age_ms / weighing.half_lives_ms[1])
        profile.shares[at] += mass
        total += mass
    if total <= 0.0:
        return 0
    profile.mass[0] = total
    for at in range(count):
        profile.shares[at] /= total
    return count


@compiled
def find(profile: Profile, count: int, category: int) -> int:
    """Return the place of a category in a profile of `count`; `count` where it is not there."""
    for at in range(count):
        if profile.categories[at] == category:
            return at
    return count


@compiled
def begin(profile: Profile, count: int) -> None:
    """Begin an empty list."""
    for at in range(count + 1):
        profile.listed[at] = 0
    profile.divergences[count] = 0.0


@compiled
def diverge(profile: Profile, count: int, size: int) -> None:
    """Fill `divergences`: what they are when one more item makes the list `size` long; zeros for an empty profile."""
    whole = 0.0
    for at in range(count):
        whole += _part(profile.shares[at], profile.listed[at] / size)
    for at in range(count):
        share, listed = profile.shares[at], profile.listed[at]
        profile.divergences[at] = whole - _part(share, listed / size) + _part(share, (listed + 1) / size)
    profile.divergences[count] = whole


@compiled
def _part(wanted: float, listed: float) -> float:
    """Return one category's part of the divergence."""
    if wanted <= 0.0:
        return 0.0
    return wanted * math.log(wanted / ((1.0 - SMOOTHING) * listed + SMOOTHING * wanted))
