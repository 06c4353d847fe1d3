"""Scores of users against items, and exact top-k with a total order, in blocks so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: Scores are compared in steps of this, so that the last bits of a matrix product decide nothing.
SCORE_STEP = 1e-5
#: Items of one block: 256 users x 8,192 scores and their keys are 24 MB, which a core's cache levels still help with.
BLOCK_ITEMS = 8_192
#: Users of one block: the larger sizes gain nothing in the matrix product.
BLOCK_USERS = 256

_ORDER_BITS = 32
_ORDER_MASK = (1 << _ORDER_BITS) - 1
_NEVER = np.int64(np.iinfo(np.int64).min)
#: Rounded scores beyond this would leave the upper half of a key.
_MAX_STEPS = np.float32(2**30)


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
    """Best items of each user, best first: columns (n, k) int64 and scores (n, k) float32; -1 and -inf where none."""

    columns: npt.NDArray[np.int64]
    scores: Floats


class Masked(NamedTuple):
    """Pairs that may not be listed: users (p,) and columns (p,), both int64."""

    users: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]


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


def score(asked: Queries, item_vectors: Floats, popularity: Floats) -> Floats:
    """
    Return the scores (n, m) of m items for n users.

    A score is `interest . v - max(0, negative . v) + popularity weight * popularity`.

    Parameters
    ----------
    asked
        From `queries`.
    item_vectors
        (m, d) float32 unit rows; zeros for items without a vector.
    popularity
        (m,) float32 in 0..1.

    """
    scores = asked.interest @ item_vectors.T
    # Few users dislike anything: the second product is made for those only.
    disliking = np.flatnonzero(asked.negative.any(axis=1))
    if disliking.size:
        scores[disliking] -= np.maximum(asked.negative[disliking] @ item_vectors.T, 0)
    scores += asked.popularity[:, None] * popularity
    return scores


def top_k(scores: Floats, order: npt.NDArray[np.int64], k: int, masked: Masked | None = None) -> Top:
    """
    Return each user's k best items, exactly: by score in steps of `SCORE_STEP`, ties by `order`.

    Parameters
    ----------
    scores
        (n, m) float32; -inf is never listed.
    order
        (m,) distinct ranks of the items, the smaller wins a tie: the place of the item's id among all sorted ids.
    k
        Most items for each user.
    masked
        Pairs that may not be listed.

    >>> top_k(np.array([[0.5, 0.7, 0.5]], np.float32), np.array([2, 1, 0]), k=2).columns.tolist()
    [[1, 2]]

    """
    keys = _best_keys(_keys(scores, order, masked), k)
    return _decode(keys, np.argsort(order), np.sort(order), k)


def search(
    asked: Queries, item_vectors: Floats, popularity: Floats, listed: npt.NDArray[np.bool_],
    order: npt.NDArray[np.int64], k: int, masked: Masked | None = None, block_items: int = BLOCK_ITEMS,
) -> Top:  # fmt: skip
    """
    Return each user's k best listed items; the same as `top_k` of all scores, made block by block.

    Parameters
    ----------
    listed
        (m,) bool, which items may be listed at all.
    order
        (m,) int64, a permutation of 0..m-1: the place of each item's id among all sorted ids.

    """
    by_order = np.empty(len(order), np.int64)
    by_order[order] = np.arange(len(order))
    parts = [
        _search_users(Queries(*(part[users] for part in asked)), item_vectors, popularity, listed, order, k,
                      _of_users(masked, users), block_items)
        for users in _slices(len(asked.interest), BLOCK_USERS)
    ]  # fmt: skip
    keys = np.concatenate(parts) if parts else np.empty((0, 0), np.int64)
    return _decode(keys, by_order, np.arange(len(order)), k)


def _search_users(
    asked: Queries, item_vectors: Floats, popularity: Floats, listed: npt.NDArray[np.bool_],
    order: npt.NDArray[np.int64], k: int, masked: Masked | None, block_items: int,
) -> npt.NDArray[np.int64]:  # fmt: skip
    """Return the k best keys of at most `BLOCK_USERS` users, best first."""
    best = np.empty((len(asked.interest), 0), np.int64)
    for items in _slices(len(order), block_items):
        scores = score(asked, item_vectors[items], popularity[items])
        scores[:, ~listed[items]] = -np.inf
        keys = _keys(scores, order[items], _of_items(masked, items))
        best = _best_keys(np.concatenate([best, _best_keys(keys, k)], axis=1), k)
    return best


def _slices(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def _of_users(masked: Masked | None, users: slice) -> Masked | None:
    if masked is None:
        return None
    inside = (masked.users >= users.start) & (masked.users < users.stop)
    return Masked(masked.users[inside] - users.start, masked.columns[inside])


def _of_items(masked: Masked | None, items: slice) -> Masked | None:
    if masked is None:
        return None
    inside = (masked.columns >= items.start) & (masked.columns < items.stop)
    return Masked(masked.users[inside], masked.columns[inside] - items.start)


def _keys(scores: Floats, order: npt.NDArray[np.int64], masked: Masked | None) -> npt.NDArray[np.int64]:
    """
    Pack score and tie order into one integer each, so that one partition of plain integers selects exactly.

    The upper 32 bits hold the rounded score, the lower ones the complement of the order.
    """
    steps = np.rint(np.clip(scores * np.float32(1 / SCORE_STEP), -_MAX_STEPS, _MAX_STEPS))
    keys: npt.NDArray[np.int64] = steps.astype(np.int64)
    keys <<= _ORDER_BITS
    keys |= _ORDER_MASK - order
    keys[np.isneginf(scores)] = _NEVER
    if masked is not None:
        keys[masked.users, masked.columns] = _NEVER
    return keys


def _best_keys(keys: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.int64]:
    """Return the k greatest of each row, greatest first."""
    if keys.shape[1] > k:
        keys = np.partition(keys, keys.shape[1] - k, axis=1)[:, -k:]
    descending: npt.NDArray[np.int64] = np.sort(keys, axis=1)[:, ::-1]
    return descending


def _decode(keys: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], orders: npt.NDArray[np.int64], k: int) -> Top:
    """Unpack sorted keys; `columns[i]` is the column whose order is `orders[i]`, which ascends."""
    top = Top(np.full((len(keys), k), -1, np.int64), np.full((len(keys), k), -np.inf, np.float32))
    found = keys != _NEVER
    order = _ORDER_MASK - (keys[found] & _ORDER_MASK)
    width = keys.shape[1]
    top.columns[:, :width][found] = columns[np.searchsorted(orders, order)]
    top.scores[:, :width][found] = (keys[found] >> _ORDER_BITS) * SCORE_STEP
    return top
