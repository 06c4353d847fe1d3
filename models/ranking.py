"""What users ask for and how a list is scored; `models.scan` finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.reranking import RerankParameters

Floats = npt.NDArray[np.float32]

#: Scores are compared in steps of this, so that the last bits of a matrix product decide nothing.
SCORE_STEP: Final = 1e-5


@dataclass(frozen=True, slots=True)
class RankingParameters(RerankParameters):
    """
    How a list is scored, and what is made of the ranking; an experiment's variant may change any of these.

    Attributes
    ----------
    short, long
        Weight of the direction of the short and of the long interest vector.
    negative
        What likeness to the negative vector costs; unlikeness earns nothing.
    popularity
        Weight of decayed popularity, which lies in 0..1.
    neighbours, history, followers, repeat
        Weight of what the user's newest events and whole history say through fitted neighbours, of what follows the
        newest events in sessions, and of the items of the user's own history; each lies in 0..1.
    half_life_events
        Events after which an event counts half in `neighbours`; 0 lets the newest alone count.
    exclude_seen
        Whether items of the user's history stay out of the list.
    repurchase_interval_days
        How long a purchased item stays out; a disliked one does for good.
    segment
        Weight of popularity in the user's segment, which lies in 0..1, less the more is known of the user; see
        `models.segments`.
    trending
        Weight, where nothing is of the present session, of how much demand for an item rises, which lies in 0..1.
    category
        Weight of an item's popularity among those of its category times the category's share of the user's events,
        both 1 where they are greatest.
    price
        Weight of how near an item's price is to those of the user's events, which lies in 0..1; see `models.prices`.
    interests
        Weight of likeness to the nearest of up to three interests of the whole history, by that one's importance; see
        `models.medoids`.
    network
        Weight of what a learned scorer says of an item, which lies in 0..1; see `models.scorer`.

    """

    short: float = 0.3
    long: float = 0.4
    negative: float = 0.3
    popularity: float = 0.05
    neighbours: float = 0.8
    history: float = 0.65
    followers: float = 0.65
    repeat: float = 6.0
    half_life_events: float = 15.0
    exclude_seen: bool = True
    repurchase_interval_days: float = 30.0
    segment: float = 0.0
    trending: float = 0.8
    category: float = 0.3
    price: float = 0.0
    interests: float = 0.0
    network: float = 0.0


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


class Weights(NamedTuple):
    """
    The weights of n users.

    Attributes
    ----------
    vectors
        (n, 4) float64, of the short, long and negative vector and of popularity.
    voices
        (n, 4) float64, of neighbours, followers, repeats and history.
    half_lives_events
        (n,) float64.
    exclude_seen
        (n,) bool.
    repurchase_ms
        (n,) float64.
    segment, trending, category, price, interests, network
        (n,) float64.

    """

    vectors: npt.NDArray[np.float64]
    voices: npt.NDArray[np.float64]
    half_lives_events: npt.NDArray[np.float64]
    exclude_seen: npt.NDArray[np.bool_]
    repurchase_ms: npt.NDArray[np.float64]
    segment: npt.NDArray[np.float64]
    trending: npt.NDArray[np.float64]
    category: npt.NDArray[np.float64]
    price: npt.NDArray[np.float64]
    interests: npt.NDArray[np.float64]
    network: npt.NDArray[np.float64]

    @classmethod
    def of(cls, parameters: Sequence[RankingParameters]) -> Weights:
        """Return the weights of each user."""
        rows = [
            (
                p.short, p.long, p.negative, p.popularity, p.neighbours, p.followers, p.repeat, p.history,
                p.half_life_events, p.repurchase_interval_days, p.segment, p.trending,
                p.category, p.price, p.interests, p.network,
            )
            for p in parameters
        ]  # fmt: skip
        table = np.array(rows, np.float64).reshape(-1, 16)
        return cls(
            np.ascontiguousarray(table[:, :4]),
            np.ascontiguousarray(table[:, 4:8]),
            np.ascontiguousarray(table[:, 8]),
            np.array([p.exclude_seen for p in parameters], np.bool_),
            86_400_000.0 * table[:, 9],
            np.ascontiguousarray(table[:, 10]),
            np.ascontiguousarray(table[:, 11]),
            np.ascontiguousarray(table[:, 12]),
            np.ascontiguousarray(table[:, 13]),
            np.ascontiguousarray(table[:, 14]),
            np.ascontiguousarray(table[:, 15]),
        )


def queries(short: Floats, long: Floats, negative: Floats, of_vectors: npt.NDArray[np.float64]) -> Queries:
    """
    Return the queries of n users from their interest vectors, each (n, d) float32 of any length.

    Parameters
    ----------
    short, long, negative
        The decayed sums of item vectors; only their directions count.
    of_vectors
        See `Weights`.

    """
    weights = of_vectors.astype(np.float32)
    interest = weights[:, 0:1] * unit(short) + weights[:, 1:2] * unit(long)
    return Queries(interest, weights[:, 2:3] * unit(negative), np.ascontiguousarray(weights[:, 3]))


def nothing_barred(users: int) -> Barred:
    """Return what bars nothing from anyone."""
    return Barred(np.empty(0, np.int32), np.zeros(users, np.int64))
