"""Exact search over codes: the bound holds, and the answer is brute force's whatever the vectors, filters and pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contenders import Rows
from models.quantisation import quantise, uncoded
from models.ranking import Barred, Floats, Queries, nothing_barred
from models.scan import Scan, exact_top
from tests.support.vectors import barring, brute_force

SEEDS = st.integers(0, 2**32 - 1)


def awkward(random: np.random.Generator, count: int, dim: int) -> Floats:
    """Return rows of all kinds: copies, near-copies, zeros, one large number, lengths from a thousandth to ten."""
    few = random.standard_normal((max(count // 4, 1), dim))
    rows = few[random.integers(0, len(few), count)]
    kind = random.integers(0, 6, count)
    rows[kind == 0] += random.standard_normal((int((kind == 0).sum()), dim)) * 1e-4
    rows[kind == 1] = 0
    rows[kind == 2, 0] = 50
    rows[kind == 3] *= 10 ** random.uniform(-3, 1, ((kind == 3).sum(), 1))
    rows[kind == 4] = random.standard_normal((int((kind == 4).sum()), dim))
    return rows.astype(np.float32)


def problem(random: np.random.Generator, queries: int, count: int, dim: int) -> tuple[Queries, Rows, Barred]:
    """Return queries, some of which dislike, want what is popular or say nothing; and rows, some barred."""
    vectors = awkward(random, count, dim)
    interest, negative = awkward(random, queries, dim), awkward(random, queries, dim)
    negative[random.random(queries) < 0.5] = 0
    weights = random.choice([0.0, 0.1, 2.0], queries).astype(np.float32)
    popularity = (random.integers(0, 4, count) / 3).astype(np.float32)
    usable = random.random(count) < random.choice([0.1, 0.6, 1.0])
    rows = Rows(vectors, quantise(vectors), popularity, usable, random.permutation(count))
    return Queries(interest, negative, weights), rows, barring(random, queries, count)


@given(SEEDS, st.integers(1, 40), st.integers(1, 70))
def test_a_score_of_codes_lies_within_the_bound(seed: int, count: int, dim: int) -> None:
    """The true product differs from that of the codes by at most |q| r + r_q |x'|."""
    random = np.random.default_rng(seed)
    rows, asked = awkward(random, count, dim), awkward(random, 9, dim)
    coded, query = quantise(rows), quantise(asked)
    codes = coded.codes.astype(np.float64) * coded.scale[:, None].astype(np.float64)
    query_codes = query.codes.astype(np.float64) * query.scale[:, None].astype(np.float64)
    lengths = np.linalg.norm(asked.astype(np.float64), axis=1)
    error = np.abs(asked.astype(np.float64) @ rows.astype(np.float64).T - query_codes @ codes.T)
    allowed = lengths[:, None] * coded.residual + query.residual[:, None] * coded.length
    # What the float32 arithmetic of the codes themselves adds, which the scan allows for on its own.
    allowed += 1e-6 * lengths[:, None] * (coded.length + coded.residual)

    assert (error <= allowed + 1e-30).all()


@given(SEEDS, st.integers(1, 20), st.integers(1, 400), st.integers(1, 40), st.integers(0, 30))
def test_the_answer_is_that_of_brute_force(seed: int, queries: int, count: int, dim: int, k: int) -> None:
    """With ties, near-ties, zeros, dislikes, popularity, filters and barred rows, the k best are the k best."""
    asked, rows, barred = problem(np.random.default_rng(seed), queries, count, dim)
    top = exact_top(asked, rows, k, barred)

    expected = brute_force(asked, rows.vectors, rows.popularity, rows.usable, rows.order, k, barred)
    assert expected == top.columns.tolist()


