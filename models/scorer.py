"""
The learned scorer as ranking runs it: f(x_u, x_i) = sum_j a_j sigma(sum_k w_jk x_uk x_ik) + b.

x_u is the user's direction (`direction`), x_i the vector of the item, sigma the logistic function; ranking takes
sigma(f), which lies in 0..1. What depends on the user alone, w_jk x_uk, is made once for all candidates; the rest is
summed in float64, one item at a time, so that nobody else in the batch changes a user's scores.
`models.interaction_network` learns the weights, `models.scorer_file` keeps them.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from models.ranking import Floats, unit
from models.reasons import dot

Doubles = npt.NDArray[np.float64]


class Scorer(NamedTuple):
    """
    The weights of a network of h hidden units over vectors of d elements.

    Attributes
    ----------
    inner
        (h, d) float32, w.
    outer
        (h,) float64, a.
    bias
        b.

    """

    inner: Floats
    outer: Doubles
    bias: float


#: Says nothing of anything.
SILENT: Final = Scorer(np.empty((0, 0), np.float32), np.empty(0), 0.0)


def direction(short: Floats, long: Floats) -> Floats:
    """
    Return x_u (n, d) float32 of n users from their short and long interest vectors, (n, d) each: between the two.

    Both count alike, whatever a variant weighs them with, so that a network is asked what it was taught. Rows of users
    without a vector are zeros.

    >>> direction(np.array([[9, 0]], np.float32), np.array([[0, 2]], np.float32)).round(3).tolist()
    [[0.7070000171661377, 0.7070000171661377]]
    """
    return unit(unit(short) + unit(long))


class Heard(NamedTuple):
    """
    A scorer in a ranking of n users, one after the other.

    Attributes
    ----------
    scorer
        Its weights.
    weights
        (n,) float64, what it counts for each user.
    aimed
        (h, d) float32, w_jk x_uk of the user who was listened for last.
    weight
        (1,) float64, what it counts for that user; 0 where it has nothing to say.

    """

    scorer: Scorer
    weights: Doubles
    aimed: Floats
    weight: Doubles


def hear(scorer: Scorer, weights: Doubles) -> Heard:
    """Return a scorer that counts so much for each user, (n,) float64, before the first."""
    return Heard(scorer, weights, np.empty(scorer.inner.shape, np.float32), np.zeros(1))


@compiled
def listen(heard: Heard, interests: Floats, user: int) -> None:
    """
    Let what is said from here on be of one user.

    Parameters
    ----------
    interests
        (3, n, d) float32, the short and the long interest vectors of all users, and the negative ones.

    """
    weight, short, long = heard.weights[user], interests[0, user], interests[1, user]
    heard.weight[0] = weight if weight > 0.0 and _aim(heard.scorer, short, long, heard.aimed) else 0.0


@compiled
def says(heard: Heard, item: Floats) -> float:
    """Return what an item with this vector (d,) float32 gets: the user's weight times sigma(f), or 0."""
    return heard.weight[0] * _sigma_of_f(heard.scorer, heard.aimed, item) if heard.weight[0] > 0.0 else 0.0


@compiled
def _aim(scorer: Scorer, short: Floats, long: Floats, aimed: Floats) -> bool:
    """Write w_jk x_uk into `aimed`; return whether there is a network, and a direction of the user's."""
    if not len(scorer.outer):
        return False
    of_short, of_long = _share(short), _share(long)
    square = 0.0
    for axis in range(len(short)):
        blend = of_short * short[axis] + of_long * long[axis]
        square += blend * blend
    # A blend of two unit vectors that is as short as this is their rounding.
    if square < 1e-12:
        return False
    of_short, of_long = of_short / math.sqrt(square), of_long / math.sqrt(square)
    for unit_number in range(len(scorer.outer)):
        for axis in range(len(short)):
            blend = of_short * short[axis] + of_long * long[axis]
            aimed[unit_number, axis] = np.float32(scorer.inner[unit_number, axis] * blend)
    return True


@compiled
def _sigma_of_f(scorer: Scorer, aimed: Floats, item: Floats) -> float:
    """Return sigma(f) of an item for the user at whom the network was aimed."""
    total = scorer.bias
    for unit_number in range(len(scorer.outer)):
        total += scorer.outer[unit_number] / (1.0 + math.exp(-dot(aimed[unit_number], item)))
    return 1.0 / (1.0 + math.exp(-total))


@compiled
def _share(vector: Floats) -> float:
    """Return what makes a vector one long; 0 for one of zeros."""
    length = math.sqrt(dot(vector, vector))
    return 1.0 / length if length > 0.0 else 0.0
