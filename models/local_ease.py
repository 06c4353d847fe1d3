"""
Item-to-item weights of EASE for more items than a dense inverse can hold: each item's column solved by itself.

A column of EASE is a ridge regression of one item on all the others. Here it is one on the items that explain it best,
its support: the solution of (G + regularisation x I) b = g restricted to them. With every item in the support that is
EASE, otherwise a sparse approximate inverse column by column, as by Kolotilina and Yeremin ("Factorized sparse
approximate inverse preconditionings", 1993); Spišák et al. (SANSA, RecSys 2023) approximate EASE by another. No column
needs another one, so there is never a matrix of all pairs.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from models.compiled import compiled
from models.ease import Floats, Weights, co_occurrences

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

#: Items whose pairs are counted beforehand: the matrix takes 256 MB, and items beyond are met by few.
DENSE: Final = 8_000
#: Columns solved at once: their systems of 200 equations take 10 MB.
_BATCH: Final = 64


class _Index(NamedTuple):
    """
    Who met each item, and what they met.

    Attributes
    ----------
    histories
        (users, w) int32, see `fit_local`.
    starts
        (items + 1,) int64, where each item's users begin in `users`.
    users
        (e,) int32.

    """

    histories: Int32
    starts: Int64
    users: Int32


class _Systems(NamedTuple):
    """
    The equations of a batch of columns.

    Attributes
    ----------
    supports
        (b, s) int32, -1 behind the last, where the equations say that nothing is 0.
    grams
        (b, s, s) float32.
    sides
        (b, s) float32, right sides.

    """

    supports: Int32
    grams: Floats
    sides: Floats


class _Scratch(NamedTuple):
    """By item: how often it was met with the column's item, its place in the support or -1, and which were met."""

    counts: Int32
    places: Int32
    touched: Int32
    gains: Floats


def fit_local(
    histories: Int32, items: int, regularisation: float, support: int, kept: int, dense: int = DENSE
) -> Weights:
    """
    Return the weights of each item that are farthest from 0, the farthest first.

    Memory is 4 bytes for each pair of the `dense` items and 8 for each entry of the histories. Time grows with the
    items, times the cube of the support, and times the users of a support's items beyond the `dense` ones.

    Parameters
    ----------
    histories
        (users, w) int32, distinct items of each user, ordered by how many users met them; -1 where there is none.
    regularisation
        Above 0; the greater, the fewer histories are believed.
    support
        Items that a column is fitted on, at most.
    dense
        Items whose pairs are counted beforehand.
    kept
        Weights kept of each item.

    Raises
    ------
    ValueError
        When a system is not positive definite.

    """
    starts, users = np.zeros(items + 1, np.int64), np.empty(int(np.count_nonzero(histories >= 0)), np.int32)
    _invert(histories, starts, users)
    index = _Index(histories, starts, users)
    dense = min(dense, items)
    gram = co_occurrences(histories, dense)
    met = np.diff(starts).astype(np.int32)
    support = max(1, min(support, items - 1))
    targets, weights = np.full((items, kept), -1, np.int32), np.zeros((items, kept), np.float32)
    systems = _Systems(
        np.empty((_BATCH, support), np.int32), np.empty((_BATCH, support, support), np.float32),
        np.empty((_BATCH, support), np.float32),
    )  # fmt: skip
    scratch = _Scratch(
        np.zeros(items, np.int32), np.full(items, -1, np.int32), np.empty(items, np.int32), np.empty(items, np.float32)
    )
    for first in range(0, items, _BATCH):
        count = min(_BATCH, items - first)
        _pose(index, met, gram, first, count, regularisation, systems, scratch)
        factors, failed = torch.linalg.cholesky_ex(torch.from_numpy(systems.grams[:count]))
        if failed.any():
            raise ValueError("the matrix is not positive definite")
        found = torch.cholesky_solve(torch.from_numpy(systems.sides[:count, :, None]), factors).numpy()[:, :, 0]
        _keep(np.ascontiguousarray(found), systems.supports, first, targets, weights)
    order = np.argsort(-np.abs(weights), axis=1, kind="stable")
    return Weights(np.take_along_axis(targets, order, axis=1), np.take_along_axis(weights, order, axis=1))


@compiled
def _invert(histories: Int32, starts: Int64, users: Int32) -> None:
    """Write the users of each item one behind another; `starts` are zeros before."""
    items = len(starts) - 1
    for user in range(histories.shape[0]):
        for place in range(histories.shape[1]):
            if histories[user, place] >= 0:
                starts[histories[user, place] + 1] += 1
    for item in range(items):
        starts[item + 1] += starts[item]
    # The starts move while users are written, each to that of the next item; then they are moved back.
    for user in range(histories.shape[0]):
        for place in range(histories.shape[1]):
            item = histories[user, place]
            if item >= 0:
                users[starts[item]] = user
                starts[item] += 1
    for item in range(items, 0, -1):
        starts[item] = starts[item - 1]
    starts[0] = 0


