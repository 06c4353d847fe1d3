"""
Vectors as 8-bit integers, with what that costs: a proven bound on how far a score of codes lies from the true one.

A row x is coded as x' = scale * code with its own scale, max|x| / 127, so that every worker codes a vector alike. With
r = |x - x'| measured for each row, and likewise r_q for a query q, the triangle and the Cauchy-Schwarz inequality give

    |q . x - q' . x'| = |q . (x - x') + (q - q') . x'| <= |q| r + r_q |x'|

which is what `models.scan` relies on. Products of codes are summed in integers and are exact on every machine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]

#: Largest code; -128 is not used, so that x and -x have codes of the same size.
MAX_CODE = 127
#: float32 gives the lengths to about 1e-6 of themselves; they are raised by more, so that they bound from above.
_ROUND_UP = np.float32(1 + 1e-5)


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


def quantise(vectors: Floats) -> Quantised:
    """
    Return the codes of rows (n, d) of finite float32.

    >>> coded = quantise(np.array([[1.0, -0.5], [0.0, 0.0]], np.float32))
    >>> coded.codes.tolist(), coded.scale.round(4).tolist()
    ([[127, -64], [0, 0]], [0.007899999618530273, 0.0])
    """
    largest = np.abs(vectors).max(axis=1, initial=0)
    scale = (largest / np.float32(MAX_CODE)).astype(np.float32)
    # Numbers so small that their 127th part is no normal float32 would be coded badly; their row is all residual.
    scale[scale < np.finfo(np.float32).tiny] = 0
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    codes = np.clip(np.rint(vectors * inverse[:, None]), -MAX_CODE, MAX_CODE).astype(np.int8)
    coded = codes * scale[:, None]
    residual = np.linalg.norm(vectors - coded, axis=1) * _ROUND_UP
    length = np.linalg.norm(coded, axis=1) * _ROUND_UP
    return Quantised(codes, scale, residual.astype(np.float32), length.astype(np.float32))
