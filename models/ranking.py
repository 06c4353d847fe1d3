"""What users ask for and how a list is scored; `models.scan` finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: Scores are compared in steps of this, so that the last bits of a matrix product decide nothing.
SCORE_STEP: Final = 1e-5


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


def nothing_barred(users: int) -> Barred:
    """Return what bars nothing from anyone."""
    return Barred(np.empty(0, np.int32), np.zeros(users, np.int64))
