"""Scores of users against items, and exact top-k with a total order, in blocks so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled

Floats = npt.NDArray[np.float32]

#: Scores are compared in steps of this, so that the last bits of a matrix product decide nothing.
SCORE_STEP: Final = 1e-5
#: Items of one block: 64 users x 8,192 scores are 2 MB, which a core's second cache holds until they were looked at.
BLOCK_ITEMS = 8_192
#: Users of one block: larger sizes gain nothing in the matrix product.
BLOCK_USERS = 64

_STEPS: Final = np.float32(1 / SCORE_STEP)
#: Rounded scores stop here, so that they fit 32 bits.
_MAX_STEPS: Final = np.float32(2**30)


@dataclass(frozen=True, slots=True)
class RankingParameters:
    """
    How a list is scored; an experiment's variant may change any of these.

    Attributes
    ----------
    short, long
        Weight of the direction of the short and of the long interest vector.
    negative
        What likeness to the negative vector costs; unlikeness earns nothing.
    popularity
        Weight of decayed popularity, which lies in 0..1.
    exclude_seen
        Whether items among the user's recent events stay out of the list.

    """

    short: float = 0.6
    long: float = 0.4
    negative: float = 0.3
    popularity: float = 0.1
    exclude_seen: bool = True


class Queries(NamedTuple):
    """
    What a batch of users asks for.

    Attributes
    ----------
    interest
        (n, d) float32, the weighted sum of the unit interest vectors; zeros for users without.
    negative
        (n, d) float32, the unit negative vector times its weight; zeros for users without.
    popularity
        (n,) float32, the weight of popularity.

    """

    interest: Floats
    negative: Floats
    popularity: Floats


class Top(NamedTuple):
    """
    Best items of each user, best first.

    Attributes
    ----------
    columns
        (n, k) int64; -1 where there is none.
    steps
        (n, k) int64, scores in steps of `SCORE_STEP`.

    """

    columns: npt.NDArray[np.int64]
    steps: npt.NDArray[np.int64]


class Barred(NamedTuple):
    """
    Items that may not be listed for a user.

    Attributes
    ----------
    columns
        (p,) int32, those of one user behind those of another; columns that do not exist bar nothing.
    ends
        (n,) int64, where each user's end.

    """

    columns: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]


def unit(vectors: Floats) -> Floats:
    """
    Return the rows scaled to length 1; rows of zeros stay zero.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)).round(1).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return scaled


def queries(short: Floats, long: Floats, negative: Floats, parameters: Sequence[RankingParameters]) -> Queries:
    """
    Return the queries of n users from their interest vectors, each (n, d) float32 of any length.

    Parameters
    ----------
    short, long, negative
        The decayed sums of item vectors; only their directions count.
    parameters
        One for each user.

    """
    weights = np.array([(p.short, p.long, p.negative, p.popularity) for p in parameters], np.float32).reshape(-1, 4)
    interest = weights[:, 0:1] * unit(short) + weights[:, 1:2] * unit(long)
    return Queries(interest, weights[:, 2:3] * unit(negative), np.ascontiguousarray(weights[:, 3]))


def _likeness(asked: Queries, item_vectors: Floats) -> Floats:
    """Return the scores (m, n) without popularity."""
    # Items first: with few users that product is twice as fast as the other way round.
    scores: Floats = item_vectors @ asked.interest.T
    # Few users dislike anything: the second product is made for those only.
    disliking = np.flatnonzero(asked.negative.any(axis=1))
    if disliking.size:
        scores[:, disliking] -= np.maximum(item_vectors @ asked.negative[disliking].T, 0)
    return scores


def nothing_barred(users: int) -> Barred:
    """Return what bars nothing from anyone."""
    return Barred(np.empty(0, np.int32), np.zeros(users, np.int64))


def top_k(scores: Floats, order: npt.NDArray[np.int64], k: int, barred: Barred | None = None) -> Top:
    """
    Return each user's k best items, exactly: by score in steps of `SCORE_STEP`, ties by `order`.

    Parameters
    ----------
    scores
        (m, n) float32, a column for each user; -inf is never listed, and stands where an item was barred afterwards.
    order
        (m,) int64, distinct ranks of the items, the smaller wins a tie: the place of the item's id among all sorted
        ids.
    k
        Most items for each user.

    >>> top_k(np.array([[0.5], [0.7], [0.5]], np.float32), np.array([2, 1, 0]), k=2).columns.tolist()
    [[1, 2]]

    """
    items, users = scores.shape
    nothing = np.zeros(items, np.float32), np.zeros(users, np.float32)
    top = _empty(users, k)
    _offer(
        scores, *nothing, np.ones(items, np.bool_), order, 0, barred or nothing_barred(users), 0, top,
        _least_of(users),
    )  # fmt: skip
    return top


