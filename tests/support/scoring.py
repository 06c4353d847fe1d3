"""Learned scorers: the formula as a plain loop, and small ones for tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from models.scorer import Scorer


def logit(scorer: Scorer, user: Sequence[float], item: Sequence[float]) -> float:
    """Return what the network says of a user and an item, summed as the formula is written."""
    total = scorer.bias
    for outer, inner in zip(scorer.outer.tolist(), scorer.inner.tolist(), strict=True):
        inside = sum(w * float(u) * float(i) for w, u, i in zip(inner, user, item, strict=True))
        total += outer / (1 + math.exp(-inside))
    return float(total)


def sigma_of_f(scorer: Scorer, user: Sequence[float], item: Sequence[float]) -> float:
    """Return sigma(f(x_u, x_i))."""
    return 1 / (1 + math.exp(-logit(scorer, user, item)))


def random_scorer(hidden: int, dim: int, seed: int = 1) -> Scorer:
    """Return a scorer that says something different of every item."""
    random = np.random.default_rng(seed)
    inner = (dim**0.5 * random.standard_normal((hidden, dim))).astype(np.float32)
    return Scorer(inner, random.standard_normal(hidden).astype(np.float32).astype(np.float64), 0.25)
