"""
Exponential decay of weights, and sums of decayed weights that do not depend on the order of adding.

The exact sums are forward decay (Cormode, Shkapenyuk, Srivastava, Xu: "Forward Decay: A Practical Time Decay Model
for Streaming Systems", ICDE 2009) on integers: what an event adds never changes, so additions commute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

#: Binary places of an integer sum: a weight is exact to about 1e-9.
FRACTION_BITS = 30
#: Half-lives after which an event is forgotten: less than 6e-8 of its weight is left.
KEPT_EPOCHS = 24


def decay(age_ms: npt.ArrayLike, half_life_s: float) -> npt.NDArray[np.float64]:
    """
    Return what is left of a weight of 1 after `age_ms`; ages below 0 count as 0.

    >>> decay([0, 1000, 2000], half_life_s=1.0).tolist()
    [1.0, 0.5, 0.25]
    """
    age = np.maximum(np.asarray(age_ms, np.float64), 0.0)
    left: npt.NDArray[np.float64] = np.exp2(age / (-1000.0 * half_life_s))
    return left


def epoch_share(ts_ms: int, weight: float, half_life_s: float) -> tuple[int, int]:
    """
    Return (epoch, integer) that an event adds to an exact decayed sum.

    The epoch is the number of whole half-lives since 1970; the integer is the weight scaled by the rest of it.

    >>> epoch_share(2_500, 1.0, half_life_s=1.0)
    (2, 1518500250)
    """
    half_life_ms = half_life_s * 1000.0
    epoch = math.floor(ts_ms / half_life_ms)
    return epoch, round(weight * math.exp2(ts_ms / half_life_ms - epoch + FRACTION_BITS))


def decayed_sum(epochs: Mapping[int, int], now_ms: int, half_life_s: float) -> float:
    """
    Return the value at `now_ms` of the integers that `epoch_share` gave, summed by epoch.

    The epochs' span is best kept to `KEPT_EPOCHS`: the sum is taken in an integer of as many more bits.

    >>> epoch, share = epoch_share(2_000, 3.0, half_life_s=1.0)
    >>> decayed_sum({epoch: share}, 3_000, half_life_s=1.0)
    1.5
    """
    if not epochs:
        return 0.0
    first, last = min(epochs), max(epochs)
    total = sum(share << (epoch - first) for epoch, share in epochs.items())
    now = now_ms / (half_life_s * 1000.0)
    # Integers divide with one correct rounding at any size, and whole half-lives are powers of two, exact.
    at_last = total / (1 << (last - first))
    return math.ldexp(at_last, last - FRACTION_BITS - math.floor(now)) / math.exp2(now - math.floor(now))
