"""Assignment: deterministic, uniform, independent between salts, and never moved by a ramp."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.experiments.assignment import BUCKETS, Experiments, user_hash
from streams.experiments.definitions import Experiment, Variant

USERS = [f"u{number}" for number in range(50_000)]
WEIGHTS = st.lists(st.floats(0, 100), min_size=1, max_size=5).filter(lambda weights: sum(weights) > 0)


def experiment(weights: list[float], coverage: float, key: str = "e", salt: str = "") -> Experiment:
    """Return an experiment of variants v0, v1 and so on."""
    variants = tuple(Variant(name=f"v{number}", weight=weight) for number, weight in enumerate(weights))
    return Experiment(key=key, salt=salt, coverage=coverage, variants=variants)


@given(WEIGHTS, st.floats(0, 1), st.floats(0, 1))
def test_a_ramp_never_moves_an_assigned_user(weights: list[float], one: float, other: float) -> None:
    """Whoever takes part at a coverage takes the same part at every higher one."""
    low, high = (Experiments([experiment(weights, coverage)]) for coverage in sorted((one, other)))
    for user in USERS[:200]:
        before = low.assign(user)
        assert not before or before == high.assign(user)


@given(WEIGHTS)
def test_full_coverage_leaves_nobody_out(weights: list[float]) -> None:
    """At coverage 1 every user has a variant."""
    full = Experiments([experiment(weights, 1.0)])
    left_out = [user for user in USERS[:200] if not full.assign(user)]
    assert not left_out


@given(WEIGHTS)
def test_no_coverage_lets_nobody_in(weights: list[float]) -> None:
    """At coverage 0 no user has a variant."""
    none = Experiments([experiment(weights, 0.0)])
    let_in = [user for user in USERS[:200] if none.assign(user)]
    assert not let_in


def chi_square_z(table: np.ndarray) -> float:
    """Return how many standard deviations a contingency table's chi-square lies above its mean."""
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return float((((table - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


def test_buckets_are_uniform() -> None:
    """Users spread evenly over 100 groups of buckets, under several salts."""
    for salt in (b"exp-00", b"exp-01", b"another"):
        groups = np.array([user_hash(salt, user) * 100 >> 64 for user in USERS])
        counts = np.bincount(groups, minlength=100)
        z = (((counts - 500) ** 2 / 500).sum() - 99) / np.sqrt(2 * 99)
        assert abs(z) < 4


def test_experiments_of_different_salts_are_independent() -> None:
    """Keys that differ in their last character place users independently (a weak hash, FNV-1a, fails this)."""
    deciles = {
        key: np.array([user_hash(key.encode(), user) * 10 >> 64 for user in USERS])
        for key in ("exp-00", "exp-01", "exp-02", "exp-10")
    }
    for one, other in itertools.combinations(deciles.values(), 2):
        table = np.zeros((10, 10))
        np.add.at(table, (one, other), 1)
        assert chi_square_z(table) < 4


def test_the_parts_follow_the_weights() -> None:
    """1 : 3 at half coverage gives an eighth and three eighths of the users."""
    half = Experiments([experiment([1, 3], 0.5)])
    variants = [parts["e"].variant for user in USERS if (parts := half.assign(user))]
    actual = [variants.count(name) / len(USERS) for name in ("v0", "v1")]
    np.testing.assert_allclose([0.125, 0.375], actual, atol=0.01)


def test_golden_values() -> None:
    """The places of these users are fixed for good: a change would move every user of every running experiment."""
    actual = [user_hash(b"exp-1", user) * BUCKETS >> 64 for user in ("u1", "u2", "用户", "a" * 200)]
    expected = [8618, 5786, 6493, 2103]
    assert expected == actual
