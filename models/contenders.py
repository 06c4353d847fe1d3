"""
Which rows may still be among the k best of each query: compiled, for `models.scan`.

A query has a heap of its best rows, scored exactly, and rows that wait to be scored, of which only bounds are known.
Its threshold is what k of its rows are sure to reach. A row that cannot reach it is gone; the others wait until the
buffer is full or the search ends. However many rows tie, memory stays what it was.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.asked import GROUP, SLACK, Asked
from models.compiled import compiled
from models.quantisation import Floats, Quantised
from models.ranking import SCORE_STEP, Top
from models.reasons import dot

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

#: Rounding to steps brings scores together that lie a step apart; two leave room for the bounds' own rounding.
_STEPS_APART = np.float32(2 * SCORE_STEP)
_STEPS = 1 / SCORE_STEP
ORDER_BITS = 32
_ORDER_MASK = (1 << ORDER_BITS) - 1
#: Rounded scores beyond this would leave the upper half of a key.
_MAX_STEPS = float(2**30)
_LOWEST = np.float32(-np.inf)


class Rows(NamedTuple):
    """
    What is searched.

    Attributes
    ----------
    vectors
        (m, d) float32.
    coded
        Their codes, (m, ...) each.
    popularity
        (m,) float32.
    usable
        (m,) bool: which rows may be listed at all.
    order
        (m,) int64, distinct in 0..2^32-1: the smaller wins a tie.

    """

    vectors: Floats
    coded: Quantised
    popularity: Floats
    usable: Flags
    order: Ints


class Found(NamedTuple):
    """
    What is known of n queries: a heap of exact keys (n, k), and rows (n, capacity) that wait to be scored.

    Of the waiting rows the first `bounded` have bounds, the rest have products. `threshold` (n,) is what a row must be
    able to reach; it only rises.
    """

    keys: Ints
    rows: Ints
    size: Ints
    waiting: npt.NDArray[np.int32]
    product: npt.NDArray[np.int32]
    unlike: npt.NDArray[np.int32]
    low: Floats
    high: Floats
    filled: Ints
    bounded: Ints
    threshold: Floats
    scratch: Floats


def nothing_found(count: int, k: int) -> Found:
    """Return what is known of queries before they saw a row."""
    # Eight times k: the k-th best is looked for seldom, and near-ties seldom fill what is left.
    capacity = max(8 * k, 256)
    return Found(
        keys=np.full((count, k), np.iinfo(np.int64).min, np.int64),
        rows=np.full((count, k), -1, np.int64),
        size=np.zeros(count, np.int64),
        waiting=np.empty((count, capacity), np.int32),
        product=np.empty((count, capacity), np.int32),
        unlike=np.empty((count, capacity), np.int32),
        low=np.empty((count, capacity), np.float32),
        high=np.empty((count, capacity), np.float32),
        filled=np.zeros(count, np.int64),
        bounded=np.zeros(count, np.int64),
        threshold=np.full(count, _LOWEST, np.float32),
        scratch=np.empty(capacity, np.float32),
    )


@compiled
def _key(query: int, row: int, searched: Rows, asked: Asked) -> int:
    """Return a row's exact score in steps, and below it the complement of its order."""
    score = np.float64(asked.popularity[query]) * np.float64(searched.popularity[row])
    if searched.coded.length[row] > 0 or searched.coded.residual[row] > 0:
        vector = searched.vectors[row]
        score += dot(asked.interest[query], vector)
        if asked.negative_lane[query] >= 0:
            score -= max(dot(asked.negative[query], vector), 0.0)
    steps = np.int64(np.rint(min(max(score * _STEPS, -_MAX_STEPS), _MAX_STEPS)))
    return int((steps << ORDER_BITS) | (_ORDER_MASK - searched.order[row]))


@compiled
def _raise_threshold(query: int, least: np.float32, found: Found) -> None:
    """Take note that k rows score at least so much; float32 and the rounding to steps may have moved it."""
    least -= _STEPS_APART + abs(least) * SLACK
    found.threshold[query] = max(found.threshold[query], least)


