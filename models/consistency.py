"""
What holds a list together from one refresh to the next.

One knob, `steadiness` in 0..1, sets all of it (K is the length of the list):

======================  =============================  =====  =====  =====  =====
control                 mapping                        0      .25    .5     1
======================  =============================  =====  =====  =====  =====
bonus, share of best    .4 knob                        0      .1     .2     .4
items that may change   K 10^-knob, at least 1         K      .56 K  .32 K  .1 K
minimum dwell, s        60 (knob - .5), at least 0     0      0      0      30
positions               kept from knob .8 on           no     no     no     yes
======================  =============================  =====  =====  =====  =====

The bonus falls by a tenth from place to place, as the weight of places in rank-biased overlap does. Measured on
MovieLens-100K it buys more of that for a lost hit than one that is the same for all or that halves with the time on
the list, because it also keeps the order. Kept positions cost mean reciprocal rank, and a dwell delays an answer to a
click, so both begin late.

At 0 a list that an event is behind is the plain ranking. At every setting one for which there is neither a new event
nor a forced break stays as it is. Forced breaks: an item that may not be listed any more leaves; one whose price has
changed must earn its place like any other; the first event of a session begins a new list; what is pinned takes its
slot; guardrails come before the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from models.events import SESSION_GAP_MS

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_BONUS: Final = 0.4
_BONUS_FALLS: Final = 0.9
_DWELL_MS: Final = 60_000.0
_DWELL_FROM: Final = 0.5
_STICKY_FROM: Final = 0.8


class Controls(NamedTuple):
    """
    How n lists are held together.

    Attributes
    ----------
    bonus
        (n,) float64, what the first item is ahead, as a share of the best score.
    budget
        (n,) int64, items that may change without being forced to.
    dwell_ms
        (n,) int64, time for which an item stays where it came on the list.
    sticky
        (n,) bool, whether items that stay keep their positions.
    held
        (n,) bool, whether anything is held when an event is behind a list.

    """

    bonus: Doubles
    budget: Ints
    dwell_ms: Ints
    sticky: Flags
    held: Flags


class Previous(NamedTuple):
    """
    The lists that n users had before.

    Attributes
    ----------
    rows
        (n, p) int32, by rank; -1 where the list ended, less for an item that is not known any more.
    since_ms
        (n, p) int64, time of the user's newest event when the item came on the list.
    price_marks
        (n, p) uint16, see `models.caps.Attributes`: of the prices when the list was made; 0 for one not known.
    made_ms
        (n,) int64, time of the user's newest event when the list was made; any for users without a list.
    moved
        (n,) bool, whether events came since.
    explored
        (n, 2) int64, the rank of the exploration slot and the propensity of what stands there, in steps, negative where
        it was not drawn; zeros where all of the list was certain. See `models.exploration`.

    """

    rows: npt.NDArray[np.int32]
    since_ms: Ints
    price_marks: npt.NDArray[np.uint16]
    made_ms: Ints
    moved: Flags
    explored: Ints


def no_previous(users: int) -> Previous:
    """Return what says that nobody had a list before."""
    nothing = (users, 0)
    return Previous(
        np.zeros(nothing, np.int32), np.zeros(nothing, np.int64), np.zeros(nothing, np.uint16),
        np.zeros(users, np.int64), np.ones(users, np.bool_), np.zeros((users, 2), np.int64),
    )  # fmt: skip


def joined(parts: Sequence[Previous]) -> Previous:
    """Return the lists of several parts as one batch, as long as the longest."""
    longest = max(part.rows.shape[1] for part in parts)
    return Previous(
        np.concatenate([_longer(part.rows, longest, -1) for part in parts]),
        np.concatenate([_longer(part.since_ms, longest, 0) for part in parts]),
        np.concatenate([_longer(part.price_marks, longest, 0) for part in parts]),
        np.concatenate([part.made_ms for part in parts]),
        np.concatenate([part.moved for part in parts]),
        np.concatenate([part.explored for part in parts]),
    )


def _longer(columns: npt.NDArray[Any], width: int, fill: int) -> npt.NDArray[Any]:
    return np.pad(columns, ((0, 0), (0, width - columns.shape[1])), constant_values=fill)


def controls(knobs: Doubles, size: int) -> Controls:
    """
    Return what knobs (n,) in 0..1 stand for, for lists of `size` items.

    >>> controls(np.array([0.0, 0.5, 1.0]), 20).budget.tolist()
    [20, 6, 2]
    """
    budget = np.maximum(np.rint(size * 10.0**-knobs), 1).astype(np.int64)
    dwell_ms = np.rint(_DWELL_MS * np.maximum(knobs - _DWELL_FROM, 0)).astype(np.int64)
    return Controls(_BONUS * knobs, budget, dwell_ms, knobs >= _STICKY_FROM, knobs > 0)


@compiled
def goes_on(previous: Previous, user: int, now_ms: int, held: bool) -> bool:  # noqa: FBT001
    """Whether a user's last list is held on to: nothing happened since, or lists are `held` and the session lasts."""
    if previous.rows.shape[1] == 0 or previous.rows[user, 0] == -1:
        return False
    return not previous.moved[user] or (held and now_ms - previous.made_ms[user] <= SESSION_GAP_MS)