@given(SEEDS, st.integers(1, 300), st.integers(1, 6))
def test_rows_may_be_shown_in_any_parts(seed: int, count: int, parts: int) -> None:
    """However the rows are split, whether their codes are multiplied or they are named, the answer is one."""
    random = np.random.default_rng(seed)
    asked, rows, barred = problem(random, 5, count, 12)
    scan = Scan(asked, rows, 10, barred)
    part_of = random.integers(0, parts, count)
    for part in range(parts):
        mine = np.flatnonzero(part_of == part)
        if random.random() < 0.5:
            scan.some_rows(mine)
        else:
            scan.given_rows(np.tile(mine, (5, 1)))

    whole, top = exact_top(asked, rows, 10, barred), scan.top()
    assert whole.columns.tolist() == top.columns.tolist()
    assert whole.steps.tolist() == top.steps.tolist()


def test_more_near_ties_than_wait_are_all_scored() -> None:
    """Rows whose codes cannot tell them apart fill the buffer many times; the best of them is still found."""
    random = np.random.default_rng(1)
    vectors = np.ones((5_000, 16), np.float32) + random.standard_normal((5_000, 16)).astype(np.float32) * 1e-4
    count = len(vectors)
    rows = Rows(vectors, quantise(vectors), np.zeros(count, np.float32), np.ones(count, np.bool_), np.arange(count))
    asked = Queries(np.ones((3, 16), np.float32), np.zeros((3, 16), np.float32), np.zeros(3, np.float32))
    top = exact_top(asked, rows, 4)

    expected = brute_force(asked, vectors, rows.popularity, rows.usable, rows.order, 4, nothing_barred(3))
    assert expected == top.columns.tolist()


@given(st.integers(3, 300), st.floats(0.05, 0.49), st.floats(0, 0.95))
def test_rounding_that_all_points_one_way_is_allowed_for(dim: int, lost: float, made_up: float) -> None:
    """A row whose every coordinate is rounded down, along the query, is not lost to one whose codes are exact."""
    steps = np.full((2, dim), 10.0)
    steps[:, 0] = 127
    steps[0, 1:] += lost
    # Whole steps: the other row's codes lose nothing, and gain less than the first row's codes lose.
    steps[1, 1 : 1 + int(made_up * lost * (dim - 1))] += 1
    vectors = (steps / 127).astype(np.float32)
    rows = Rows(vectors, quantise(vectors), np.zeros(2, np.float32), np.ones(2, np.bool_), np.arange(2))
    asked = Queries(np.ones((1, dim), np.float32), np.zeros((1, dim), np.float32), np.zeros(1, np.float32))

    assert [[0]] == exact_top(asked, rows, 1).columns.tolist()


@pytest.mark.parametrize("k", [pytest.param(10, id="as expected"), pytest.param(30, id="too much expected")])
def test_rows_that_tell_what_to_expect_may_mislead(k: int) -> None:
    """Where the rows looked at first hold all that is good, and fewer than k reach what they promise, none is lost."""
    count = 3_000
    random = np.random.default_rng(2)
    vectors = random.standard_normal((count, 8)).astype(np.float32) * np.float32(0.01)
    # Every fifth of so many is looked at first.
    vectors[: 5 * 20 : 5, 0] = np.linspace(2, 1, 20)
    rows = Rows(vectors, quantise(vectors), np.zeros(count, np.float32), np.ones(count, np.bool_), np.arange(count))
    asked = Queries(np.eye(8, dtype=np.float32)[:2], np.zeros((2, 8), np.float32), np.zeros(2, np.float32))

    scan = Scan(asked, rows, k)
    scan.expect()
    scan.all_rows()
    assert [[], [0]][k == 30] == scan.fell_short(scan.top()).tolist()
    expected = brute_force(asked, vectors, rows.popularity, rows.usable, rows.order, k, nothing_barred(2))
    assert expected == exact_top(asked, rows, k).columns.tolist()


def test_without_a_vector_space_popularity_decides() -> None:
    """Vectors of no dimension say nothing."""
    popularity = np.array([0.1, 0.3, 0.2], np.float32)
    rows = Rows(np.zeros((3, 0), np.float32), uncoded(3, 0), popularity, np.ones(3, np.bool_), np.arange(3))
    asked = Queries(np.zeros((1, 0), np.float32), np.zeros((1, 0), np.float32), np.ones(1, np.float32))
    assert [[1, 2, 0]] == exact_top(asked, rows, 3).columns.tolist()
