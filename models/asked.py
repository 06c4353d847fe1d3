"""Queries as `models.scan` reads them: their codes, a lane of the product each, and what bounds their scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from models.quantisation import Codes, encode
from models.ranking import Barred, Floats, Queries

#: Queries that a row is compared with at once: a vector register of floats, and a tile of the matrix units.
GROUP = 16
#: What float32 arithmetic adds to the bounds, as a share of the lengths: some ten roundings of 2^-24 each.
SLACK = np.float32(1e-6)


class Asked(NamedTuple):
    """
    Queries in whole groups; those that fill the last group have no vectors.

    Attributes
    ----------
    interest, negative
        (n, d) float32.
    popularity, scale
        (whole groups,) float32.
    near, far, fixed
        (whole groups,) float32: a score of codes is wrong by `near * residual + far * length + fixed` at most, with the
        residual and the length of the row.
    negative_lane
        (whole groups,) int32, where the product with the negative vector stands; -1 for queries without.
    negative_scale, negative_near, negative_far
        (whole groups,) float32, the same of that product.
    barred_start
        (n + 1,) int64, where each query's barred rows begin.
    barred
        (p,) int64, ascending for each query.

    """

    interest: Floats
    negative: Floats
    popularity: Floats
    scale: Floats
    near: Floats
    far: Floats
    fixed: Floats
    negative_lane: npt.NDArray[np.int32]
    negative_scale: Floats
    negative_near: Floats
    negative_far: Floats
    barred_start: npt.NDArray[np.int64]
    barred: npt.NDArray[np.int64]


def asked_of(queries: Queries, highest_popularity: float, barred: Barred) -> tuple[Asked, Codes]:
    """Return n queries, and the codes (lanes, d) int8 that rows are to be multiplied with."""
    count, dim = queries.interest.shape
    padded = count + -count % GROUP
    popularity, scale, near, far, fixed = np.zeros((5, padded), np.float32)
    negative_scale, negative_near, negative_far = np.zeros((3, padded), np.float32)
    codes = np.zeros((padded + count, dim), np.int8)
    starts = np.append(0, barred.ends)
    asked = Asked(
        queries.interest, queries.negative, popularity, scale, near, far, fixed,
        np.full(padded, -1, np.int32), negative_scale, negative_near, negative_far, starts, _sorted(barred, starts),
    )  # fmt: skip
    lanes = _fill(queries.popularity, np.float32(highest_popularity), asked, codes)
    return asked, codes[:lanes]


def _sorted(barred: Barred, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    columns = barred.columns.astype(np.int64)
    if columns.size:
        owners = np.repeat(np.arange(len(barred.ends)), np.diff(starts))
        columns = columns[np.lexsort((columns, owners))]
    return columns


@compiled
def _fill(popularity: Floats, highest_popularity: np.float32, asked: Asked, codes: Codes) -> int:
    """Fill the numbers of the queries; return how many lanes are in use."""
    lane = len(asked.scale)
    for query in range(len(asked.interest)):
        scale, residual, length = encode(asked.interest[query], codes[query])
        length += residual
        asked.popularity[query], asked.scale[query] = popularity[query], scale
        asked.near[query], asked.far[query] = length * (1 + SLACK), residual + length * SLACK
        asked.fixed[query] = SLACK * abs(popularity[query]) * highest_popularity
        if not asked.negative[query].any():
            continue
        scale, residual, length = encode(asked.negative[query], codes[lane])
        length += residual
        asked.negative_lane[query], asked.negative_scale[query] = lane, scale
        asked.negative_near[query], asked.negative_far[query] = length * (1 + SLACK), residual + length * SLACK
        lane += 1
    return lane
