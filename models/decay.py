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

from models.compiled import compiled

#: Binary places of an integer sum: a weight is exact to about 1e-9.
FRACTION_BITS = 30
#: Half-lives after which an event is forgotten: less than 6e-8 of its weight is left.
KEPT_EPOCHS = 24
#: Sums stop here, so that they fit 64 bits: some 900 million purchases of one item in one half-life.
MAX_SUM = 2**63 - 1
#: Stands for the newest epoch of a row that has none.
NO_EPOCH = -(2**63)


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


def epoch_shares(
    ts_ms: npt.NDArray[np.int64], weights: npt.NDArray[np.float64], half_life_s: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """
    Return `epoch_share` of many events, bit for bit: epochs (n,) int64 and integers (n,) int64.

    Parameters
    ----------
    ts_ms, weights
        (n,) each; a weight lies in 0..2^30, so that the integer fits.

    >>> epochs, shares = epoch_shares(np.array([2_500, 2_000]), np.array([1.0, 0.0]), half_life_s=1.0)
    >>> epochs.tolist(), shares.tolist()
    ([2, 2], [1518500250, 0])
    """
    epochs = np.empty(len(ts_ms), np.int64)
    shares = np.empty(len(ts_ms), np.int64)
    _fill_shares(ts_ms, weights, half_life_s * 1000.0, epochs, shares)
    return epochs, shares


@compiled
def _fill_shares(
    ts_ms: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    half_life_ms: float,
    epochs: npt.NDArray[np.int64],
    shares: npt.NDArray[np.int64],
) -> None:
    for place in range(len(ts_ms)):
        time = ts_ms[place] / half_life_ms
        epoch = math.floor(time)
        epochs[place] = epoch
        # The C library's exp2, which Python's math has too: NumPy's own may differ in the last bit.
        shares[place] = np.int64(np.rint(weights[place] * math.exp2(time - epoch + FRACTION_BITS)))


@compiled
def add_to_epochs(
    rows: npt.NDArray[np.int64],
    epochs: npt.NDArray[np.int64],
    shares: npt.NDArray[np.int64],
    sums: npt.NDArray[np.int64],
    newest: npt.NDArray[np.int64],
) -> None:
    """
    Add shares to the sums of rows, in place; no order of adding gives another result.

    Parameters
    ----------
    rows, epochs, shares
        (n,) each, as `epoch_shares` gives them; shares of 0 change nothing.
    sums
        (rows, KEPT_EPOCHS) int64, the sum of an epoch at column `epoch % KEPT_EPOCHS`; they stop at 2^63 - 1.
    newest
        (rows,) int64, the newest epoch of each row, `NO_EPOCH` where there is none. Epochs further than
        `KEPT_EPOCHS` before it are dropped: by distance, not by arrival.

    """
    for place in range(len(rows)):
        share = shares[place]
        if share == 0:
            continue
        row, epoch = rows[place], epochs[place]
        last = newest[row]
        if last == NO_EPOCH:
            newest[row] = epoch
        elif epoch > last:
            for gone in range(min(epoch - last, KEPT_EPOCHS)):
                sums[row, (epoch - gone) % KEPT_EPOCHS] = 0
            newest[row] = epoch
        elif epoch <= last - KEPT_EPOCHS:
            continue
        column = epoch % KEPT_EPOCHS
        sums[row, column] = MAX_SUM if sums[row, column] > MAX_SUM - share else sums[row, column] + share


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
