"""Guardrails of a list: at most so many items of a brand and of a category, and prices near those the user looks at."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from models.events import Events, Weighing

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

#: A price is near when its logarithm is no farther from that of the user's median: between .3 and 3.3 times of it.
PRICE_BAND: Final = 1.2
#: Newest prices that the median is taken of.
MAX_PRICES: Final = 65
#: What is given up for a full list, step by step: nothing, the absence of newcomers, the price band, the caps.
NOTHING_NEW: Final = -1
STRICT: Final = 0
ANY_PRICE: Final = 1
ANY: Final = 2


class Attributes(NamedTuple):
    """
    What guardrails know of items.

    Attributes
    ----------
    brands, categories
        (items,) int32; -1 where it is not known, which no cap counts.
    prices
        (items,) float32; 0 or NaN where it is not known, which is near to any.
    price_marks
        (items,) uint16, another one whenever the price changes; 0 where it is not known.

    """

    brands: npt.NDArray[np.int32]
    categories: npt.NDArray[np.int32]
    prices: npt.NDArray[np.float32]
    price_marks: npt.NDArray[np.uint16]


class Limits(NamedTuple):
    """How many of a list's items may be of one brand, of one category, and far from the user's prices."""

    brand: int
    category: int
    far: int


class Standing(NamedTuple):
    """
    Where m candidates stand while a list is made, scratch.

    Attributes
    ----------
    brands, categories
        (m,) int64, the chosen items of the candidate's brand and of its category; 0 where that is not known.
    far
        (m,) bool, whether its price is far from those of the user.
    far_chosen
        (1,) int64, the chosen items that are.
    prices
        (MAX_PRICES,) float64, for the median.

    """

    brands: Ints
    categories: Ints
    far: Flags
    far_chosen: Ints
    prices: Doubles


def no_standing(pool: int) -> Standing:
    """Return scratch for pools of up to so many items."""
    brands, categories = np.zeros((2, pool), np.int64)
    return Standing(brands, categories, np.zeros(pool, np.bool_), np.zeros(1, np.int64), np.zeros(MAX_PRICES))


@compiled
def begin(
    standing: Standing, rows: npt.NDArray[np.int32], count: int, attributes: Attributes, middle: float
) -> None:  # fmt: skip
    """
    Begin an empty list.

    Parameters
    ----------
    rows
        (m,) rows of the candidates, `count` of them.
    middle
        Logarithm of the user's median price; NaN when the user has none.

    """
    standing.far_chosen[0] = 0
    for candidate in range(count):
        standing.brands[candidate] = 0
        standing.categories[candidate] = 0
        standing.far[candidate] = is_far(attributes.prices[rows[candidate]], middle)


@compiled
def is_far(price: np.float32, middle: float) -> bool:
    """Whether a price is far from one whose logarithm is `middle`; where either is not known, it is not."""
    # NaN is never greater.
    return bool(price > 0.0 and abs(math.log(np.float64(price)) - middle) > PRICE_BAND)


@compiled
def fits(standing: Standing, limits: Limits, candidate: int, give_up: int) -> bool:
    """Whether a candidate may be chosen when so much is given up."""
    if give_up == ANY:
        return True
    if standing.brands[candidate] >= limits.brand or standing.categories[candidate] >= limits.category:
        return False
    return give_up >= ANY_PRICE or not standing.far[candidate] or standing.far_chosen[0] < limits.far


@compiled
def note(
    standing: Standing, rows: npt.NDArray[np.int32], count: int, attributes: Attributes, chosen: int
) -> None:  # fmt: skip
    """Count a chosen candidate."""
    brand, category = attributes.brands[rows[chosen]], attributes.categories[rows[chosen]]
    standing.far_chosen[0] += standing.far[chosen]
    for candidate in range(count):
        row = rows[candidate]
        standing.brands[candidate] += brand >= 0 and attributes.brands[row] == brand
        standing.categories[candidate] += category >= 0 and attributes.categories[row] == category


@compiled
def middle_price(
    events: Events, user: int, prices: npt.NDArray[np.float32], weighing: Weighing, scratch: Doubles
) -> float:  # fmt: skip
    """
    Return the logarithm of the median price of the items in a user's newest events that speak for something.

    NaN when no price is known; of an even number the lower middle one.
    """
    count = 0
    first = events.ends[user - 1] if user else 0
    for back in range(events.ends[user] - first):
        place = events.ends[user] - 1 - back
        item = np.int64(events.items[place])
        if count == MAX_PRICES or item >= len(prices) or weighing.of_kind[events.kinds[place]] <= 0.0:
            continue
        price = np.float64(prices[item])
        if not price > 0.0:
            continue
        at = count
        while at > 0 and scratch[at - 1] > price:
            scratch[at] = scratch[at - 1]
            at -= 1
        scratch[at] = price
        count += 1
    return math.log(scratch[(count - 1) // 2]) if count else math.nan
