"""The interaction network as it is taught: its formula, its gradients, and that it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from models.errors import ModelError
from models.interaction_network import InteractionNetwork, Pairs, Taught, teach
from models.ranking import unit
from models.scorer import Scorer
from tests.support.scoring import logit

DIM = 6


def planted(count: int = 6_000, *, seed: int = 3) -> Pairs:
    """
    Return pairs of which those are right that agree along the first half of the elements more than along the second.

    The plain product of the two vectors tells nothing of that.
    """
    random = np.random.default_rng(seed)
    users, items = (unit(random.standard_normal((200, DIM)).astype(np.float32)) for _ in range(2))
    of_user, of_item = random.integers(200, size=(2, count)).astype(np.int32)
    products = users[of_user] * items[of_item]
    said = products[:, : DIM // 2].sum(axis=1) - products[:, DIM // 2 :].sum(axis=1)
    right = random.random(count) < 1 / (1 + np.exp(-12 * said))
    return Pairs(users, items, of_user, of_item, right.astype(np.float32))


def taught(pairs: Pairs, seed: int = 1) -> Taught:
    """Return what is learned of pairs."""
    return teach(pairs, hidden=4, seed=seed, epochs=60, progress=lambda _done: None)


def test_the_network_is_the_formula() -> None:
    """Its logits and those of the weights that ranking takes are f, as a plain loop has it."""
    network = InteractionNetwork(DIM, 3, seed=2)
    random = np.random.default_rng(1)
    users, items = random.standard_normal((2, 5, DIM)).astype(np.float32)
    logits = network(torch.from_numpy(users), torch.from_numpy(items)).tolist()
    expected = [logit(network.scorer(), user, item) for user, item in zip(users.tolist(), items.tolist(), strict=True)]
    assert pytest.approx(expected, abs=1e-4) == logits


def loss(scorer: Scorer, pairs: Pairs) -> float:
    """Return the mean binary cross-entropy of all pairs, in a plain loop."""
    total = 0.0
    for user, item, label in zip(pairs.users, pairs.items, pairs.labels, strict=True):
        said = logit(scorer, pairs.directions[user].tolist(), pairs.vectors[item].tolist())
        total += math.log1p(math.exp(-said)) if label else math.log1p(math.exp(said))
    return total / len(pairs.labels)


def test_gradients_are_those_of_the_formula() -> None:
    """A small step of any weight changes the loss of a plain loop by as much as the gradient says."""
    network, pairs = InteractionNetwork(DIM, 3, seed=2), planted(8)
    logits = network(torch.from_numpy(pairs.directions[pairs.users]), torch.from_numpy(pairs.vectors[pairs.items]))
    binary_cross_entropy_with_logits(logits, torch.from_numpy(pairs.labels)).backward()  # type: ignore[no-untyped-call]
    scorer, step = network.scorer(), 1e-3

    def slope(up: Scorer, down: Scorer) -> float:
        return (loss(up, pairs) - loss(down, pairs)) / (2 * step)

    for unit_number in range(3):
        moved = np.zeros(3)
        moved[unit_number] = step
        assert network.outer.grad is not None
        told = float(network.outer.grad[unit_number])
        by_loop = slope(scorer._replace(outer=scorer.outer + moved), scorer._replace(outer=scorer.outer - moved))
        assert pytest.approx(by_loop, abs=1e-4) == told
        for axis in range(DIM):
            change = np.zeros((3, DIM), np.float32)
            change[unit_number, axis] = step
            assert network.inner.grad is not None
            # A parameter is w / d.
            told = float(network.inner.grad[unit_number, axis]) / DIM
            by_loop = slope(scorer._replace(inner=scorer.inner + change), scorer._replace(inner=scorer.inner - change))
            assert pytest.approx(by_loop, abs=1e-4) == told
    assert network.bias.grad is not None
    by_loop = slope(scorer._replace(bias=scorer.bias + step), scorer._replace(bias=scorer.bias - step))
    assert pytest.approx(by_loop, abs=1e-4) == float(network.bias.grad[0])


def test_what_was_planted_is_learned() -> None:
    """Of pairs it was not taught on, it puts the right ones first; before it was taught it could not."""
    found = taught(planted())
    assert found.auc > 0.85
    assert found.auc_untaught < 0.65
    assert (5_400, 600) == (found.pairs, found.judged)


def test_the_same_seed_teaches_the_same() -> None:
    """Weights are equal bit for bit."""
    pairs = planted(1_000)
    one, same, other = (taught(pairs, seed).scorer for seed in (1, 1, 2))
    assert one.inner.tolist() == same.inner.tolist()
    assert one.inner.tolist() != other.inner.tolist()


def test_noise_is_given_up() -> None:
    """Where the newest pairs tell nothing, the weights are those of the first passes, and teaching ends early."""
    pairs = planted(10_000)
    labels = np.random.default_rng(7).permutation(pairs.labels)
    steps: list[int] = []
    found = teach(pairs._replace(labels=labels), hidden=4, seed=1, epochs=500, progress=steps.append)
    assert len(steps) < 100
    assert found.epochs <= len(steps)
    assert found.loss < 0.75


def test_too_little_is_refused() -> None:
    """Right ones alone, or wrong ones alone, teach nothing."""
    pairs = planted(100)
    with pytest.raises(ModelError, match="too little to learn from"):
        taught(pairs._replace(labels=np.ones(100, np.float32)))
