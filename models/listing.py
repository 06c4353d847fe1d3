"""
The final list of each user out of its candidates: scored again exactly, in a total order, with reasons.

What a user's list becomes depends on that user and the items alone, not on who else is in the batch: `models.scan`
only chooses candidates, whose scores are summed again one user at a time in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from models.contenders import Rows
from models.ranking import SCORE_STEP, Barred, Floats, RankingParameters, Top, queries
from models.reasons import (
    Events,
    Groups,
    Reasons,
    Weighing,
    contribute,
    dot,
    explain,
    group,
    no_groups,
    no_reasons,
)
from models.scan import exact_top

#: What carries an item: the user's interest, its popularity, or nothing but that there was room.
INTEREST: Final = 0
POPULAR: Final = 1
ROOM: Final = 2
#: Steps of a score of 1.
STEPS: Final = round(1 / SCORE_STEP)
#: Candidates beyond the list's size: a query is a float32 sum and errs by about 1e-7; only near-ties of 1e-5 can move.
_SPARE: Final = 12


class Users(NamedTuple):
    """
    What the lists of n users are decided from.

    Attributes
    ----------
    interests
        (3, n, d) float32, short, long and negative interest vectors: sums of item vectors by event weight, decayed to
        `now_ms`; zeros when empty.
    events
        The events that reasons are looked for in, and whose items are seen.
    excluded
        Items that may not be listed: purchased and disliked ones.
    now_ms
        (n,) int64, time of each user's newest event.
    parameters
        One for each user.

    """

    interests: Floats
    events: Events
    excluded: Barred
    now_ms: npt.NDArray[np.int64]
    parameters: Sequence[RankingParameters]


def joined(parts: Sequence[Users]) -> Users:
    """Return the users of several parts, of one dimension each, as one batch; at least one part."""
    if len(parts) == 1:
        return parts[0]
    events = Events(
        np.concatenate([part.events.items for part in parts]),
        np.concatenate([part.events.kinds for part in parts]),
        np.concatenate([part.events.ts_ms for part in parts]),
        _ends([part.events.ends for part in parts]),
    )
    excluded = Barred(
        np.concatenate([part.excluded.columns for part in parts]), _ends([part.excluded.ends for part in parts])
    )
    return Users(
        np.concatenate([part.interests for part in parts], axis=1),
        events,
        excluded,
        np.concatenate([part.now_ms for part in parts]),
        [parameters for part in parts for parameters in part.parameters],
    )


def _ends(parts: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Return ends of parts that stand one behind another."""
    before = np.cumsum([0, *(part[-1] if len(part) else 0 for part in parts[:-1])])
    return np.concatenate([part + start for part, start in zip(parts, before, strict=True)])


class Lists(NamedTuple):
    """
    The lists of n users, best first.

    Attributes
    ----------
    items
        (n, k) int32 rows; -1 where the items ended.
    steps
        (n, k) int64, score in steps of `SCORE_STEP`.
    sources
        (n, k) uint8, what carries each item: `INTEREST`, `POPULAR` or `ROOM`.
    reasons
        The events behind each item.

    """

    items: npt.NDArray[np.int32]
    steps: npt.NDArray[np.int64]
    sources: npt.NDArray[np.uint8]
    reasons: Reasons


def make_lists(users: Users, table: Rows, size: int, weighing: Weighing) -> Lists:
    """
    Return the best `size` items of each user.

    Parameters
    ----------
    weighing
        How much an event says when it is looked for behind an item.

    """
    count = len(users.parameters)
    short, long, negative = users.interests
    asked = queries(short, long, negative, users.parameters)
    exclude_seen = np.array([parameters.exclude_seen for parameters in users.parameters], np.bool_)
    barred = _barred(users.excluded, users.events, exclude_seen)
    top = exact_top(asked, table, size + _SPARE, barred)
    lists = Lists(
        np.full((count, size), -1, np.int32), np.zeros((count, size), np.int64),
        np.zeros((count, size), np.uint8), no_reasons(count, size),
    )  # fmt: skip
    weights = np.array([(p.short, p.long, p.negative, p.popularity) for p in users.parameters]).reshape(-1, 4)
    liked_of, groups = np.zeros(size), no_groups(size)
    _fill(users.interests, users.events, users.now_ms, weights, table, top, weighing, liked_of, groups, lists)
    return lists


