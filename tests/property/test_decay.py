"""Decayed sums are exact: no order, no partition of the events, no replay changes a bit."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from models.decay import decay, decayed_sum, epoch_share

HALF_LIFE_S = 86_400.0
EVENTS = st.lists(
    st.tuples(st.integers(1_600_000_000_000, 1_700_000_000_000), st.floats(0, 100, allow_subnormal=False)), max_size=40
)


def summed(events: list[tuple[int, float]]) -> Counter[int]:
    """Sum the events' shares by epoch."""
    epochs: Counter[int] = Counter()
    for ts_ms, weight in events:
        epoch, share = epoch_share(ts_ms, weight, HALF_LIFE_S)
        epochs[epoch] += share
    return epochs


@given(EVENTS, st.randoms(use_true_random=False))
def test_order_does_not_matter(events: list[tuple[int, float]], random: object) -> None:
    """Any permutation of the events gives the same integers."""
    shuffled = list(events)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert summed(events) == summed(shuffled)


@given(EVENTS, st.integers(0, 40))
def test_merging_does_not_matter(events: list[tuple[int, float]], cut: int) -> None:
    """Two halves counted apart and merged are the whole."""
    merged = summed(events[:cut])
    for epoch, share in summed(events[cut:]).items():
        merged[epoch] += share
    assert summed(events) == merged


@given(EVENTS)
def test_the_sum_is_the_sum_of_decayed_weights(events: list[tuple[int, float]]) -> None:
    """The integers stand for the exponential decay of each weight, to the precision kept."""
    now_ms = 1_700_000_000_000
    expected = sum(weight * float(decay(now_ms - ts_ms, HALF_LIFE_S)) for ts_ms, weight in events)
    actual = decayed_sum(summed(events), now_ms, HALF_LIFE_S)
    assert math.isclose(expected, actual, rel_tol=1e-8, abs_tol=1e-8)


@given(EVENTS, st.integers(0, 50))
def test_whole_half_lives_halve_exactly(events: list[tuple[int, float]], count: int) -> None:
    """A value some whole half-lives later is the same number with a smaller exponent, bit by bit."""
    epochs = summed(events)
    now_ms = 1_700_006_400_000
    later_ms = now_ms + count * 86_400_000
    assert math.ldexp(decayed_sum(epochs, now_ms, HALF_LIFE_S), -count) == decayed_sum(epochs, later_ms, HALF_LIFE_S)
