"""Intervals by resampling users."""

from __future__ import annotations

import numpy as np
import pytest

from models.bootstrap import resampled


def test_an_interval_is_as_wide_as_the_normal_one_where_that_holds() -> None:
    """Of many independent answers, the ends are near mean +- 1.96 standard errors."""
    values = np.random.default_rng(1).normal(0.3, 1.0, (2_000, 1))
    found = resampled(values, np.arange(2_000, dtype=np.int32)).interval(0)
    error = values.std() / np.sqrt(2_000)
    assert values.mean() == pytest.approx(found.mean)
    assert values.mean() - 1.96 * error == pytest.approx(found.low, abs=error / 10)
    assert values.mean() + 1.96 * error == pytest.approx(found.high, abs=error / 10)


def test_answers_to_one_user_count_as_one() -> None:
    """Copies of every answer leave the interval as it was: they tell nothing new."""
    values = np.random.default_rng(2).normal(0.0, 1.0, (200, 2))
    users = np.arange(200, dtype=np.int32)
    once = resampled(values, users)
    copied = resampled(np.repeat(values, 9, axis=0), np.repeat(users, 9))
    for column in range(2):
        assert once.interval(column) == pytest.approx(copied.interval(column))


def test_pairing_finds_a_small_steady_difference() -> None:
    """A difference far below the spread of answers is above 0 when it is there for every user, and not else."""
    random = np.random.default_rng(3)
    base = random.normal(0.0, 5.0, 300)
    better = base + 0.1 + random.normal(0.0, 0.1, 300)
    users = np.arange(300, dtype=np.int32)
    means = resampled(np.stack([better, base, better - base], axis=1), users)
    assert not means.interval(0).above
    assert means.difference(0, 1).above
    assert not means.difference(1, 0).above
    assert means.interval(2) == pytest.approx(means.difference(0, 1))


def test_draws_do_not_depend_on_how_they_are_cut() -> None:
    """Columns measured together or alone have the same ends; another seed has others."""
    values = np.random.default_rng(4).random((50, 3))
    users = np.repeat(np.arange(10, dtype=np.int32), 5)
    together = resampled(values, users)
    alone = [resampled(values[:, column : column + 1], users).means for column in range(3)]
    assert together.means == pytest.approx(np.concatenate(alone, axis=1))
    assert together.means.tolist() != resampled(values, users, seed=1).means.tolist()


def test_nothing_measured_is_refused() -> None:
    """A mean of nothing has no interval."""
    with pytest.raises(ValueError, match="no question"):
        resampled(np.empty((0, 2)), np.empty(0, np.int32))