def search(
    asked: Queries, item_vectors: Floats, popularity: Floats, listed: npt.NDArray[np.bool_],
    order: npt.NDArray[np.int64], k: int, barred: Barred | None = None, block_items: int = BLOCK_ITEMS,
) -> Top:  # fmt: skip
    """
    Return each user's k best listed items; the same as `top_k` of all scores, made block by block.

    A score is `interest . v - max(0, negative . v) + popularity weight * popularity`.

    Parameters
    ----------
    asked
        From `queries`.
    item_vectors
        (m, d) float32 unit rows; zeros for items without a vector.
    popularity
        (m,) float32 in 0..1.
    listed
        (m,) bool, which items may be listed at all.
    order
        (m,) int64, distinct: the place of each item's id among all sorted ids.

    """
    users, items = len(asked.interest), len(order)
    barred = barred or nothing_barred(users)
    top, least = _empty(users, k), _least_of(users)
    for first in range(0, users, BLOCK_USERS):
        block = slice(first, first + BLOCK_USERS)
        part = Queries(*(of_all[block] for of_all in asked))
        best = Top(*(of_all[block] for of_all in top))
        for start in range(0, items, block_items):
            some = slice(start, start + block_items)
            scores = _likeness(part, item_vectors[some])
            _offer(
                scores, popularity[some], part.popularity, listed, order, start, barred, first, best, least[block]
            )  # fmt: skip
    return top


def _empty(users: int, k: int) -> Top:
    return Top(np.full((users, k), -1, np.int64), np.zeros((users, k), np.int64))


def _least_of(users: int) -> Floats:
    """Return what scores must reach while lists are not full."""
    return np.full(users, -np.inf, np.float32)


@compiled
def _offer(
    likeness: Floats, popularity: Floats, popularity_weights: Floats, listed: npt.NDArray[np.bool_],
    order: npt.NDArray[np.int64], start: int, barred: Barred, first_user: int, best: Top, least: Floats,
) -> None:  # fmt: skip
    """
    Put what is better than the least of each user's best in its place among them.

    Parameters
    ----------
    likeness, popularity
        (items of a block, n) and (items of a block,); the first item is column `start`, the first user is `first_user`
        of `barred`.
    popularity_weights
        (n,), what each user's score takes of popularity.
    best
        In and out, (n, k): sorted.
    least
        In and out, (n,): what a score must reach, in steps before rounding, to be listed.

    """
    items, users = likeness.shape
    for user in range(users):
        before = barred.ends[first_user + user - 1] if first_user + user else 0
        for place in range(before, barred.ends[first_user + user]):
            item = barred.columns[place] - start
            if 0 <= item < items:
                likeness[item, user] = -np.inf
    for item in range(items):
        column = start + item
        if not listed[column]:
            continue
        popular = popularity[item]
        promising = 0
        for user in range(users):
            promising += (likeness[item, user] + popularity_weights[user] * popular) * _STEPS >= least[user]
        if promising == 0:
            continue
        for user in range(users):
            scaled = (likeness[item, user] + popularity_weights[user] * popular) * _STEPS
            if scaled >= least[user] and scaled > -np.inf:
                step = int(np.rint(min(max(scaled, -_MAX_STEPS), _MAX_STEPS)))
                insert(best.columns[user], best.steps[user], order, column, step)
                least[user] = _least(best.columns[user], best.steps[user])


@compiled
def insert(
    columns: npt.NDArray[np.int64] | npt.NDArray[np.int32], steps: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64], column: int, step: int,
) -> int:  # fmt: skip
    """
    Put an item among a user's best, from the end on; the last one leaves. Return its place, the length if it has none.

    Parameters
    ----------
    columns, steps
        In and out, (k,): one row of a `Top`.

    """
    at = len(columns)
    while at > 0:
        other = columns[at - 1]
        if other >= 0 and (steps[at - 1] > step or (steps[at - 1] == step and order[other] < order[column])):
            break
        if at < len(columns):
            columns[at], steps[at] = other, steps[at - 1]
        at -= 1
    if at < len(columns):
        columns[at], steps[at] = column, step
    return at


@compiled
def _least(columns: npt.NDArray[np.int64], steps: npt.NDArray[np.int64]) -> np.float32:
    """Return what a score must reach to be among a user's best, in steps before rounding; a little less."""
    if columns[-1] < 0:
        return np.float32(-np.inf)
    # Half a step of rounding, and what a float32 of this size leaves out.
    return np.float32(steps[-1] - 1 - abs(steps[-1]) * 1e-6)
