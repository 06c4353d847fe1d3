"""Calibrated lists: the greedy choice of plain loops, and shares that follow those of the events."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.ranking import SCORE_STEP
from models.reranking import RerankParameters
from tests.support.pools import NOW_MS, WEIGHING, World


def wanted(world: World) -> dict[int, float]:
    """Return the shares of the categories of the events."""
    masses: defaultdict[int, float] = defaultdict(float)
    for item, kind, ts_ms in zip(*(column.tolist() for column in world.events[:3]), strict=True):
        category = int(world.attributes.categories[item])
        if category >= 0:
            masses[category] += WEIGHING.of_kind[kind] * 2 ** (-(NOW_MS - ts_ms) / WEIGHING.half_lives_ms[1])
    return {category: mass / sum(masses.values()) for category, mass in masses.items()}


def divergence(shares: dict[int, float], categories: list[int]) -> float:
    """Return KL(p || q~) of a list's categories."""
    counts = Counter(categories)
    return sum(
        share * math.log(share / (0.99 * counts[category] / len(categories) + 0.01 * share))
        for category, share in shares.items()
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.5, 0.9]), st.integers(1, 20), st.integers(0, 12))
def test_choices_are_those_of_plain_loops(seed: int, weight: float, size: int, events: int) -> None:
    """Each choice makes score less divergence largest, to rounding."""
    world = World(seed, 20, events)
    shares = wanted(world)
    scores = world.pool.steps[0] * SCORE_STEP
    categories = world.attributes.categories[world.pool.rows[0]].tolist()
    chosen: list[int] = []
    for place in world.rerank(size, asked=RerankParameters(calibration=weight)).places[0].tolist():
        worth = {
            candidate: (1 - weight) * scores[candidate]
            - weight * divergence(shares, [categories[other] for other in [*chosen, candidate]])
            for candidate in range(20)
            if candidate not in chosen
        }
        assert worth[place] >= max(worth.values()) - 1e-9
        chosen.append(place)


def test_shares_follow_the_events() -> None:
    """A user of two categories in equal parts gets both in equal parts, though one has all the best scores."""
    world = World(3, 20, 2)
    world.attributes.categories[world.pool.rows[0]] = np.repeat([0, 1], 10)
    world.events.items[:] = world.pool.rows[0, [0, 10]]
    world.events.kinds[:] = 0
    world.events.ts_ms[:] = NOW_MS
    order = world.rerank(10, asked=RerankParameters(calibration=0.99)).places[0]
    assert 5 == int((order < 10).sum())
