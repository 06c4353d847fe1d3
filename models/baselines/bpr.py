"""Factors that rank what a user met above what not (Rendle et al.: "BPR: Bayesian Personalized Ranking", UAI 2009)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.baselines.baseline import Baseline, Doubles
from models.compiled import compiled
from models.interactions import Asking, Int32, Int64

Floats = npt.NDArray[np.float32]

_SEED = 2026
_LEARNING_RATE = np.float32(0.05)
#: Spread of the factors before the first step.
_SPREAD = 0.1
#: Items drawn to find one that the user has not met. Who has met nearly all learns a little less.
_DRAWS = 4


class BPR(Baseline):
    """
    Matrix factorisation with item biases by stochastic gradient descent; negatives are drawn from all items alike.

    A user who came after the last fit gets popular items.
    """

    def __init__(self, users: int, items: int, factors: int, regularisation: float, epochs: int) -> None:
        """Take as many steps an epoch as there are pairs of a user and an item met."""
        super().__init__("BPR", users, items)
        self._factors = factors
        self._regularisation = np.float32(regularisation)
        self._epochs = epochs
        self._fitted = np.zeros(users, bool)
        self._users = np.empty((0, factors), np.float32)
        self._items = np.empty((0, factors), np.float32)
        self._biases = np.empty(0, np.float32)

    def fit(self) -> None:
        """Descend anew from random factors, the same ones each time."""
        random = np.random.default_rng(_SEED)
        begins, items, _ = self.events.histories()
        users = np.repeat(np.arange(len(begins) - 1, dtype=np.int32), np.diff(begins))
        count = len(self.events.met)
        self._fitted = np.diff(begins) > 0
        self._users = random.normal(0, _SPREAD, (len(begins) - 1, self._factors)).astype(np.float32)
        self._items = random.normal(0, _SPREAD, (count, self._factors)).astype(np.float32)
        self._biases = np.zeros(count, np.float32)
        for _ in range(self._epochs if len(items) else 0):
            met = random.integers(0, len(items), len(items), np.int32)
            others = random.integers(0, count, (len(items), _DRAWS), np.int32)
            _descend(met, others, users, items, begins, self._regularisation, self._users, self._items, self._biases)

    def score(self, asking: Asking, scores: Doubles) -> None:
        """Multiply the factors of users who have them."""
        known = np.flatnonzero(self._fitted[asking.users])
        if len(known):
            scores[known] = self._users[asking.users[known]] @ self._items.T + self._biases


@compiled
def _descend(
    met: Int32,
    others: Int32,
    users: Int32,
    items: Int32,
    begins: Int64,
    regularisation: np.float32,
    user_factors: Floats,
    item_factors: Floats,
    biases: Floats,
) -> None:
    rate = _LEARNING_RATE
    for step in range(len(met)):
        user, item, other = users[met[step]], items[met[step]], np.int32(-1)
        for draw in range(others.shape[1]):
            if not _among(items, begins[user], begins[user + 1], others[step, draw]):
                other = others[step, draw]
                break
        if other < 0:
            continue
        margin = biases[item] - biases[other]
        for factor in range(user_factors.shape[1]):
            margin += user_factors[user, factor] * (item_factors[item, factor] - item_factors[other, factor])
        pull = np.float32(1) / (np.float32(1) + np.exp(margin))
        for factor in range(user_factors.shape[1]):
            own, liked, not_liked = user_factors[user, factor], item_factors[item, factor], item_factors[other, factor]
            user_factors[user, factor] += rate * (pull * (liked - not_liked) - regularisation * own)
            item_factors[item, factor] += rate * (pull * own - regularisation * liked)
            item_factors[other, factor] += rate * (-pull * own - regularisation * not_liked)
        biases[item] += rate * (pull - regularisation * biases[item])
        biases[other] += rate * (-pull - regularisation * biases[other])


@compiled
def _among(items: Int32, begin: int, end: int, wanted: int) -> bool:
    """Whether an item is among ascending ones."""
    low, high = begin, end
    while low < high:
        middle = (low + high) // 2
        if items[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return bool(low < end and items[low] == wanted)
