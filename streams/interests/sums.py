"""
The rolling sums behind the interest vectors, compiled: followed in place, made anew when they cannot be.

Sums are float32. Each addition errs by at most 2^-24 of the sum's length, and lengths are bounded by `peak`: while a
sum is longer than 1/64 of its peak and was followed for at most 256 runs, its direction errs by less than
256 * 64 * 2^-24 = 1e-3, a cosine of 1 - 5e-7. A sum that cancelled below that is made anew, in float64.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from models.compiled import compiled, compiled_loosely
from streams.interests.columns import Float32, Float64, Int64, Items, Records, Rules, Store

SHORT: Final = 0
LONG: Final = 1
NEGATIVE: Final = 2

#: Rounding errors add up over in-place updates; after this many a sum is made anew.
REBUILD_AFTER_FOLDS: Final = 256
#: A sum this much shorter than it could once have been is made anew.
CANCELLED: Final = 1.0 / 64.0


@compiled
def follow(users: Records, sums: Float32, items: Items, rules: Rules, row: int, ts: int, item: int, kind: int) -> None:
    """Let both sums of a user take an interaction in, decayed to its time if it is the newest; dislikes only decay."""
    user = users[row]
    behind_ms = max(ts - user.sums_at, 0)
    user.sums_at += behind_ms
    age_ms = user.sums_at - ts
    weight = 0.0 if rules.negative[kind] else rules.weights[kind]
    for part in (SHORT, LONG):
        half_life_ms = rules.half_lives_ms[part]
        remaining = math.exp2(-behind_ms / half_life_ms) if behind_ms else 1.0
        aged = weight * math.exp2(-age_ms / half_life_ms) if age_ms else weight
        user.peak[part] = user.peak[part] * remaining + abs(aged)
        _decay_and_add(sums[row, part], items.vectors[item], remaining, aged)


@compiled_loosely
def _decay_and_add(vector: Float32, other: Float32, remaining: float, weight: float) -> None:
    """Multiply a vector in place and add another times a weight."""
    kept, added = np.float32(remaining), np.float32(weight)
    for axis in range(len(vector)):
        vector[axis] = vector[axis] * kept + added * other[axis]


@compiled_loosely
def _add_scaled(vector: Float32, other: Float32, factor: float) -> None:
    narrow = np.float32(factor)
    for axis in range(len(vector)):
        vector[axis] += narrow * other[axis]


@compiled
def add(users: Records, sums: Float32, vectors: Float32, row: int, part: int, item: int, weight: float) -> None:
    """Add an item's vector to a sum and what it may weigh to the sum's peak."""
    users[row].peak[part] += abs(weight)
    _add_scaled(sums[row, part], vectors[item], weight)


@compiled_loosely
def _add_wide(vector: Float64, other: Float32, factor: float) -> None:
    for axis in range(len(vector)):
        vector[axis] += factor * other[axis]


@compiled_loosely
def _length(vector: Float32) -> float:
    total = 0.0
    for axis in range(len(vector)):
        total += np.float64(vector[axis]) * vector[axis]
    return math.sqrt(total)


@compiled
def rebuild(store: Store, rules: Rules, items: Items, row: int, wide: Float64) -> None:
    """Make both sums of a user from the definition, in float64; `wide` is (3, dim) scratch."""
    user, sums, vectors = store.users[row], store.sums, items.vectors
    wide[:] = 0.0
    first, used = user.recent_at, user.recent_n
    newest = store.recents[first + used - 1].ts if used else 0
    for slot in range(first, first + used):
        kind = store.recents[slot].kind
        if not rules.negative[kind]:
            age = newest - store.recents[slot].ts
            for part in (SHORT, LONG):
                weight = rules.weights[kind] * math.exp2(-age / rules.half_lives_ms[part])
                _add_wide(wide[part], vectors[store.recents[slot].item], weight)
    first = user.tally_at
    for place in range(first, first + user.tally_n):
        age = newest - store.tallies[place].ts
        weight = store.tallies[place].mass * math.exp2(-age / rules.half_lives_ms[LONG])
        _add_wide(wide[LONG], vectors[store.tally_items[place]], weight)
    for part in (SHORT, LONG):
        for axis in range(sums.shape[2]):
            sums[row, part, axis] = wide[part, axis]
        user.peak[part] = _length(sums[row, part])
    user.sums_at = newest
    user.folds = 0
    user.stale = False
    user.items_revision = items.revision


@compiled
def _must_rebuild(store: Store, items: Items, row: int) -> bool:
    user = store.users[row]
    if user.stale or user.folds >= REBUILD_AFTER_FOLDS:
        return True
    if user.items_revision != items.revision:
        known = user.items_revision
        for slot in range(user.recent_at, user.recent_at + user.recent_n):
            if items.changed_at[store.recents[slot].item] > known:
                return True
        for place in range(user.tally_at, user.tally_at + user.tally_n):
            if items.changed_at[store.tally_items[place]] > known:
                return True
        user.items_revision = items.revision
    if user.folds == 0:
        return False
    short, long = _length(store.sums[row, SHORT]), _length(store.sums[row, LONG])
    return bool(short < CANCELLED * user.peak[SHORT] or long < CANCELLED * user.peak[LONG])


@compiled
def gather(store: Store, rules: Rules, items: Items, rows: Int64, out: Float32, wide: Float64) -> None:
    """
    Write short, long and negative of each row, as of the user's newest interaction, to `out` (3, n, dim).

    `wide` is (3, dim) scratch.
    """
    sums = store.sums
    for at in range(len(rows)):
        row = rows[at]
        user = store.users[row]
        if _must_rebuild(store, items, row):
            rebuild(store, rules, items, row, wide)
        for part in (SHORT, LONG):
            for axis in range(sums.shape[2]):
                out[part, at, axis] = sums[row, part, axis]
        negative = wide[NEGATIVE]
        negative[:] = 0.0
        first, used = user.recent_at, user.recent_n
        newest = store.recents[first + used - 1].ts if used else 0
        for slot in range(first, first + used):
            kind = store.recents[slot].kind
            if rules.negative[kind]:
                age = newest - store.recents[slot].ts
                weight = rules.weights[kind] * math.exp2(-age / rules.half_lives_ms[NEGATIVE])
                _add_wide(negative, items.vectors[store.recents[slot].item], weight)
        for axis in range(len(negative)):
            out[NEGATIVE, at, axis] = negative[axis]
