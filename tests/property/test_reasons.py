"""Reasons are faithful: what is stated of an event is what its absence takes away."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.reasons import contributions, event_weights, shares, strongest

CASES = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 10))


def case(seed: int, events: int, items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return event weights (e,), event vectors (e, 6) and item vectors (k, 6)."""
    random = np.random.default_rng(seed)
    weights = event_weights(random.random(events), random.random(events), 0.6 / 2.5, 0.4 / 3.5)
    return weights, random.standard_normal((events, 6)), random.standard_normal((items, 6))


@given(CASES, st.data())
def test_deleting_an_event_costs_what_is_stated(made: tuple[int, int, int], data: st.DataObject) -> None:
    """The personal score without the event, with the lengths held, is lower by exactly its contribution."""
    weights, events, items = case(*made)
    gone = data.draw(st.integers(0, len(weights) - 1))
    contributed = contributions(weights, events, items)
    whole = items @ (weights @ events)
    left = items @ (np.delete(weights, gone) @ np.delete(events, gone, axis=0))
    np.testing.assert_allclose(contributed[:, gone], whole - left, atol=1e-12)


@given(CASES)
def test_contributions_add_up_to_the_score(made: tuple[int, int, int]) -> None:
    """Nothing of the personal score is left over when all its events are named."""
    weights, events, items = case(*made)
    np.testing.assert_allclose(items @ (weights @ events), contributions(weights, events, items).sum(1), atol=1e-12)


@given(CASES, st.floats(-2, 2))
def test_shares_are_shares(made: tuple[int, int, int], older: float) -> None:
    """Shares lie in 0..1, sum to at most 1, and to 1 when no older history speaks for the item."""
    weights, events, items = case(*made)
    contributed = contributions(weights, events, items)
    share = shares(contributed, contributed.sum(axis=1) + older)
    assert ((share >= 0) & (share <= 1 + 1e-12)).all()
    spoken = (contributed > 0).any(axis=1)
    if older <= 0:
        np.testing.assert_allclose(share.sum(axis=1), spoken.astype(float), atol=1e-9)
    else:
        assert (share.sum(axis=1) <= 1 + 1e-12).all()


@given(CASES, st.integers(1, 5))
def test_the_strongest_are_the_strongest(made: tuple[int, int, int], count: int) -> None:
    """No event left out has a larger share than one that is named."""
    weights, events, items = case(*made)
    share = shares(contributions(weights, events, items), np.zeros(len(items)))
    named = strongest(share, count)
    for row, columns in zip(share, named, strict=True):
        expected = sorted(row.tolist(), reverse=True)[:count]
        assert expected == row[columns].tolist()
