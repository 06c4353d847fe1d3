"""Diverse lists: each choice is the best one of the plain greedy algorithms, whatever the pool."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.caps import Doubles
from models.diversity import LEAST_RESIDUAL, LIKENESS_STEP
from models.ranking import SCORE_STEP
from models.reranking import RerankParameters
from tests.support.pools import World

SEEDS = st.integers(0, 2**32 - 1)
WEIGHTS = st.sampled_from([0.05, 0.3, 0.7, 1.0])
WINDOWS = st.sampled_from([0, 1, 2, 5])


def likeness(world: World) -> Doubles:
    """Return the scalar products of the candidates, rounded, with ones for each with itself."""
    vectors = world.vectors[world.pool.rows[0]].astype(np.float64)
    products: Doubles = np.rint((vectors @ vectors.T) / LIKENESS_STEP) * LIKENESS_STEP
    np.fill_diagonal(products, 1.0)
    return products


def outside(products: Doubles, chosen: list[int], candidate: int) -> float:
    """Return the determinant with the candidate over the one without: what is outside the span of the chosen."""
    among = products[np.ix_(chosen, chosen)]
    across = products[chosen, candidate]
    return float(1.0 - across @ np.linalg.pinv(among, rcond=LEAST_RESIDUAL) @ across)


@given(SEEDS, WEIGHTS, WINDOWS, st.integers(1, 20), st.integers(1, 15))
def test_mmr_is_that_of_plain_loops(seed: int, weight: float, window: int, candidates: int, size: int) -> None:
    """Each choice has the largest score less likeness to the likest one chosen, the first of equals."""
    world = World(seed, candidates)
    products = likeness(world)
    scores = world.pool.steps[0] * SCORE_STEP
    chosen: list[int] = []
    for _ in range(min(size, candidates)):
        near = chosen[-window:] if window else chosen
        worth = {
            candidate: (1 - weight) * scores[candidate] - weight * max([0.0, *products[candidate, near]])
            for candidate in range(candidates)
            if candidate not in chosen
        }
        chosen.append(max(worth, key=lambda candidate: (round(worth[candidate], 9), -candidate)))
    order = world.rerank(size, asked=RerankParameters(mmr=weight, diversity_window=window))
    assert chosen == [place for place in order.places[0].tolist() if place >= 0]


@given(SEEDS, WEIGHTS, WINDOWS, st.integers(1, 20), st.integers(1, 15))
def test_dpp_is_that_of_brute_force(seed: int, weight: float, window: int, candidates: int, size: int) -> None:
    """Each choice gains as much score and log-determinant as any other would."""
    world = World(seed, candidates)
    products = likeness(world)
    scores = world.pool.steps[0] * SCORE_STEP
    chosen: list[int] = []
    for place in world.rerank(size, asked=RerankParameters(dpp=weight, diversity_window=window)).places[0].tolist():
        near = chosen[-window:] if window else chosen
        residuals = {c: outside(products, near, c) for c in range(candidates) if c not in chosen}
        worth = {
            candidate: (1 - weight) * scores[candidate] + weight * np.log(max(residual, LEAST_RESIDUAL))
            for candidate, residual in residuals.items()
        }
        if place < 0:
            assert not worth
            break
        # Copies of chosen items lie in their span but for the rounding of the likenesses.
        assert worth[place] >= max(worth.values()) - 1e-3
        chosen.append(place)


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_copies_do_not_stand_side_by_side(method: str) -> None:
    """Of two copies of the best item and another one, the other comes second."""
    world = World(1, 3)
    world.vectors[world.pool.rows[0]] = np.eye(6, dtype=np.float32)[[0, 0, 1]]
    world.pool.steps[0] = [60_000, 59_000, 50_000]
    assert [0, 2, 1] == world.rerank(3, asked=RerankParameters(**{method: 0.5})).places[0].tolist()
