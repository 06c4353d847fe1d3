"""
Item-to-item weights in closed form: EASE (Steck: "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019).

With X the users' binary histories and G = X^T X how often items meet in them, the weights that best rebuild X, none
from an item to itself, are B = -P / diag(P) by columns with P = (G + regularisation x I)^-1. A user with history x is
offered x B: row i of B is what item i speaks for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from models.compiled import compiled

#: Rows whose heaviest are found at once: the block of 10,000 columns stays below 20 MB.
_BLOCK = 512

Floats = npt.NDArray[np.float32]


class Weights(NamedTuple):
    """
    The weights of each item that are farthest from 0, of either sign.

    An item that speaks against another corrects what many others say for it: without those weights, users of long
    histories are offered what is popular.

    Attributes
    ----------
    targets
        (n, k) int32, -1 behind the last.
    weights
        (n, k) float32, the farthest from 0 first.

    """

    targets: npt.NDArray[np.int32]
    weights: Floats


def co_occurrences(histories: npt.NDArray[np.int32], items: int) -> Floats:
    """
    Return how many histories hold both of two items, (items, items) float32, exact up to 2^24.

    Parameters
    ----------
    histories
        (users, w) int32, distinct items of each user; -1 where there is none. Those from `items` on are not counted.

    >>> co_occurrences(np.array([[0, 1], [1, -1]], np.int32), 2).tolist()
    [[1.0, 1.0], [1.0, 2.0]]
    """
    gram = np.zeros((items, items), np.float32)
    _count_pairs(histories, gram)
    return gram


@compiled
def _count_pairs(histories: npt.NDArray[np.int32], gram: Floats) -> None:
    for user in range(histories.shape[0]):
        for first in range(histories.shape[1]):
            item = histories[user, first]
            if not 0 <= item < len(gram):
                continue
            for second in range(histories.shape[1]):
                other = histories[user, second]
                if 0 <= other < len(gram):
                    gram[item, other] += 1.0


def fit(gram: Floats, regularisation: float, kept: int) -> Weights:
    """
    Return the weights of each item that are farthest from 0.

    The inverse is taken in place of `gram`, which is lost: one matrix and a work copy of it are all the memory, 8 bytes
    for each pair of items. Time grows with the cube of the items.

    Parameters
    ----------
    gram
        (n, n) float32, symmetric and positive semi-definite.
    regularisation
        Above 0; the greater, the fewer histories are believed.
    kept
        Weights kept of each item.

    Raises
    ------
    ValueError
        When the matrix is not positive definite after regularisation.

    >>> weights = fit(np.array([[2, 1, 0], [1, 2, 0], [0, 0, 1]], np.float32), 1.0, 2)
    >>> weights.targets.tolist(), weights.weights.round(3).tolist()
    ([[1, -1], [0, -1], [-1, -1]], [[0.3330000042915344, 0.0], [0.3330000042915344, 0.0], [0.0, 0.0]])
    """
    inverse = torch.from_numpy(gram)
    inverse.diagonal().add_(regularisation)
    failed = torch.zeros((), dtype=torch.int32)
    torch.linalg.cholesky_ex(inverse, out=(inverse, failed))
    if failed:
        raise ValueError("the matrix is not positive definite")
    torch.cholesky_inverse(inverse, out=inverse)
    scale = -1.0 / inverse.diagonal()
    count = gram.shape[0]
    kept_here = min(kept, count)
    targets = np.full((count, kept), -1, np.int32)
    weights = np.zeros((count, kept), np.float32)
    for begin in range(0, count, _BLOCK):
        block = inverse[begin : begin + _BLOCK] * scale
        rows = torch.arange(block.shape[0])
        block[rows, rows + begin] = 0.0
        heaviest = torch.topk(block.abs(), kept_here, dim=1).indices
        values = torch.gather(block, 1, heaviest).numpy()
        weights[begin : begin + _BLOCK, :kept_here] = values
        targets[begin : begin + _BLOCK, :kept_here] = np.where(values == 0.0, -1, heaviest.numpy())
    return Weights(targets, weights)
