"""One vector space over the rows of the catalogue: vectors enter, a matrix leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.quantisation import Quantised, encode_row, uncoded
from streams.wire.models import Served

Floats = npt.NDArray[np.float32]


class VectorSpace:
    """
    The item vectors of one encoder.

    Attributes
    ----------
    served
        Which encoder's; None while unknown.
    vectors
        (capacity, dim) float32 unit rows; zeros where no vector is known.
    coded
        Their codes, for the search.
    has_vector
        (capacity,) bool.

    """

    def __init__(self, served: Served | None, dim: int, capacity: int) -> None:
        self.served = served
        self.vectors: Floats = np.zeros((capacity, dim), np.float32)
        self.coded = uncoded(*self.vectors.shape)
        self.has_vector = np.zeros(capacity, np.bool_)

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return int(self.vectors.shape[1])

    def set(self, row: int, vector: Floats) -> bool:
        """
        Take a unit vector (dim,); return whether it is new or another one.

        Raises
        ------
        ValueError
            When the dimension is not the space's.

        """
        if vector.shape != (self.dim,):
            raise ValueError(f"a vector of shape {vector.shape} does not fit dimension {self.dim}")
        if self.has_vector[row] and np.array_equal(self.vectors[row], vector):
            return False
        self.vectors[row] = vector
        encode_row(self.vectors, row, self.coded)
        self.has_vector[row] = True
        return True

    def drop(self, row: int) -> bool:
        """Forget a row's vector; return whether there was one."""
        if not self.has_vector[row]:
            return False
        self.vectors[row] = 0
        encode_row(self.vectors, row, self.coded)
        self.has_vector[row] = False
        return True

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        self.vectors = _grown(self.vectors, capacity)
        self.coded = Quantised(*(_grown(column, capacity) for column in self.coded))
        self.has_vector = _grown(self.has_vector, capacity)


def _grown(array: npt.NDArray[Any], capacity: int) -> npt.NDArray[Any]:
    grown = np.zeros((capacity, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
