"""Top-k is exact, a total order, the same in blocks as in one piece, and never lists what is masked."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.ranking import SCORE_STEP, Barred, Floats, Queries, RankingParameters, queries, search, top_k, unit


def reference(scores: Floats, order: list[int], k: int, masked: set[tuple[int, int]]) -> list[list[int]]:
    """Sort everything, the slow and obvious way; -1 fills up."""
    lists = []
    for user, row in enumerate(scores.T):
        steps = np.rint(row * np.float32(1 / SCORE_STEP))
        columns = [c for c in range(len(row)) if (user, c) not in masked and row[c] != -np.inf]
        columns.sort(key=lambda c: (-steps[c], order[c]))
        lists.append((columns[:k] + [-1] * k)[:k])
    return lists


@st.composite
def problems(draw: st.DrawFn) -> tuple[Floats, list[int], int, set[tuple[int, int]]]:
    """Scores of few distinct values, so that most are exact ties, a tie order, k, and masked pairs."""
    users, items = draw(st.integers(1, 5)), draw(st.integers(1, 90))
    values = st.sampled_from([-np.inf, -1.0, -0.5, 0.0, 1e-6, 4e-6, 0.25, 0.250004, 0.25001, 1.0])
    scores = draw(st.lists(st.lists(values, min_size=items, max_size=items), min_size=users, max_size=users))
    order = draw(st.permutations(range(items)))
    pairs = st.tuples(st.integers(0, users - 1), st.integers(0, items - 1))
    return (
        np.array(scores, np.float32).T.copy(),
        list(order),
        draw(st.integers(1, 35)),
        draw(st.sets(pairs, max_size=40)),
    )


def score(asked: Queries, item_vectors: Floats, popularity: Floats) -> Floats:
    """Return the scores (items, users) from the definition."""
    scores: Floats = item_vectors @ asked.interest.T - np.maximum(item_vectors @ asked.negative.T, 0)
    scores += popularity[:, None] * asked.popularity
    return scores


def as_barred(pairs: set[tuple[int, int]], users: int) -> Barred:
    """Return (user, column) pairs as arrays."""
    columns = np.array([column for _, column in sorted(pairs)], np.int32)
    of_user = np.bincount([user for user, _ in pairs], minlength=users) if pairs else np.zeros(users, np.int64)
    return Barred(columns, np.cumsum(of_user, dtype=np.int64))


@given(problems())
def test_top_k_equals_a_full_sort(problem: tuple[Floats, list[int], int, set[tuple[int, int]]]) -> None:
    """Comparing with the least listed item selects and orders as a full sort by (score in steps, id) does."""
    scores, order, k, masked = problem
    expected = reference(scores, order, k, masked)
    top = top_k(scores, np.array(order), k, as_barred(masked, scores.shape[1]))
    assert expected == top.columns.tolist()


@given(problems())
def test_scores_of_top_k_are_in_steps(problem: tuple[Floats, list[int], int, set[tuple[int, int]]]) -> None:
    """A listed score is the item's score, rounded to steps."""
    scores, order, k, _ = problem
    top = top_k(scores, np.array(order), k)
    for user, (columns, steps) in enumerate(zip(top.columns, top.steps, strict=True)):
        found = columns >= 0
        expected = np.rint(scores[columns[found], user] * np.float32(1 / SCORE_STEP)).astype(np.int64)
        assert expected.tolist() == steps[found].tolist()


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 40), st.integers(1, 12), st.integers(1, 45))
def test_blocks_change_nothing(seed: int, users: int, items: int, block: int, k: int) -> None:
    """`search` in blocks of any size lists what `top_k` of all scores lists, with unlisted and masked items out."""
    random = np.random.default_rng(seed)
    # Halves and quarters are exact in float32, so that no order of summing can matter here.
    vectors = random.integers(-2, 3, (items, 4)).astype(np.float32) / np.float32(4)
    popularity = random.integers(0, 3, items).astype(np.float32) / np.float32(4)
    listed = random.random(items) < 0.8
    order = random.permutation(items)
    short, long, negative = np.eye(4, dtype=np.float32)[random.integers(0, 4, (3, users))]
    asked = queries(short, long, negative, [RankingParameters()] * users)
    pairs = {(int(random.integers(users)), int(random.integers(items))) for _ in range(6)}
    scores = score(asked, vectors, popularity)
    scores[~listed] = -np.inf
    barred = as_barred(pairs, users)
    expected = top_k(scores, order, k, barred)
    actual = search(asked, vectors, popularity, listed, order, k, barred, block_items=block)
    assert expected.columns.tolist() == actual.columns.tolist()
    assert expected.steps.tolist() == actual.steps.tolist()


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_the_length_of_an_interest_vector_does_not_count(seed: int, factor: float) -> None:
    """Only directions enter the score."""
    random = np.random.default_rng(seed)
    short, long, negative = random.standard_normal((3, 2, 8)).astype(np.float32)
    vectors = unit(random.standard_normal((5, 8)).astype(np.float32))
    popularity = np.zeros(5, np.float32)
    parameters = [RankingParameters()] * 2
    expected = score(queries(short, long, negative, parameters), vectors, popularity)
    scaled = np.float32(factor)
    actual = score(queries(scaled * short, scaled * long, scaled * negative, parameters), vectors, popularity)
    np.testing.assert_allclose(expected, actual, atol=1e-5)