def unmoved(previous: Previous) -> Flags:
    """Return who (n,) has a list behind which nothing has happened."""
    has_list = (previous.rows != -1).any(axis=1)
    flags: Flags = has_list & ~previous.moved
    return flags


@compiled
def find_incumbents(
    previous: Previous, user: int, rows: npt.NDArray[np.int32], count: int, price_marks: npt.NDArray[np.uint16],
    size: int, slots: Ints, since_ms: Ints,
) -> int:  # fmt: skip
    """
    Find which candidates stand on the list before, its first `size` places; return how many.

    Parameters
    ----------
    rows
        (m,) rows of the candidates, `count` of them; items of the list that are not among them have to go.
    price_marks
        (items,) those of today's prices: an item of another price than on the list is a newcomer.
    slots, since_ms
        Out, (m,): the place of each on the list before, -1 for newcomers; since when it stands there.

    """
    incumbents = 0
    for candidate in range(count):
        slots[candidate] = -1
        since_ms[candidate] = 0
        for slot in range(min(previous.rows.shape[1], size)):
            mark = previous.price_marks[user, slot]
            if previous.rows[user, slot] == rows[candidate] and (mark == 0 or mark == price_marks[rows[candidate]]):
                slots[candidate] = slot
                since_ms[candidate] = previous.since_ms[user, slot]
                incumbents += 1
    return incumbents


@compiled
def bonus_steps(share: float, best: int, slot: int) -> int:
    """Return what an item is ahead that stood in a slot, in steps of the score; `best` is the best score in steps."""
    return int(np.rint(share * max(best, 0) * _BONUS_FALLS**slot))


@compiled
def keep_positions(order: Ints, fixed: Ints, slots: Ints, size: int, scratch: Ints) -> None:
    """
    Put the items of a list that stood on the one before back into their places; the others fill the holes in order.

    Parameters
    ----------
    order
        (size,) candidates by rank, -1 where the list ended; changed in place.
    fixed
        (size,) candidates that stand fast, -1 for none.
    slots
        (m,) place of each candidate on the list before, -1 for newcomers.
    scratch
        (size,).

    """
    length = 0
    for place in range(size):
        length += order[place] >= 0
        scratch[place] = fixed[place]
    for place in range(length):
        candidate = order[place]
        slot = slots[candidate]
        if fixed[place] != candidate and 0 <= slot < length and scratch[slot] < 0:
            scratch[slot] = candidate
    hole = 0
    for place in range(length):
        candidate = order[place]
        if fixed[place] == candidate or (0 <= slots[candidate] < length and scratch[slots[candidate]] == candidate):
            continue
        while scratch[hole] >= 0:
            hole += 1
        scratch[hole] = candidate
    for place in range(size):
        order[place] = scratch[place]