def _barred(excluded: Barred, events: Events, exclude_seen: npt.NDArray[np.bool_]) -> Barred:
    """Return the excluded items, and with them the seen ones of the users who are to get new ones only."""
    columns = np.empty(len(excluded.columns) + len(events.items), np.int32)
    ends = np.empty(len(exclude_seen), np.int64)
    used = _join(excluded, events, exclude_seen, columns, ends)
    return Barred(columns[:used], ends)


@compiled
def _join(
    excluded: Barred, events: Events, exclude_seen: npt.NDArray[np.bool_], columns: npt.NDArray[np.int32],
    ends: npt.NDArray[np.int64],
) -> int:  # fmt: skip
    used = 0
    for user in range(len(ends)):
        for place in range(excluded.ends[user - 1] if user else 0, excluded.ends[user]):
            columns[used] = excluded.columns[place]
            used += 1
        if exclude_seen[user]:
            for place in range(events.ends[user - 1] if user else 0, events.ends[user]):
                columns[used] = events.items[place]
                used += 1
        ends[user] = used
    return used


@compiled
def _fill(
    interests: Floats, events: Events, now_ms: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64], table: Rows, top: Top, weighing: Weighing, liked_of: npt.NDArray[np.float64],
    groups: Groups, lists: Lists,
) -> None:  # fmt: skip
    """Fill the lists; `liked_of` is (size,) scratch: of the listed items, what the interest vectors say."""
    for user in range(len(weights)):
        short, long, negative = interests[0, user], interests[1, user], interests[2, user]
        short_scale = _scale(short, weights[user, 0])
        long_scale = _scale(long, weights[user, 1])
        negative_scale = _scale(negative, weights[user, 2])
        candidates, sources = top.columns[user], lists.sources[user]
        for place in range(len(candidates)):
            item = candidates[place]
            if item < 0:
                break
            liked = 0.0
            if short_scale != 0.0:
                liked += dot(short, table.vectors[item]) * short_scale
            if long_scale != 0.0:
                liked += dot(long, table.vectors[item]) * long_scale
            personal = liked
            if negative_scale != 0.0:
                personal -= max(dot(negative, table.vectors[item]) * negative_scale, 0.0)
            popular = weights[user, 3] * table.popularity[item]
            step = int(np.rint((personal + popular) * STEPS))
            rank = _insert(lists.items[user], lists.steps[user], table.order, item, step)
            if rank < len(sources):
                _make_room(sources, rank)
                _make_room(liked_of, rank)
                sources[rank], liked_of[rank] = _source(personal, popular), liked
        known = len(table.vectors)
        count = group(events, user, known, now_ms[user], weighing, short_scale, long_scale, groups)
        if count:
            contribute(table.vectors, lists.items[user], groups, count)
            for rank in range(lists.items.shape[1]):
                if lists.items[user, rank] < 0:
                    break
                explain(groups.contributed[rank], liked_of[rank], groups, count, lists.reasons, user, rank)


@compiled
def _scale(vector: Floats, weight: float) -> float:
    """Return what makes a vector as long as its ranking weight; 0 where it says nothing."""
    length = math.sqrt(dot(vector, vector))
    return weight / length if length > 0.0 else 0.0


@compiled
def _source(personal: float, popular: float) -> int:
    if personal > 0.0 and personal >= popular:
        return INTEREST
    return POPULAR if popular > 0.0 else ROOM


@compiled
def _insert(
    items: npt.NDArray[np.int32], steps: npt.NDArray[np.int64], order: npt.NDArray[np.int64], item: int, step: int
) -> int:
    """Put an item in its place on a list, the last one leaves; return its place, the length if it has none."""
    at = len(items)
    while at > 0:
        other = items[at - 1]
        if other >= 0 and (steps[at - 1] > step or (steps[at - 1] == step and order[other] < order[item])):
            break
        if at < len(items):
            items[at], steps[at] = other, steps[at - 1]
        at -= 1
    if at < len(items):
        items[at], steps[at] = item, step
    return at


@compiled
def _make_room(values: npt.NDArray[Any], at: int) -> None:
    """Move what stands from a place on by one; the last one leaves."""
    for place in range(len(values) - 1, at, -1):
        values[place] = values[place - 1]
