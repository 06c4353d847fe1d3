"""
Vectors as 8-bit integers, with what that costs: a proven bound on how far a score of codes lies from the true one.

A row x is coded as x' = scale * code with its own scale, max|x| / 127, so that every worker codes a vector alike. With
r = |x - x'| measured for each row, and likewise r_q for a query q, the triangle and the Cauchy-Schwarz inequality give

    |q . x - q' . x'| = |q . (x - x') + (q - q') . x'| <= |q| r + r_q |x'|

which is what `models.scan` relies on. Products of codes are summed in integers and are exact on every machine.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]

#: Largest code; -128 is not used, so that x and -x have codes of the same size.
MAX_CODE = 127
#: float32 gives the lengths to about 1e-6 of themselves; they are raised by more, so that they bound from above.
_ROUND_UP = np.float32(1 + 1e-5)
_TINY = np.finfo(np.float32).tiny


class Quantised(NamedTuple):
    """
    Rows as codes.

    Attributes
    ----------
    codes
        (n, d) int8.
    scale
        (n,) float32; 0 for rows of zeros.
    residual
        (n,) float32, at least the length of what the codes leave out.
    length
        (n,) float32, at least the length of the coded row.

    """

    codes: Codes
    scale: Floats
    residual: Floats
    length: Floats

    def first(self, count: int) -> Quantised:
        """Return the first rows, as views."""
        return Quantised(self.codes[:count], self.scale[:count], self.residual[:count], self.length[:count])

    def put(self, rows: npt.NDArray[np.int64], others: Quantised) -> None:
        """Put others in rows (n,)."""
        self.codes[rows], self.scale[rows] = others.codes, others.scale
        self.residual[rows], self.length[rows] = others.residual, others.length


@compiled
def encode(vector: Floats, codes: Codes) -> tuple[np.float32, np.float32, np.float32]:
    """Write the codes of one row (d,) of finite numbers; return its scale, residual and length."""
    largest = np.float32(0)
    for axis in range(len(vector)):
        largest = max(largest, abs(vector[axis]))
    scale = np.float32(largest / np.float32(MAX_CODE))
    # Numbers so small that their 127th part is no normal float32 would be coded badly; their row is all residual.
    if scale < _TINY:
        scale = np.float32(0)
    inverse = np.float32(1) / scale if scale > 0 else np.float32(0)
    left, length = 0.0, 0.0
    for axis in range(len(vector)):
        code = min(max(np.rint(vector[axis] * inverse), np.float32(-MAX_CODE)), np.float32(MAX_CODE))
        codes[axis] = np.int8(code)
        coded = np.float64(code) * np.float64(scale)
        length += coded * coded
        left += (np.float64(vector[axis]) - coded) ** 2
    return scale, np.float32(math.sqrt(left)) * _ROUND_UP, np.float32(math.sqrt(length)) * _ROUND_UP


@compiled
def encode_row(vectors: Floats, row: int, coded: Quantised) -> None:
    """Put the codes of one of the rows (n, d) in their place."""
    coded.scale[row], coded.residual[row], coded.length[row] = encode(vectors[row], coded.codes[row])


@compiled
def _encode_rows(vectors: Floats, coded: Quantised) -> None:
    for row in range(len(vectors)):
        encode_row(vectors, row, coded)


def uncoded(count: int, dim: int) -> Quantised:
    """Return codes of rows of zeros."""
    scale, residual, length = np.zeros((3, count), np.float32)
    return Quantised(np.zeros((count, dim), np.int8), scale, residual, length)


def quantise(vectors: Floats) -> Quantised:
    """
    Return the codes of rows (n, d) of finite float32.

    >>> coded = quantise(np.array([[1.0, -0.5], [0.0, 0.0]], np.float32))
    >>> coded.codes.tolist(), coded.scale.round(4).tolist()
    ([[127, -64], [0, 0]], [0.007899999618530273, 0.0])
    """
    coded = uncoded(*vectors.shape)
    _encode_rows(np.ascontiguousarray(vectors), coded)
    return coded


@compiled
def multiply(codes: Codes, queries: Codes, lanes: npt.NDArray[np.int64], products: npt.NDArray[np.int32]) -> None:
    """
    Write the products of rows (n, d) and some of the queries (q, d) into their columns of `products` (n, q).

    For a handful of queries; for more the tiles of a matrix product pay.
    """
    for row in range(len(codes)):
        for place in range(len(lanes)):
            lane = lanes[place]
            total = np.int32(0)
            for axis in range(codes.shape[1]):
                total += np.int32(codes[row, axis]) * np.int32(queries[lane, axis])
            products[row, lane] = total
