"""What is asked for: directions of interest, weighed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.ranking import Floats, Queries, RankingParameters, Weights, queries, unit


def score(asked: Queries, item_vectors: Floats, popularity: Floats) -> Floats:
    """Return the scores (items, users) from the definition."""
    scores: Floats = item_vectors @ asked.interest.T - np.maximum(item_vectors @ asked.negative.T, 0)
    scores += popularity[:, None] * asked.popularity
    return scores


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_the_length_of_an_interest_vector_does_not_count(seed: int, factor: float) -> None:
    """Only directions enter the score."""
    random = np.random.default_rng(seed)
    short, long, negative = random.standard_normal((3, 2, 8)).astype(np.float32)
    vectors = unit(random.standard_normal((5, 8)).astype(np.float32))
    popularity = np.zeros(5, np.float32)
    weights = Weights.of([RankingParameters()] * 2).vectors
    expected = score(queries(short, long, negative, weights), vectors, popularity)
    scaled = np.float32(factor)
    actual = score(queries(scaled * short, scaled * long, scaled * negative, weights), vectors, popularity)
    np.testing.assert_allclose(expected, actual, atol=1e-5)
