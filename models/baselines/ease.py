"""EASE as published: one dense matrix of item-to-item weights over full histories (Steck, WWW 2019)."""

from __future__ import annotations

import numpy as np
import torch

from models.baselines.baseline import Baseline, Doubles
from models.compiled import compiled
from models.ease import Floats
from models.interactions import Asking, Int32, Int64

#: Items the matrix is made for, the most met ones: at 10,000 it takes 400 MB, and its inverse about a minute.
MOST_ITEMS = 10_000


class EASE(Baseline):
    """A user's distinct items times the weights; of a catalogue beyond 10,000 items only the most met 10,000."""

    def __init__(self, users: int, items: int, regularisation: float) -> None:
        super().__init__("EASE", users, items)
        self._regularisation = regularisation
        self._place = np.full(items, -1, np.int32)
        self._chosen = np.empty(0, np.int64)
        self._weights = np.empty((0, 0), np.float32)

    def fit(self) -> None:
        """Invert the matrix of co-occurrences anew."""
        met = self.events.met
        self._chosen = np.sort(np.argsort(-met, kind="stable")[:MOST_ITEMS])
        self._place[:] = -1
        self._place[self._chosen] = np.arange(len(self._chosen))
        begins, items, _ = self.events.histories()
        # The old weights are dropped before the new matrix is made: one is enough to hold.
        self._weights = np.zeros((len(self._chosen), len(self._chosen)), np.float32)
        _count_pairs(begins, self._place[items], self._weights)
        matrix = torch.from_numpy(self._weights)
        matrix.diagonal().add_(self._regularisation)
        torch.linalg.cholesky_ex(matrix, check_errors=True, out=(matrix, torch.zeros((), dtype=torch.int32)))
        torch.cholesky_inverse(matrix, out=matrix)
        matrix.div_(-matrix.diagonal().clone())
        matrix.fill_diagonal_(0.0)

    def score(self, asking: Asking, scores: Doubles) -> None:
        """Sum the rows of the user's items."""
        if not len(self._chosen):
            return
        for row, user in enumerate(asking.users):
            places = self._place[self.events.history(int(user))[0]]
            scores[row, self._chosen] = self._weights[places[places >= 0]].sum(axis=0)


@compiled
def _count_pairs(begins: Int64, places: Int32, matrix: Floats) -> None:
    for user in range(len(begins) - 1):
        for first in range(begins[user], begins[user + 1]):
            if places[first] < 0:
                continue
            for second in range(begins[user], begins[user + 1]):
                if places[second] >= 0:
                    matrix[places[first], places[second]] += 1.0
