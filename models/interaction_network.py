"""
Teaching the scorer of `models.scorer` which of the items that a user was shown the user goes for.

Binary cross-entropy over labelled pairs of a user's direction and an item's vector, with AdamW (Loshchilov & Hutter,
ICLR 2019). The newest pairs are not learned from: when their loss stops falling, the best weights so far are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from models.errors import ModelError
from models.ranking import Floats
from models.scorer import Scorer

_BATCH: Final = 1_024
_LEARNING_RATE: Final = 3e-3
#: Enough that units which help nothing shrink; ten times as much held back those that help.
_WEIGHT_DECAY: Final = 1e-2
#: Passes over the pairs without a lower loss of the newest before teaching ends.
_PATIENCE: Final = 3
#: The part of the pairs that judges, by time the last.
_JUDGING: Final = 0.1


class Pairs(NamedTuple):
    """
    Users and items, and whether the one went for the other; the oldest first.

    Attributes
    ----------
    directions
        (u, d) float32, x_u of users, each at one moment.
    vectors
        (m, d) float32, x_i of items.
    users, items
        (n,) rows of `directions` and of `vectors`.
    labels
        (n,) float32, 1 or 0.

    """

    directions: Floats
    vectors: Floats
    users: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    labels: Floats

    def part(self, part: slice) -> Pairs:
        """Return some of the pairs."""
        return self._replace(users=self.users[part], items=self.items[part], labels=self.labels[part])


class Taught(NamedTuple):
    """
    A scorer, and how good it is on the newest pairs, which it was not taught on.

    Attributes
    ----------
    pairs, judged
        How many it was taught on, and how many judged it.
    epochs
        Passes over the pairs.
    loss, auc
        Mean binary cross-entropy, and how often a pair of label 1 scores above one of label 0.
    auc_untaught
        The same before the first step.

    """

    scorer: Scorer
    pairs: int
    judged: int
    epochs: int
    loss: float
    auc: float
    auc_untaught: float


class InteractionNetwork(torch.nn.Module):
    """
    f(x_u, x_i) = sum_j a_j sigma(sum_k w_jk x_uk x_ik) + b.

    Products of the elements of unit vectors are about 1 / d large: the parameters are w / d, or steps of one size would
    be too long for b and too short for w.

    Parameters
    ----------
    dim, hidden
        d, and how many units.
    seed
        The same seed begins with the same weights.

    """

    def __init__(self, dim: int, hidden: int, seed: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self._scale = float(dim)
        self.inner = torch.nn.Parameter(torch.randn(hidden, dim, generator=random) / dim**0.5)
        self.outer = torch.nn.Parameter(torch.randn(hidden, generator=random) / hidden**0.5)
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return f (n,) of n users and items, (n, d) each."""
        hidden = torch.sigmoid(self._scale * ((users * items) @ self.inner.T))
        found: torch.Tensor = hidden @ self.outer + self.bias
        return found

    def scorer(self) -> Scorer:
        """Return the weights as ranking takes them."""
        inner = (self._scale * self.inner.detach()).numpy()
        return Scorer(inner.copy(), self.outer.detach().double().numpy().copy(), float(self.bias.detach()[0]))


def teach(pairs: Pairs, *, hidden: int, seed: int, epochs: int, progress: Callable[[int], None]) -> Taught:
    """
    Return a scorer taught on all but the last tenth of the pairs, which judges.

    Parameters
    ----------
    progress
        Told 1 after each pass.

    Raises
    ------
    ModelError
        When one of the two parts lacks pairs of a label.

    """
    cut = round(len(pairs.labels) * (1 - _JUDGING))
    told, judging = pairs.part(slice(0, cut)), pairs.part(slice(cut, None))
    if any(len(np.unique(part.labels)) < 2 for part in (told, judging)):
        raise ModelError(
            "there is too little to learn from: it takes items that users went for, and others, old and new"
        )
    network = InteractionNetwork(pairs.directions.shape[1], hidden, seed)
    optimiser = torch.optim.AdamW(network.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    random = np.random.default_rng(seed)
    logits = _logits(network, judging)
    auc_untaught = auc(logits, judging.labels)
    best, best_loss, best_logits, best_epoch = network.scorer(), _loss(logits, judging.labels), logits, 0
    for epoch in range(1, epochs + 1):
        order = random.permutation(cut)
        for start in range(0, cut, _BATCH):
            _step(network, optimiser, told, order[start : start + _BATCH])
        progress(1)
        logits = _logits(network, judging)
        if (loss := _loss(logits, judging.labels)) < best_loss:
            best, best_loss, best_logits, best_epoch = network.scorer(), loss, logits, epoch
        elif epoch - best_epoch >= _PATIENCE:
            break
    judged = auc(best_logits, judging.labels)
    return Taught(best, cut, len(judging.labels), best_epoch, best_loss, judged, auc_untaught)


def auc(scores: npt.NDArray[np.floating], labels: Floats) -> float:
    """
    Return how often a score of label 1 is above one of label 0, ties as half.

    >>> auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1], np.float32))
    0.875
    """
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    ones = int(labels.sum())
    above = float(ranks[labels == 1].sum()) - ones * (ones + 1) / 2
    return above / (ones * (len(labels) - ones))


def _step(
    network: InteractionNetwork, optimiser: torch.optim.Optimizer, pairs: Pairs, chosen: npt.NDArray[np.int64]
) -> None:  # fmt: skip
    users, items = pairs.directions[pairs.users[chosen]], pairs.vectors[pairs.items[chosen]]
    found = network(torch.from_numpy(users), torch.from_numpy(items))
    loss = binary_cross_entropy_with_logits(found, torch.from_numpy(pairs.labels[chosen]))
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


@torch.no_grad()
def _logits(network: InteractionNetwork, pairs: Pairs) -> Floats:
    found = []
    for start in range(0, len(pairs.labels), _BATCH):
        part = pairs.part(slice(start, start + _BATCH))
        users, items = pairs.directions[part.users], pairs.vectors[part.items]
        found.append(network(torch.from_numpy(users), torch.from_numpy(items)).numpy())
    logits: Floats = np.concatenate(found)
    return logits


def _loss(logits: Floats, labels: Floats) -> float:
    return float(binary_cross_entropy_with_logits(torch.from_numpy(logits), torch.from_numpy(labels)))
