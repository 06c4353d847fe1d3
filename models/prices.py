"""
What the prices a user looks at say of the price of an item: 1 where most of them are near, 0 far from all of them.

Each event speaks for prices near that of its item, less the farther apart their logarithms are: a triangle, as wide as
the user's own prices spread. The sum, decayed by the long half-life, is divided by what it is at the best of these
prices. A sum, and not nearness to their mean, so that who buys cheap tea and dear teapots is not told of what lies
between, and so that each event has an exact share of it.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from models.events import Events, Weighing
from models.reasons import Groups

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

#: What a price that is not known counts: between those near to the user's and those far from all of them.
UNKNOWN: Final = 0.5
#: How far logarithms of prices spread before anything is known of a user, which weighs as much as one event: a factor
#: of 1.6, within which most prices of one kind of goods lie.
_SPREAD: Final = 0.5
#: A triangle reaches so many spreads to either side, about as a bell curve of that spread does.
_SPREADS_REACHED: Final = 2.0
#: Events of which less is left have long been forgotten, and would not be divided by.
_LEAST_MASS: Final = 1e-100


class Prices(NamedTuple):
    """
    The prices of a ranking of n users, one after the other.

    Attributes
    ----------
    weights
        (n,) float64, what an item's price counts for each user.
    of_items
        (rows,) float32; 0 or NaN where a price is not known.
    logs, masses
        (e,) float64, scratch: of each event of a user with a price, its logarithm and what is left of the event.
    reach, scale
        (1,) float64, how far an event speaks, and what the sum of all is multiplied with; scale is 0 where the prices
        of the user last watched say nothing.
    known
        (1,) int64, how many of them there are.

    """

    weights: Doubles
    of_items: Floats
    logs: Doubles
    masses: Doubles
    reach: Doubles
    scale: Doubles
    known: npt.NDArray[np.int64]


def prices_of(weights: Doubles, of_items: Floats, events: Events) -> Prices:
    """Return prices that count so much for each user, before the first; other parameters as in `Prices`."""
    longest = int(np.diff(events.ends, prepend=0).max(initial=0)) if (weights > 0).any() else 0
    return Prices(
        weights, of_items, np.zeros(longest), np.zeros(longest), np.zeros(1), np.zeros(1), np.zeros(1, np.int64)
    )


@compiled
def watch(prices: Prices, events: Events, user: int, now_ms: int, weighing: Weighing) -> None:
    """Let what is told of prices from here on be of one user."""
    prices.scale[0], weight = 0.0, prices.weights[user]
    if weight <= 0.0:
        return
    count = _gather(prices, events, user, now_ms, weighing)
    prices.known[0] = count
    prices.reach[0] = _SPREADS_REACHED * _spread(prices.logs, prices.masses, count)
    most = 0.0
    for at in range(count):
        most = max(most, _sum(prices, prices.logs[at]))
    if most > _LEAST_MASS:
        prices.scale[0] = weight / most


@compiled
def suits(prices: Prices, item: int) -> float:
    """Return what the prices of the user's events add to the score of an item."""
    if prices.scale[0] <= 0.0 or not prices.of_items[item] > 0.0:
        return 0.0
    return float(prices.scale[0] * _sum(prices, _log(prices, item)))


@compiled
def untold(prices: Prices, user: int, item: int) -> float:
    """Return what an item gets for not telling its price to somebody whose prices are known."""
    if prices.scale[0] <= 0.0 or prices.of_items[item] > 0.0:
        return 0.0
    return float(UNKNOWN * prices.weights[user])


@compiled
def attribute_prices(
    prices: Prices, items: npt.NDArray[np.int32], groups: Groups, count: int, weighing: Weighing
) -> None:  # fmt: skip
    """
    Add to `groups.contributed` what each group of events says of the price of each item.

    Parameters
    ----------
    prices
        Of the user watched last; its scratch is used up.
    items
        (k,) rows of the items; -1 behind the last.

    """
    if prices.scale[0] <= 0.0:
        return
    for at in range(count):
        if prices.of_items[groups.items[at]] > 0.0:
            prices.logs[at] = _log(prices, groups.items[at])
    for rank in range(len(items)):
        if items[rank] < 0:
            break
        if not prices.of_items[items[rank]] > 0.0:
            continue
        log = _log(prices, items[rank])
        for at in range(count):
            if prices.of_items[groups.items[at]] > 0.0:
                mass = weighing.of_kind[groups.kinds[at]] * groups.long[at]
                groups.contributed[rank, at] += prices.scale[0] * mass * _near(prices, log, prices.logs[at])


@compiled
def _gather(prices: Prices, events: Events, user: int, now_ms: int, weighing: Weighing) -> int:
    """Write down the prices of a user's events that speak for something; return how many there are."""
    count = 0
    for place in range(events.ends[user - 1] if user else 0, events.ends[user]):
        item, weight = np.int64(events.items[place]), weighing.of_kind[events.kinds[place]]
        if item >= len(prices.of_items) or weight <= 0.0 or not prices.of_items[item] > 0.0:
            continue
        age_ms = max(now_ms - events.ts_ms[place], 0)
        prices.logs[count] = _log(prices, int(item))
        prices.masses[count] = weight * math.exp2(-age_ms / weighing.half_lives_ms[1])
        count += 1
    return count


@compiled
def _spread(logs: Doubles, masses: Doubles, count: int) -> float:
    """Return how far prices spread around their mean, one more event spreading as before anything is known."""
    mass, squares, mean = 0.0, 0.0, 0.0
    for at in range(count):
        mass += masses[at]
        squares += masses[at] * masses[at]
        mean += masses[at] * logs[at]
    if squares <= 0.0:
        return _SPREAD
    mean /= mass
    apart = 0.0
    for at in range(count):
        apart += masses[at] * (logs[at] - mean) * (logs[at] - mean)
    # Kish's effective number of events: unequal masses are worth fewer.
    events = mass * mass / squares
    return math.sqrt((events * apart / mass + _SPREAD * _SPREAD) / (events + 1.0))


@compiled
def _sum(prices: Prices, log: float) -> float:
    """Return what is left of the events, each as far as its price is near."""
    total = 0.0
    for at in range(prices.known[0]):
        total += prices.masses[at] * _near(prices, log, prices.logs[at])
    return total


@compiled
def _near(prices: Prices, one: float, other: float) -> float:
    return max(1.0 - abs(one - other) / float(prices.reach[0]), 0.0)


@compiled
def _log(prices: Prices, item: int) -> float:
    return math.log(np.float64(prices.of_items[item]))