@compiled
def _pose(
    index: _Index, met: Int32, gram: Floats, first: int, count: int, regularisation: float, systems: _Systems,
    scratch: _Scratch,
) -> None:  # fmt: skip
    """Write the equations of the columns `first` to `first + count`."""
    for number in range(count):
        support = systems.supports[number]
        touched = _meet(index, first + number, scratch)
        size = _choose(first + number, met, touched, regularisation, support, scratch)
        matrix, side = systems.grams[number], systems.sides[number]
        matrix[:] = 0.0
        side[:] = 0.0
        for place in range(len(support)):
            matrix[place, place] = regularisation if place < size else 1.0
        for place in range(size):
            side[place] = scratch.counts[support[place]]
            scratch.places[support[place]] = place
        _count(index, gram, support, size, matrix, scratch)
        for place in range(size):
            scratch.places[support[place]] = -1
        for place in range(touched):
            scratch.counts[scratch.touched[place]] = 0


@compiled
def _meet(index: _Index, item: int, scratch: _Scratch) -> int:
    """Count what the users of an item met besides; return how many other items that are."""
    touched = 0
    for at in range(index.starts[item], index.starts[item + 1]):
        user = index.users[at]
        for place in range(index.histories.shape[1]):
            other = index.histories[user, place]
            if other >= 0 and other != item:
                if scratch.counts[other] == 0:
                    scratch.touched[touched] = other
                    touched += 1
                scratch.counts[other] += 1
    return touched


@compiled
def _choose(column: int, met: Int32, touched: int, regularisation: float, support: Int32, scratch: _Scratch) -> int:
    """
    Write the items that explain most of the column by themselves, in no order; return how many.

    That is what a regression on one of them alone takes off the error: the square of the count by the item's own.
    Of equals the one that more users met.
    """
    heap, gains, size = support, scratch.gains, 0
    for place in range(touched):
        item = scratch.touched[place]
        gains[item] = np.float32(scratch.counts[item]) ** 2 / np.float32(met[item] + regularisation)
        if size < len(heap):
            heap[size] = item
            size += 1
            if size == len(heap):
                for root in range(size // 2 - 1, -1, -1):
                    _sink(heap, gains, root, size)
        elif _is_less(gains, heap[0], item):
            heap[0] = item
            _sink(heap, gains, 0, size)
    # Where it was met with fewer, those most met fill the rest: what it was never met with speaks against it.
    item = 0
    while size < len(support) and item < len(met):
        if item != column and scratch.counts[item] == 0:
            support[size] = item
            size += 1
        item += 1
    support[size:] = -1
    return size


@compiled
def _is_less(gains: Floats, one: int, other: int) -> bool:
    return bool(gains[one] < gains[other] or (gains[one] == gains[other] and one > other))


@compiled
def _sink(heap: Int32, gains: Floats, root: int, size: int) -> None:
    """Let an item sink to its place in a heap of `size` whose least is on top."""
    while 2 * root + 1 < size:
        least = 2 * root + 1
        if least + 1 < size and _is_less(gains, heap[least + 1], heap[least]):
            least += 1
        if not _is_less(gains, heap[least], heap[root]):
            return
        heap[root], heap[least] = heap[least], heap[root]
        root = least


@compiled
def _count(index: _Index, gram: Floats, support: Int32, size: int, matrix: Floats, scratch: _Scratch) -> None:
    """Add how often the items of a support met each other: the most met from the matrix, the others by their users."""
    dense = len(gram)
    for place in range(size):
        item = support[place]
        if item < dense:
            for other in range(size):
                if support[other] < dense:
                    matrix[place, other] += gram[item, support[other]]
            continue
        for at in range(index.starts[item], index.starts[item + 1]):
            user = index.users[at]
            for step in range(index.histories.shape[1]):
                met = index.histories[user, step]
                if met >= 0 and scratch.places[met] >= 0:
                    other = scratch.places[met]
                    matrix[place, other] += 1.0
                    if met < dense:
                        matrix[other, place] += 1.0


@compiled
def _keep(found: Floats, supports: Int32, first: int, targets: Int32, weights: Floats) -> None:
    """Keep the weights of some columns where they are among the heaviest of their rows, in no order."""
    for number in range(len(found)):
        for place in range(found.shape[1]):
            item, weight = supports[number, place], found[number, place]
            if item < 0 or weight == 0.0:
                continue
            least = 0
            for slot in range(weights.shape[1]):
                if abs(weights[item, slot]) < abs(weights[item, least]):
                    least = slot
            if abs(weight) > abs(weights[item, least]):
                targets[item, least], weights[item, least] = first + number, weight
