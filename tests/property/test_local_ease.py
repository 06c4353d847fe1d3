"""Weights of columns solved by themselves, against the dense solution and against plain systems of equations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models import ease, local_ease

ITEMS = 30
Histories = npt.NDArray[np.int32]


def world(seed: int, users: int, items: int = ITEMS) -> Histories:
    """Return histories of up to 12 items, some met by many and some by nobody."""
    random = np.random.default_rng(seed)
    histories = np.full((users, 12), -1, np.int32)
    for row in histories:
        chosen = np.unique((items * random.random(random.integers(0, 13)) ** 2).astype(np.int32))
        row[: len(chosen)] = random.permutation(chosen)
    return histories


def naive(histories: Histories, regularisation: float, support: int) -> npt.NDArray[np.float64]:
    """Return (items, items) weights: a ridge regression of each item on those that explain most of it."""
    met = np.zeros((len(histories), ITEMS))
    for user, row in enumerate(histories):
        met[user, row[row >= 0]] = 1.0
    gram = met.T @ met
    weights = np.zeros((ITEMS, ITEMS))
    for item in range(ITEMS):
        # As float32 where the order of equals hangs on it; of those never met together the first ones.
        gains = gram[item].astype(np.float32) ** 2 / (gram.diagonal() + regularisation).astype(np.float32)
        order = [other for other in np.lexsort((np.arange(ITEMS), -gains)) if other != item][:support]
        system = gram[np.ix_(order, order)] + regularisation * np.eye(len(order))
        weights[order, item] = np.linalg.solve(system, gram[order, item])
    return weights


# Compiled here, before Hypothesis looks at the clock.
local_ease.fit_local(world(0, 1), ITEMS, 1.0, 1, 1)


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.sampled_from([0, 7, ITEMS]), st.sampled_from([1.0, 20.0]))
@hypothesis_settings(max_examples=50)
def test_with_everything_as_support_it_is_ease(seed: int, users: int, dense: int, regularisation: float) -> None:
    """The same weights as those of the dense inverse, however many pairs are counted beforehand."""
    histories = world(seed, users)
    expected = ease.fit(ease.co_occurrences(histories, ITEMS), regularisation, ITEMS).weights
    found = local_ease.fit_local(histories, ITEMS, regularisation, ITEMS, ITEMS, dense)

    # Rounding may hold what is 0 above it.
    assert np.abs(expected) == pytest.approx(np.abs(found.weights), abs=1e-4)
    assert bool(((found.targets >= 0) == (found.weights != 0)).all())


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.sampled_from([1, 5, 12]), st.sampled_from([0, 7, ITEMS]))
@hypothesis_settings(max_examples=50)
def test_each_column_is_a_regression_on_its_support(seed: int, users: int, support: int, dense: int) -> None:
    """Plain loops: the same weights, each where it belongs, the one of a row farthest from 0 first."""
    histories = world(seed, users)
    expected = naive(histories, 3.0, support)
    found = local_ease.fit_local(histories, ITEMS, 3.0, support, ITEMS, dense)
    weights = np.zeros((ITEMS, ITEMS))
    rows, slots = np.nonzero(found.targets >= 0)
    weights[rows, found.targets[rows, slots]] = found.weights[rows, slots]

    assert expected == pytest.approx(weights, abs=1e-4)
    assert bool((np.diff(np.abs(found.weights), axis=1) <= 0).all())


def test_only_the_heaviest_are_kept() -> None:
    """The heaviest of each row, as many as asked for; also over several batches of columns."""
    histories = world(5, 900, items=150)
    all_of_them = local_ease.fit_local(histories, 150, 3.0, 40, 150)
    found = local_ease.fit_local(histories, 150, 3.0, 40, 4)

    assert all_of_them.weights[:, :4].tolist() == found.weights.tolist()
    assert int((all_of_them.weights != 0).sum(axis=1).max()) > 4


def test_a_single_item_has_no_neighbours() -> None:
    """Nothing to fit it on, and nothing goes wrong."""
    assert [[-1, -1]] == local_ease.fit_local(np.zeros((3, 2), np.int32), 1, 1.0, 5, 2).targets.tolist()
