"""
Work on many texts or images of which some may be bad: what fails is halved until the fault is one's own.

What is bad cannot be told beforehand, and the answer of a tokenizer or a device to one bad row is no answer at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from models.loading import first_line

#: float32 normalisation is exact to about 1e-7; anything further off is not a unit vector.
UNIT_TOLERANCE = 1e-3

#: What a model raises on rows that it does not take.
_FAILURES = (RuntimeError, IndexError, MemoryError)


class Encoded(NamedTuple):
    """
    Vectors of a batch, in the order of its texts or items.

    Attributes
    ----------
    vectors
        (n, dim) float32, unit rows; the row of a fault is zero.
    faults
        Position without a usable vector, to the reason.
    left_out
        Position of an item whose image has no usable vector and which is its text's therefore, to the reason.

    """

    vectors: npt.NDArray[np.float32]
    faults: dict[int, str]
    left_out: Mapping[int, str] = MappingProxyType({})


class Tokenized(NamedTuple):
    """
    Token ids of texts, in their order.

    Attributes
    ----------
    tokens
        Of each text, special tokens included, at most `max_tokens`; none of a fault.
    faults
        Position of a text that the tokenizer refused, to the reason.

    """

    tokens: list[list[int]]
    faults: dict[int, str]


def tokenize_each(tokenize: Callable[[Sequence[str]], list[list[int]]], texts: Sequence[str]) -> Tokenized:
    """Tokenise texts of which some may be refused."""
    try:
        return Tokenized(tokenize(texts), {})
    except BaseException as error:  # Rust raises plain Exception, and what it calls a panic is none
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        if len(texts) == 1:
            return Tokenized([[]], {0: f"the tokenizer refused it: {first_line(error)}"})
    middle = len(texts) // 2
    first, second = tokenize_each(tokenize, texts[:middle]), tokenize_each(tokenize, texts[middle:])
    later = {middle + place: reason for place, reason in second.faults.items()}
    return Tokenized(first.tokens + second.tokens, first.faults | later)


class Vectors(Protocol):
    """Those of a batch, which may not be there yet."""

    def result(self) -> npt.NDArray[np.float32]:
        """Wait for them, (n, dim) float32; may raise."""


class Batches:
    """
    Batches of rows under way: all are launched at once, in turn, and read in the same order.

    One that fails, when it is launched or when it is read, is launched again in halves.

    Parameters
    ----------
    number
        Rows in all.
    batches
        Positions of the rows of each; the last is launched first.
    launch
        Begins a batch; may raise.
    shrink
        Told which batch did not fit into memory.

    """

    def __init__(
        self,
        number: int,
        dim: int,
        batches: Sequence[list[int]],
        launch: Callable[[list[int]], Vectors],
        shrink: Callable[[Sequence[int]], None],
    ) -> None:
        self._vectors = np.zeros((number, dim), np.float32)
        self._faults: dict[int, str] = {}
        self._launch = launch
        self._shrink = shrink
        self._under_way: deque[tuple[list[int], Vectors]] = deque()
        self._begin(list(batches))

    def result(self) -> Encoded:
        """Wait for all; rows without a usable vector are faults."""
        while self._under_way:
            rows, batch = self._under_way.popleft()
            try:
                self._vectors[rows] = batch.result()
            except _FAILURES as error:
                failure = error.with_traceback(None)
            else:
                continue
            self._begin(self._halved(rows, failure))
        for row in np.flatnonzero(~usable(self._vectors)).tolist():
            self._faults.setdefault(row, "its vector is not finite or has no length")
        self._vectors[list(self._faults)] = 0
        return Encoded(self._vectors, self._faults)

    def _begin(self, waiting: list[list[int]]) -> None:
        while waiting:
            rows = waiting.pop()
            try:
                self._under_way.append((rows, self._launch(rows)))
            except _FAILURES as error:
                # A traceback would keep the failed batch's tensors, and their memory, for as long as this is looked at.
                failure = error.with_traceback(None)
            else:
                continue
            waiting += self._halved(rows, failure)

    def _halved(self, rows: list[int], failure: Exception) -> list[list[int]]:
        """Return what is to be tried instead of a batch that failed."""
        if is_out_of_memory(failure):
            self._shrink(rows)
        if len(rows) == 1:
            self._faults[rows[0]] = f"the model refused it: {first_line(failure)}"
            return []
        return [rows[: len(rows) // 2], rows[len(rows) // 2 :]]


def usable(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which rows are finite and of unit length: (n,) bool."""
    # einsum keeps non-finite values quiet, where norm would warn on overflow.
    squares = np.einsum("ij,ij->i", vectors, vectors)
    usable: npt.NDArray[np.bool_] = np.abs(squares - 1) <= UNIT_TOLERANCE
    return usable


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out, the device's or the machine's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "can't allocate memory" in str(error)  # torch's CPU allocator raises RuntimeError
