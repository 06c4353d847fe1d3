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

from streams.interests.columns import Bool, Float32, Float64, Int64, Records
from streams.interests.compiled import compiled, compiled_loosely

SHORT: Final = 0
LONG: Final = 1
NEGATIVE: Final = 2

#: Rounding errors add up over in-place updates; after this many a sum is made anew.
REBUILD_AFTER_FOLDS: Final = 256
#: A sum this much shorter than it could once have been is made anew.
CANCELLED: Final = 1.0 / 64.0


@compiled
def advance(users: Records, sums: Float32, half_lives_ms: Float64, row: int, ts: int) -> None:
    """Decay both sums of a user to a newer time."""
    for part in (SHORT, LONG):
        remaining = math.exp2((users[row].sums_at - ts) / half_lives_ms[part])
        users[row].peak[part] *= remaining
        scale(sums[row, part], remaining)
    users[row].sums_at = ts


@compiled_loosely
def scale(vector: Float32, factor: float) -> None:
    """Multiply a vector in place."""
    narrow = np.float32(factor)
    for axis in range(len(vector)):
        vector[axis] *= narrow


@compiled_loosely
def add_scaled(vector: Float32, other: Float32, factor: float) -> None:
    """Add another vector times a factor in place."""
    narrow = np.float32(factor)
    for axis in range(len(vector)):
        vector[axis] += narrow * other[axis]


@compiled
def add(users: Records, sums: Float32, vectors: Float32, row: int, part: int, item: int, weight: float) -> None:
    """Add an item's vector to a sum and what it may weigh to the sum's peak."""
    users[row].peak[part] += abs(weight)
    add_scaled(sums[row, part], vectors[item], weight)


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
def rebuild(
    users: Records, recents: Records, tallies: Records, sums: Float32, vectors: Float32, revision: int,
    weights: Float64, negative: Bool, half_lives_ms: Float64, row: int,
) -> None:  # fmt: skip
    """Make both sums of a user from the definition, in float64."""
    wide = np.zeros((2, sums.shape[2]), np.float64)
    first, used = users[row].recent_at, users[row].recent_n
    newest = recents[first + used - 1].ts if used else 0
    for slot in range(first, first + used):
        kind = recents[slot].kind
        if not negative[kind]:
            for part in (SHORT, LONG):
                weight = weights[kind] * math.exp2((recents[slot].ts - newest) / half_lives_ms[part])
                _add_wide(wide[part], vectors[recents[slot].item], weight)
    first = users[row].tally_at
    for place in range(first, first + users[row].tally_n):
        weight = tallies[place].mass * math.exp2((tallies[place].ts - newest) / half_lives_ms[LONG])
        _add_wide(wide[LONG], vectors[tallies[place].item], weight)
    for part in (SHORT, LONG):
        for axis in range(sums.shape[2]):
            sums[row, part, axis] = wide[part, axis]
        users[row].peak[part] = _length(sums[row, part])
    users[row].sums_at = newest
    users[row].folds = 0
    users[row].stale = False
    users[row].items_revision = revision


@compiled
def _must_rebuild(
    users: Records, recents: Records, tallies: Records, sums: Float32, changed_at: Int64, revision: int, row: int
) -> bool:  # fmt: skip
    if users[row].stale or users[row].folds >= REBUILD_AFTER_FOLDS:
        return True
    if users[row].items_revision != revision:
        known = users[row].items_revision
        first = users[row].recent_at
        for slot in range(first, first + users[row].recent_n):
            if changed_at[recents[slot].item] > known:
                return True
        first = users[row].tally_at
        for place in range(first, first + users[row].tally_n):
            if changed_at[tallies[place].item] > known:
                return True
        users[row].items_revision = revision
    if users[row].folds == 0:
        return False
    short, long = _length(sums[row, SHORT]), _length(sums[row, LONG])
    return bool(short < CANCELLED * users[row].peak[SHORT] or long < CANCELLED * users[row].peak[LONG])


@compiled
def gather(
    users: Records, recents: Records, tallies: Records, sums: Float32, vectors: Float32, changed_at: Int64,
    revision: int, weights: Float64, negative: Bool, half_lives_ms: Float64, rows: Int64, out: Float32,
) -> None:  # fmt: skip
    """Write short, long and negative of each row, as of the user's newest interaction, to `out` (n, 3, dim)."""
    wide = np.empty(sums.shape[2], np.float64)
    for at in range(len(rows)):
        row = rows[at]
        if _must_rebuild(users, recents, tallies, sums, changed_at, revision, row):
            rebuild(users, recents, tallies, sums, vectors, revision, weights, negative, half_lives_ms, row)
        out[at, SHORT] = sums[row, SHORT]
        out[at, LONG] = sums[row, LONG]
        wide[:] = 0.0
        first, used = users[row].recent_at, users[row].recent_n
        newest = recents[first + used - 1].ts if used else 0
        for slot in range(first, first + used):
            kind = recents[slot].kind
            if negative[kind]:
                weight = weights[kind] * math.exp2((recents[slot].ts - newest) / half_lives_ms[NEGATIVE])
                _add_wide(wide, vectors[recents[slot].item], weight)
        for axis in range(len(wide)):
            out[at, NEGATIVE, axis] = wide[axis]
