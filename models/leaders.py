"""The strongest items by one measure, of all and of each category, and what the categories of a user's events say."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.calibration import Profile, find
from models.compiled import compiled
from models.events import Weighing
from models.neighbours import keep
from models.reasons import Groups

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

#: Items of one category that are kept: three lists of ten, so that a user may have met most of them.
LEADERS: Final = 32


class Leaders(NamedTuple):
    """
    The items of each category that are worth most, best first.

    Attributes
    ----------
    categories
        (rows,) int32, of every item; -1 where none is known.
    values
        (rows,) float32, not negative.
    items
        (p,) int32, those of one category behind those of another, none without a value.
    ends
        (categories,) int64, where each category's end.

    """

    categories: Rows
    values: Floats
    items: Rows
    ends: Ints


class Demand(NamedTuple):
    """
    What is known of the demand for items.

    Attributes
    ----------
    rising
        (rows,) float32 in 0..1, how much it rises.
    leaders
        By popularity.

    """

    rising: Floats
    leaders: Leaders


def strongest(values: Floats, usable: Flags, order: Ints, count: int) -> Rows:
    """
    Return the usable rows (count or fewer,) int32 with the greatest values above 0, best first.

    >>> values = np.array([0.0, 0.5, 1.0, 0.5, 0.75], np.float32)
    >>> strongest(values, np.array([True, True, True, True, False]), np.array([0, 3, 2, 1, 4]), 2).tolist()
    [2, 3]

    Parameters
    ----------
    order
        (rows,) int64: of equals the one of the smaller comes first.

    """
    return leaders(np.zeros(len(values), np.int32), values, usable, order, count).items


def leaders(categories: Rows, values: Floats, usable: Flags, order: Ints, count: int = LEADERS) -> Leaders:
    """Return the `count` strongest items of each category; other parameters are those of `strongest`."""
    taking_part = usable & (categories >= 0) & (values > 0)
    counts = np.bincount(categories[taking_part])
    ends = np.cumsum(np.minimum(counts, count), dtype=np.int64)
    items = np.empty(int(ends[-1]) if len(ends) else 0, np.int32)
    _lead(np.ascontiguousarray(categories), values, taking_part, order, np.zeros(len(ends), np.int64), ends, items)
    return Leaders(categories, values, items, ends)


def no_leaders() -> Leaders:
    """Return what leads in no category."""
    return Leaders(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int32), np.empty(0, np.int64))


@compiled
def _lead(
    categories: Rows, values: Floats, taking_part: Flags, order: Ints, filled: Ints, ends: Ints, items: Rows
) -> None:  # fmt: skip
    """Put each item in its place among those of its category, the last one leaves; `filled` are zeros before."""
    for row in range(len(values)):
        if not taking_part[row]:
            continue
        category = categories[row]
        first = ends[category - 1] if category else 0
        at = first + filled[category]
        if at == ends[category]:
            if not _before(values, order, row, items[at - 1]):
                continue
            at -= 1
        else:
            filled[category] += 1
        while at > first and _before(values, order, row, items[at - 1]):
            items[at] = items[at - 1]
            at -= 1
        items[at] = row


@compiled
def _before(values: Floats, order: Ints, row: int, other: int) -> bool:
    return bool(values[row] > values[other] or (values[row] == values[other] and order[row] < order[other]))


@compiled
def standing(leaders: Leaders, item: int) -> float:
    """Return an item's value as a share of that of the leader of its category; 0 where nobody leads."""
    category = leaders.categories[item]
    if category < 0 or category >= len(leaders.ends):
        return 0.0
    first = leaders.ends[category - 1] if category else 0
    if first == leaders.ends[category]:
        return 0.0
    return np.float64(leaders.values[item]) / np.float64(leaders.values[leaders.items[first]])


@compiled
def largest(profile: Profile, count: int) -> float:
    """Return the largest share of a profile of at least one category."""
    most = profile.shares[0]
    for at in range(1, count):
        most = max(most, profile.shares[at])
    return float(most)


@compiled
def favoured(profile: Profile, count: int, leaders: Leaders, item: int) -> float:
    """Return what a user's categories say of an item: the share of its own times what it stands for in that."""
    category = leaders.categories[item]
    at = find(profile, count, category) if category >= 0 else count
    return profile.shares[at] * standing(leaders, item) if at < count else 0.0


@compiled
def led(
    profile: Profile, count: int, leaders: Leaders, barred: Ints, mine: int, best: Ints, said: Doubles
) -> int:  # fmt: skip
    """
    Return how many of the leaders that a user's categories say most of were written to `best` (k,), by `said` (k,).

    Parameters
    ----------
    barred, mine
        (rows,) stamps of those who may not have an item, and that of this user.

    """
    found = 0
    for at in range(count):
        category = profile.categories[at]
        if category >= len(leaders.ends):
            # Nobody leads.
            continue
        for place in range(leaders.ends[category - 1] if category else 0, leaders.ends[category]):
            item = leaders.items[place]
            value = profile.shares[at] * standing(leaders, item)
            if value <= 0.0 or (found == len(best) and value <= said[found - 1]):
                break
            if barred[item] != mine:
                found = keep(best, said, found, item, value)
    return found


@compiled
def attribute_categories(
    profile: Profile, kinds: int, leaders: Leaders, items: Rows, groups: Groups, count: int, weighing: Weighing,
    scale: float,
) -> None:  # fmt: skip
    """
    Add to `groups.contributed` what each group of events says of each item through the category of both.

    Parameters
    ----------
    kinds
        Categories of the profile, whose shares sum to 1.
    items
        (k,) rows of the items; -1 behind the last.
    scale
        What the user's categories say is multiplied with.

    """
    for at in range(count):
        row = groups.items[at]
        category = leaders.categories[row]
        if category < 0 or find(profile, kinds, category) == kinds:
            continue
        said = scale * weighing.of_kind[groups.kinds[at]] * groups.long[at] / profile.mass[0]
        for rank in range(len(items)):
            if items[rank] < 0:
                break
            if leaders.categories[items[rank]] == category:
                groups.contributed[rank, at] += said * standing(leaders, items[rank])