@compiled
def _put(query: int, row: int, key: int, found: Found) -> None:
    """Put an exact key on the query's heap, whose least comes first; raise the threshold when that is full."""
    keys, rows = found.keys[query], found.rows[query]
    full = found.size[query] == len(keys)
    if full and key <= keys[0]:
        return
    if full:
        place = 0
        while 2 * place + 1 < len(keys):
            child = 2 * place + 1
            if child + 1 < len(keys) and keys[child + 1] < keys[child]:
                child += 1
            if keys[child] >= key:
                break
            keys[place], rows[place] = keys[child], rows[child]
            place = child
    else:
        place = found.size[query]
        found.size[query] += 1
        while place and keys[(place - 1) // 2] > key:
            above = (place - 1) // 2
            keys[place], rows[place] = keys[above], rows[above]
            place = above
    keys[place], rows[place] = key, row
    if found.size[query] == len(keys):
        _raise_threshold(query, np.float32((keys[0] >> ORDER_BITS) * SCORE_STEP), found)


@compiled
def _kth_largest(values: Floats, size: int, k: int) -> np.float32:
    """Return the k-th largest of the first values, which are put into another order (Hoare's quickselect)."""
    left, right = 0, size - 1
    while left < right:
        pivot = values[(left + right) // 2]
        up, down = left, right
        while up <= down:
            while values[up] > pivot:
                up += 1
            while values[down] < pivot:
                down -= 1
            if up <= down:
                values[up], values[down] = values[down], values[up]
                up += 1
                down -= 1
        if k - 1 <= down:
            right = down
        elif k - 1 >= up:
            left = up
        else:
            break
    return np.float32(values[k - 1])


@compiled
def _is_barred(query: int, row: int, asked: Asked) -> bool:
    left, right = asked.barred_start[query], asked.barred_start[query + 1]
    while left < right:
        middle = (left + right) // 2
        if asked.barred[middle] < row:
            left = middle + 1
        else:
            right = middle
    return bool(left < asked.barred_start[query + 1] and asked.barred[left] == row)


@compiled
def _bound(query: int, searched: Rows, asked: Asked, found: Found) -> None:
    """Give waiting rows their bounds, and drop those that do not reach the threshold or may not be listed."""
    coded = searched.coded
    kept = found.bounded[query]
    for place in range(kept, found.filled[query]):
        row = found.waiting[query, place]
        scale, residual, length = coded.scale[row], coded.residual[row], coded.length[row]
        score = np.float32(found.product[query, place]) * (scale * asked.scale[query])
        score += searched.popularity[row] * asked.popularity[query]
        error = asked.near[query] * residual + asked.far[query] * length + asked.fixed[query]
        low, high = score - error, score + error
        if asked.negative_lane[query] >= 0:
            unlike = np.float32(found.unlike[query, place]) * (scale * asked.negative_scale[query])
            error = asked.negative_near[query] * residual + asked.negative_far[query] * length
            low -= max(unlike + error, np.float32(0))
            high -= max(unlike - error, np.float32(0))
        if high >= found.threshold[query] and not _is_barred(query, row, asked):
            found.waiting[query, kept], found.low[query, kept], found.high[query, kept] = row, low, high
            kept += 1
    found.bounded[query] = found.filled[query] = kept


@compiled
def _tighten(query: int, searched: Rows, asked: Asked, found: Found) -> np.float32:
    """Drop waiting rows that k others are sure to beat; return a low bound of the k-th best among the waiting."""
    _bound(query, searched, asked, found)
    k = found.keys.shape[1]
    count = found.filled[query]
    if count < k:
        return _LOWEST
    for place in range(count):
        found.scratch[place] = found.low[query, place]
    sure = _kth_largest(found.scratch, count, k)
    _raise_threshold(query, sure, found)
    kept = 0
    for place in range(count):
        if found.high[query, place] >= found.threshold[query]:
            found.waiting[query, kept] = found.waiting[query, place]
            found.low[query, kept] = found.low[query, place]
            found.high[query, kept] = found.high[query, place]
            kept += 1
    found.bounded[query] = found.filled[query] = kept
    return sure


@compiled
def _score_waiting(query: int, searched: Rows, asked: Asked, found: Found) -> None:
    """Score waiting rows exactly: first the k surest, which raises the threshold, then who still reaches it."""
    sure = _tighten(query, searched, asked, found)
    for place in range(found.filled[query]):
        if found.low[query, place] >= sure:
            row = found.waiting[query, place]
            _put(query, row, _key(query, row, searched, asked), found)
    for place in range(found.filled[query]):
        if found.low[query, place] < sure and found.high[query, place] >= found.threshold[query]:
            row = found.waiting[query, place]
            _put(query, row, _key(query, row, searched, asked), found)
    found.bounded[query] = found.filled[query] = 0


@compiled
def _make_room(query: int, searched: Rows, asked: Asked, found: Found) -> None:
    """Take rows off a full buffer of waiting ones."""
    _tighten(query, searched, asked, found)
    # Near-ties in such a number have to be scored: the buffer stays as it is, however many there are.
    if 4 * found.filled[query] > 3 * found.waiting.shape[1]:
        _score_waiting(query, searched, asked, found)


@compiled
def collect(products: npt.NDArray[np.int32], rows: Ints, searched: Rows, asked: Asked, found: Found) -> None:
    """Let those rows (p,) wait that may be among the best, by their products (p, lanes) int32 with the queries."""
    for first in range(0, len(asked.scale), GROUP):
        some = slice(first, first + GROUP)
        threshold = found.threshold[some]
        bounds = _Bounds(
            asked.scale[some], asked.popularity[some], asked.near[some], asked.far[some], asked.fixed[some]
        )
        for index in range(len(rows)):
            row = rows[index]
            if not searched.usable[row]:
                continue
            line = products[index, some]
            # Nothing is kept here, so that it is one step for all queries of the group.
            reached = 0
            for lane in range(GROUP):
                reached += _highest(line, row, lane, searched, bounds) >= threshold[lane]
            if not reached:
                continue
            for lane in range(GROUP):
                if _highest(line, row, lane, searched, bounds) >= threshold[lane]:
                    _wait(first + lane, row, products[index], searched, asked, found)


class _Bounds(NamedTuple):
    """What bounds the scores of a group of queries, (GROUP,) each: see `Asked`."""

    scale: Floats
    popularity: Floats
    near: Floats
    far: Floats
    fixed: Floats


@compiled
def _highest(products: npt.NDArray[np.int32], row: int, lane: int, searched: Rows, bounds: _Bounds) -> np.float32:
    """Return what a row scores at most, by its products (GROUP,); dislikes are left out."""
    coded = searched.coded
    high = np.float32(products[lane]) * (coded.scale[row] * bounds.scale[lane])
    high += searched.popularity[row] * bounds.popularity[lane]
    high += bounds.near[lane] * coded.residual[row] + bounds.far[lane] * coded.length[row] + bounds.fixed[lane]
    return np.float32(high)


@compiled
def _wait(query: int, row: int, products: npt.NDArray[np.int32], searched: Rows, asked: Asked, found: Found) -> None:
    """Let a row wait, by its products (lanes,) with all queries."""
    place = found.filled[query]
    found.waiting[query, place] = row
    found.product[query, place] = products[query]
    if asked.negative_lane[query] >= 0:
        found.unlike[query, place] = products[asked.negative_lane[query]]
    found.filled[query] = place + 1
    if place + 1 == found.waiting.shape[1]:
        _make_room(query, searched, asked, found)


@compiled
def expect(products: npt.NDArray[np.int32], rows: Ints, rank: int, searched: Rows, asked: Asked, found: Found) -> None:
    """
    Let each query's threshold be what the `rank`-th best of some rows scores by its codes; nothing was collected yet.

    Rows below it are then passed over, though nothing proves that k rows reach it: whoever calls this looks at the end
    whether they did.
    """
    for query in range(len(asked.interest)):
        # Nothing waits yet.
        best, filled = found.low[query], 0
        for index in range(len(rows)):
            row = rows[index]
            scale = searched.coded.scale[row]
            score = np.float32(products[index, query]) * (scale * asked.scale[query])
            score += searched.popularity[row] * asked.popularity[query]
            if filled == rank and score <= best[rank - 1]:
                continue
            lane = asked.negative_lane[query]
            if lane >= 0:
                unlike = np.float32(products[index, lane]) * (scale * asked.negative_scale[query])
                score -= max(unlike, np.float32(0))
            if not searched.usable[row] or _is_barred(query, row, asked):
                continue
            at = min(filled, rank - 1)
            if filled == rank and score <= best[at]:
                continue
            while at > 0 and best[at - 1] < score:
                best[at] = best[at - 1]
                at -= 1
            best[at] = score
            filled = min(filled + 1, rank)
        if filled == rank:
            found.threshold[query] = best[rank - 1]


@compiled
def take(candidates: Ints, searched: Rows, asked: Asked, found: Found) -> None:
    """Score candidates (n, c) of each query; -1, rows out of use and barred ones are passed over."""
    for query in range(candidates.shape[0]):
        for place in range(candidates.shape[1]):
            row = candidates[query, place]
            if row >= 0 and searched.usable[row] and not _is_barred(query, row, asked):
                _put(query, row, _key(query, row, searched, asked), found)


@compiled
def settle(searched: Rows, asked: Asked, found: Found) -> None:
    """Score what still waits."""
    for query in range(len(found.filled)):
        _score_waiting(query, searched, asked, found)


@compiled
def ranked(found: Found, top: Top) -> None:
    """Write the best of each query into `top`, best first; it is empty before."""
    for query in range(len(top.columns)):
        keys, rows = found.keys[query], found.rows[query]
        for place in range(1, found.size[query]):
            key, row, at = keys[place], rows[place], place
            while at > 0 and keys[at - 1] < key:
                keys[at], rows[at] = keys[at - 1], rows[at - 1]
                at -= 1
            keys[at], rows[at] = key, row
        for place in range(found.size[query]):
            top.columns[query, place], top.steps[query, place] = rows[place], keys[place] >> ORDER_BITS
