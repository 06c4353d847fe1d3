"""Measures of lists, against plain loops."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import measures
from models.interactions import Int32, Int64

ITEMS = 12


@st.composite
def asked(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    """Return lists of one length or shorter, and the targets of each."""
    count = draw(st.integers(1, 4))
    some = st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=8)
    lists = [draw(some) for _ in range(count)]
    targets = [draw(some.filter(bool)) for _ in range(count)]
    return lists, targets


def arrays(lists: list[list[int]]) -> Int32:
    """Return lists as an array, -1 behind the last."""
    return np.array([row + [-1] * (8 - len(row)) for row in lists], np.int32)


def ragged(targets: list[list[int]]) -> tuple[Int32, Int64]:
    """Return targets as columns."""
    return np.array([item for row in targets for item in row], np.int32), np.cumsum([len(row) for row in targets])


def plain_auc(row: list[int], right: list[int]) -> float:
    """Compare every target with every other item."""
    level = {item: -rank for rank, item in enumerate(row)}
    wrong = [item for item in range(ITEMS) if item not in right]
    lowest = -math.inf
    pairs = [(level.get(a, lowest), level.get(b, lowest)) for a in right for b in wrong]
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def plain(row: list[int], right: list[int], cut: int) -> dict[str, float]:
    """Measure one list as the definitions read."""
    hits = [rank for rank, item in enumerate(row[:cut], start=1) if item in right]
    precision, recall = len(hits) / cut, len(hits) / len(right)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(cut, len(right)) + 1))
    return {
        f"hr@{cut}": float(bool(hits)),
        f"ndcg@{cut}": sum(1 / math.log2(rank + 1) for rank in hits) / ideal,
        f"mrr@{cut}": 1 / hits[0] if hits else 0.0,
        f"recall@{cut}": recall,
        f"precision@{cut}": precision,
        f"f1@{cut}": 2 * precision * recall / (precision + recall) if hits else 0.0,
    }


@settings(deadline=None)
@given(asked())
def test_accuracy_is_what_its_definitions_say(drawn: tuple[list[list[int]], list[list[int]]]) -> None:
    """Every measure at every cut is that of a plain loop."""
    lists, targets = drawn
    measured = measures.accuracy(arrays(lists), *ragged(targets), np.full(len(lists), ITEMS))
    assert len(measured) == 6 * len(measures.CUTS) + 1
    for question, (row, right) in enumerate(zip(lists, targets, strict=True)):
        for cut in measures.CUTS:
            for name, expected in plain(row, right, cut).items():
                assert expected == pytest.approx(measured[name][question], abs=1e-6), name
        assert plain_auc(row, right) == pytest.approx(measured["auc"][question], abs=1e-6)


def test_a_question_all_of_whose_items_are_right_has_no_pair_to_compare() -> None:
    """Its AUC is one half."""
    measured = measures.accuracy(np.array([[0, 1]], np.int32), np.array([0, 1], np.int32), np.array([2]), np.array([2]))
    assert [0.5] == measured["auc"].tolist()


@settings(deadline=None)
@given(asked(), st.randoms(use_true_random=False))
def test_parts_are_measured_as_if_their_targets_were_all(
    drawn: tuple[list[list[int]], list[list[int]]], random: Random
) -> None:
    """Choosing targets and dropping questions without any is the same as asking only about these."""
    _, targets = drawn
    flat, ends = ragged(targets)
    chosen = np.array([random.random() < 0.5 for _ in flat], bool)
    asked_again, kept, kept_ends = measures.part(flat, ends, chosen)
    flags = iter(chosen)
    left = [[item for item in row if next(flags)] for row in targets]
    assert [question for question, row in enumerate(left) if row] == asked_again.tolist()
    assert [item for row in left for item in row] == kept.tolist()
    assert np.cumsum([len(row) for row in left if row], dtype=np.int64).tolist() == kept_ends.tolist()


def plain_rbo(first: list[int], second: list[int], p: float) -> float:
    """Return the formula with sets."""
    depth = min(len(first), len(second))
    if depth == 0:
        return float(not first and not second)
    shared = [len(set(first[:d]) & set(second[:d])) / d for d in range(1, depth + 1)]
    weighted = sum(share * p**d for d, share in enumerate(shared, start=1))
    return shared[-1] * p**depth + (1 - p) / p * weighted


@settings(deadline=None)
@given(asked(), st.floats(0.1, 0.95))
def test_rbo_is_its_formula(drawn: tuple[list[list[int]], list[list[int]]], p: float) -> None:
    """Rank-biased overlap is the formula, symmetric, and 1 of a list with itself."""
    lists, others = drawn
    found = measures.rbo(arrays(lists), arrays(others), p)
    expected = [plain_rbo(a, b, p) for a, b in zip(lists, others, strict=True)]
    assert expected == pytest.approx(found.tolist(), abs=1e-6)
    assert found.tolist() == measures.rbo(arrays(others), arrays(lists), p).tolist()
    assert [1.0] * len(lists) == pytest.approx(measures.rbo(arrays(lists), arrays(lists), p).tolist())


def test_rbo_comes_near_average_overlap_as_persistence_nears_one() -> None:
    """The published check: [1, 2, 3] against [1, 3, 2] overlaps by .8333 on average at p = 1, extrapolated by 1."""
    first, second = np.array([[1, 2, 3]], np.int32), np.array([[1, 3, 2]], np.int32)
    overlap = np.mean([1, 1 / 2, 1])
    assert overlap == pytest.approx(0.8333, abs=1e-4)
    assert [1.0] == pytest.approx(measures.rbo(first, second, 1 - 1e-6).tolist(), abs=1e-4)


@settings(deadline=None)
@given(asked(), st.integers(0, 1000))
def test_spread_is_the_mean_over_pairs(drawn: tuple[list[list[int]], list[list[int]]], seed: int) -> None:
    """Intra-list distance by vectors and by categories is that of a loop over pairs."""
    lists, _ = drawn
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(ITEMS, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[3] = 0
    categories = random.integers(-1, 3, ITEMS).astype(np.int32)
    apart = measures.spread_of_vectors(arrays(lists), vectors)
    unlike = measures.spread_of_categories(arrays(lists), categories)
    for question, row in enumerate(lists):
        known = [item for item in row if item != 3]
        pairs = [1 - float(vectors[a] @ vectors[b]) for a in known for b in known if a != b]
        assert (np.mean(pairs) if pairs else 0) == pytest.approx(apart[question], abs=1e-5)
        sorted_ = [categories[item] for item in row if categories[item] >= 0]
        count = len(sorted_)
        different = sum(a != b for a in sorted_ for b in sorted_)
        assert (different / (count * (count - 1)) if count > 1 else 0) == pytest.approx(unlike[question], abs=1e-6)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_gini_is_half_the_relative_mean_difference(shown: list[int]) -> None:
    """The sorted formula is the mean absolute difference of all pairs over twice the mean."""
    counts = np.array(shown)
    mean = counts.mean()
    expected = np.abs(counts[:, None] - counts).mean() / (2 * mean) if mean else 0.0
    assert expected == pytest.approx(measures.gini(counts), abs=1e-9)


def test_a_list_like_the_history_is_calibrated_and_any_other_is_not() -> None:
    """Divergence is 0 for the same shares, and grows with what the list lacks."""
    categories = np.array([0, 0, 1, 1, 2, -1], np.int32)
    lists = np.array([[0, 2], [0, 1], [4, -1], [5, -1]], np.int32)
    histories, ends = np.array([1, 3] * 4, np.int32), np.array([2, 4, 6, 8])
    found = measures.miscalibration(lists, histories, ends, categories).tolist()
    assert found[0] == pytest.approx(0.0, abs=1e-6)
    assert found[0] < found[1] < found[2]
    assert found[2] == pytest.approx(math.log(100), abs=1e-5)
    assert found[3] == 0.0
