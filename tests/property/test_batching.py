"""Token-budget batches: for every list of lengths, not only for likely ones."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.batching import padding_tokens, plan_batches, smallest_saturating

LENGTHS = st.lists(st.integers(1, 600), max_size=200)
BUDGETS = st.integers(1, 5_000)


@given(LENGTHS, BUDGETS)
def test_each_text_is_in_one_batch(lengths: list[int], budget: int) -> None:
    """The batches are a partition of the positions, and none is empty."""
    batches = plan_batches(lengths, budget)
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    assert all(batches)


@given(LENGTHS, BUDGETS)
def test_the_budget_holds_after_padding(lengths: list[int], budget: int) -> None:
    """Rows times the longest row stay within the budget, unless one text alone is above it."""
    for batch in plan_batches(lengths, budget):
        assert len(batch) == 1 or len(batch) * max(lengths[position] for position in batch) <= budget


@given(LENGTHS, BUDGETS)
def test_lengths_rise(lengths: list[int], budget: int) -> None:
    """Batches and their texts go from short to long, which is what keeps padding small."""
    flat = [lengths[position] for batch in plan_batches(lengths, budget) for position in batch]
    assert flat == sorted(lengths)


@given(LENGTHS, BUDGETS, st.integers(0, 300))
def test_padding_costs_no_more_than_a_batch(lengths: list[int], budget: int, cost: int) -> None:
    """With a batch's cost given, no batch has more padding than that; nothing is lost and the budget still holds."""
    batches = plan_batches(lengths, budget, cost)
    assert sorted(range(len(lengths))) == sorted(itertools.chain.from_iterable(batches))
    for batch in batches:
        inside = [lengths[position] for position in batch]
        assert padding_tokens(inside) <= cost
        assert len(batch) == 1 or len(batch) * max(inside) <= budget


@given(LENGTHS, BUDGETS, st.integers(0, 300))
def test_a_taken_batch_is_planned_as_it_is(lengths: list[int], budget: int, cost: int) -> None:
    """Planning one batch alone gives that batch: the backlog and the encoder agree."""
    for batch in plan_batches(lengths, budget, cost):
        inside = [lengths[position] for position in batch]
        assert plan_batches(inside, budget, cost) == [list(range(len(batch)))]


@given(LENGTHS, BUDGETS)
def test_batches_are_full(lengths: list[int], budget: int) -> None:
    """No batch could have taken the next one's first text: the device is never given less than fits."""
    batches = plan_batches(lengths, budget)
    for batch, following in itertools.pairwise(batches):
        assert (len(batch) + 1) * lengths[following[0]] > budget


@given(st.lists(st.integers(1, 600), min_size=1, max_size=50))
def test_padding_is_what_the_rectangle_adds(lengths: list[int]) -> None:
    """Padding plus text is the padded rectangle."""
    assert padding_tokens(lengths) + sum(lengths) == len(lengths) * max(lengths)


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_must_be_positive(budget: int) -> None:
    """A budget of nothing would admit every text as an exception."""
    with pytest.raises(ValueError, match="positive"):
        plan_batches([1], budget)


@given(st.lists(st.floats(0, 1e6), min_size=6, max_size=6))
def test_a_saturating_budget_has_doubled_for_a_gain_each_time(rates: list[float]) -> None:
    """Every doubling on the way gained 3 %, and the next one would not have (or is out of bounds)."""
    rate_of = {2**step: rate for step, rate in enumerate(rates)}
    found = smallest_saturating(rate_of.__getitem__, start=1, most=32)
    steps = found.bit_length() - 1
    assert all(rates[step + 1] >= 1.03 * rates[step] for step in range(steps))
    assert found == 32 or rates[steps] == 0 or rates[steps + 1] < 1.03 * rates[steps]
