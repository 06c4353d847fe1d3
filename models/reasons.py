"""
Why an item stands in a list: the exact additive contribution of each event to the personal part of the score.

The personal part is `q . v` with `q` a weighted sum of event item vectors, and what the events say of the item through
neighbours and by themselves (`models.neighbours`), so it falls apart into one number for each event: taking the event
away, with the lengths of the interest vectors, the scales and the places of the other events held, lowers it by just
that number. What an item of the history says grows with the root of its events' weights, so several groups of events
with one item take away less by one than all at once: the rest counts as older history.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled, compiled_loosely
from models.events import LOOKED_AT, Events, Weighing

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

#: Events named behind an item.
MAX_REASONS: Final = 3
#: Groups of equal events of one user that can be told apart; those that come later are older history.
MAX_GROUPS: Final = 256
#: Shares are told in steps of one in so many.
SHARE_STEPS: Final = 10_000
#: Items that are multiplied with one event at once.
_AT_ONCE: Final = 4


class Groups(NamedTuple):
    """
    Equal events of one user (same item, same type) as one, scratch for `group`.

    Attributes
    ----------
    items, kinds
        (MAX_GROUPS,) int64, in the order of their oldest event.
    short, long
        (MAX_GROUPS,) float64, what is left of their weight in the short and in the long vector.
    masses
        (MAX_GROUPS,) float64, what the group's item weighs in the user's whole history, by every event with it.
    of_event
        (LOOKED_AT,) int64, the group of the event so many liked events before the newest; -1 without one.
    weights
        (MAX_GROUPS,) float64, the factor of the item's vector in the query.
    contributed
        (items + 3, MAX_GROUPS) float64, what each adds to the personal score of each item.

    """

    items: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.int64]
    short: Doubles
    long: Doubles
    masses: Doubles
    of_event: npt.NDArray[np.int64]
    weights: Doubles
    contributed: Doubles


class Reasons(NamedTuple):
    """
    The events behind each of k items of n users, strongest first.

    Attributes
    ----------
    items
        (n, k, MAX_REASONS) int32, row of the event's item.
    kinds
        (n, k, MAX_REASONS) uint8, its type code.
    shares
        (n, k, MAX_REASONS) int64, share of all that speaks for the item, 0..`SHARE_STEPS`; 0 where there is no event.

    """

    items: npt.NDArray[np.int32]
    kinds: npt.NDArray[np.uint8]
    shares: npt.NDArray[np.int64]


def no_groups(items: int) -> Groups:
    """Return scratch for lists of so many items."""
    rows, kinds = np.zeros((2, MAX_GROUPS), np.int64)
    short, long, masses, weights = np.zeros((4, MAX_GROUPS))
    of_event = np.full(LOOKED_AT, -1, np.int64)
    return Groups(rows, kinds, short, long, masses, of_event, weights, np.zeros((items + _AT_ONCE - 1, MAX_GROUPS)))


def no_reasons(users: int, items: int) -> Reasons:
    """Return room for the reasons of as many items of as many users."""
    shape = (users, items, MAX_REASONS)
    return Reasons(np.zeros(shape, np.int32), np.zeros(shape, np.uint8), np.zeros(shape, np.int64))


@compiled_loosely
def dot(one: Floats, other: Floats) -> float:
    """Return the scalar product of two vectors, summed in float64."""
    total = 0.0
    for axis in range(len(one)):
        total += np.float64(one[axis]) * np.float64(other[axis])
    return total


@compiled
def group(
    events: Events, user: int, known: int, now_ms: int, weighing: Weighing, short_scale: float, long_scale: float,
    groups: Groups,
) -> int:  # fmt: skip
    """
    Bring together the equal events of a user that speak for something; return how many groups there are.

    Parameters
    ----------
    known
        Items from this row on say nothing.
    now_ms
        Time to which weights have decayed.
    short_scale, long_scale
        Ranking weight divided by the vector's length; 0 for a vector of length 0.

    """
    count, distance = 0, 0
    groups.of_event[:] = -1
    first = events.ends[user - 1] if user else 0
    for place in range(first, events.ends[user]):
        distance += events.items[place] < known and weighing.of_kind[events.kinds[place]] > 0.0
    for place in range(first, events.ends[user]):
        item, kind = np.int64(events.items[place]), np.int64(events.kinds[place])
        if item >= known or weighing.of_kind[kind] <= 0.0:
            continue
        distance -= 1
        at = 0
        while at < count and not (groups.items[at] == item and groups.kinds[at] == kind):
            at += 1
        if at == count:
            if count == MAX_GROUPS:
                continue
            groups.items[at], groups.kinds[at] = item, kind
            groups.short[at], groups.long[at] = 0.0, 0.0
            count += 1
        age_ms = max(now_ms - events.ts_ms[place], 0)
        groups.short[at] += math.exp2(-age_ms / weighing.half_lives_ms[0])
        groups.long[at] += math.exp2(-age_ms / weighing.half_lives_ms[1])
        if distance < LOOKED_AT:
            groups.of_event[distance] = at
    for at in range(count):
        decayed = short_scale * groups.short[at] + long_scale * groups.long[at]
        groups.weights[at] = weighing.of_kind[groups.kinds[at]] * decayed
    return count


@compiled
def contribute(item_vectors: Floats, items: npt.NDArray[np.int32], groups: Groups, count: int) -> None:
    """
    Fill `groups.contributed`: what each group of events adds to the personal score of each item.

    Parameters
    ----------
    items
        (k,) rows of the items; -1 behind the last.

    """
    for at in range(count):
        event, weight = item_vectors[groups.items[at]], groups.weights[at]
        for rank in range(0, len(items), _AT_ONCE):
            if items[rank] < 0:
                break
            # Behind the last item the first one is looked at again, in vain.
            second, third, fourth = items[rank], items[rank], items[rank]
            if rank + 3 < len(items) and items[rank + 3] >= 0:
                second, third, fourth = items[rank + 1], items[rank + 2], items[rank + 3]
            elif rank + 2 < len(items) and items[rank + 2] >= 0:
                second, third = items[rank + 1], items[rank + 2]
            elif rank + 1 < len(items) and items[rank + 1] >= 0:
                second = items[rank + 1]
            _contribute(
                event, weight, item_vectors[items[rank]], item_vectors[second], item_vectors[third],
                item_vectors[fourth], groups.contributed[rank : rank + _AT_ONCE], at,
            )  # fmt: skip


@compiled_loosely
def _contribute(
    event: Floats, weight: float, first: Floats, second: Floats, third: Floats, fourth: Floats, contributed: Doubles,
    at: int,
) -> None:  # fmt: skip
    """Multiply one event with four items: what is read of the event is read once. Float32 is finer than a share."""
    one = two = three = four = np.float32(0)
    for axis in range(len(event)):
        one += event[axis] * first[axis]
        two += event[axis] * second[axis]
        three += event[axis] * third[axis]
        four += event[axis] * fourth[axis]
    contributed[0, at], contributed[1, at] = weight * one, weight * two
    contributed[2, at], contributed[3, at] = weight * three, weight * four


@compiled
def explain(
    contributed: Doubles, liked: float, groups: Groups, count: int, reasons: Reasons, user: int, rank: int
) -> None:
    """
    Name the groups of events with the largest shares behind an item; ties go to the group that began first.

    Parameters
    ----------
    contributed
        (count or more,) what each group adds; used up.
    liked
        The whole personal score; what the events do not explain comes from older history and counts as one more
        contribution.
    reasons
        Out, at (user, rank): zeros before.

    """
    if liked <= 0.0 or not count:
        return
    spoken, explained = 0.0, 0.0
    for at in range(count):
        explained += contributed[at]
        spoken += max(contributed[at], 0.0)
    whole = spoken + max(liked - explained, 0.0)
    for place in range(MAX_REASONS):
        best = 0
        for at in range(1, count):
            if contributed[at] > contributed[best]:
                best = at
        if contributed[best] <= 0.0:
            return
        share = np.int64(np.rint(contributed[best] / whole * SHARE_STEPS))
        contributed[best] = 0.0
        if share == 0:
            return
        reasons.items[user, rank, place] = groups.items[best]
        reasons.kinds[user, rank, place] = groups.kinds[best]
        reasons.shares[user, rank, place] = share
