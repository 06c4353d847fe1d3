"""
Work on many texts or images of which some may be bad: what fails is halved until the fault is one's own.

What is bad cannot be told beforehand, and the answer of a tokenizer or a device to one bad row is no answer at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from models.loading import first_line

#: float32 normalisation is exact to about 1e-7; anything further off is not a unit vector.
UNIT_TOLERANCE = 1e-3


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


def run_batches(
    number: int,
    dim: int,
    batches: list[list[int]],
    forward: Callable[[list[int]], npt.NDArray[np.float32]],
    shrink: Callable[[Sequence[int]], None],
) -> Encoded:
    """
    Run batches of rows.

    Parameters
    ----------
    number
        Rows in all.
    batches
        Positions of the rows of each; used up.
    forward
        Gives the vectors of a batch, (len, dim) float32; may raise.
    shrink
        Told which batch did not fit into memory.

    """
    vectors = np.zeros((number, dim), np.float32)
    faults: dict[int, str] = {}
    while batches:
        rows = batches.pop()
        try:
            vectors[rows] = forward(rows)
        except (RuntimeError, IndexError, MemoryError) as error:
            if is_out_of_memory(error):
                shrink(rows)
            if len(rows) == 1:
                faults[rows[0]] = f"the model refused it: {first_line(error)}"
            else:
                batches += [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    for row in np.flatnonzero(~usable(vectors)).tolist():
        faults.setdefault(row, "its vector is not finite or has no length")
    vectors[list(faults)] = 0
    return Encoded(vectors, faults)


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
