"""Decayed Space-Saving: exact while there is room, within its bounds beyond, the same however batched or restored."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.heavy_hitters import KEPT, Counted, HeavyHitters
from tests.support.plain_signals import PlainHitters

ONE = 1 << 30
Pair = tuple[int, int, int, int]
#: Row, target, epoch, share in eighths of a weight of one: many more targets than a row counts.
PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(5, 8), st.integers(1, 32)), max_size=120)


def columns(pairs: list[Pair]) -> tuple[npt.NDArray[Any], ...]:
    """Pairs as `learn` takes them."""
    rows, targets, epochs, shares = (np.array([pair[number] for pair in pairs], np.int64) for number in range(4))
    return rows, targets.astype(np.int32), epochs, shares * (ONE // 8)


def learned(pairs: list[Pair]) -> HeavyHitters:
    """Count pairs in one batch."""
    hitters = HeavyHitters()
    hitters.learn(*columns(pairs))
    return hitters


# Compiled here, before Hypothesis looks at the clock.
learned([(0, 0, 5, 8)])


def as_plain(counted: Counted) -> tuple[int, float, list[tuple[int, float, float]]]:
    """A row in Python's types, in the order of its places."""
    places = zip(counted.targets.tolist(), counted.weights.tolist(), counted.errors.tolist(), strict=True)
    return counted.epoch, counted.total, list(places)


def many(seed: int, count: int, targets: int) -> list[Pair]:
    """Pairs of one row, skewed over more targets than it counts."""
    rng = np.random.default_rng(seed)
    numbers = (targets * rng.random(count) ** 3).astype(int).tolist()
    return [(0, number, 5 + place * 3 // count, 8) for place, number in enumerate(numbers)]


@given(PAIRS, st.lists(st.integers(0, 120), max_size=4))
def test_batches_do_not_matter(pairs: list[Pair], cuts: list[int]) -> None:
    """The same sequence in any batches gives the same bytes as plain loops."""
    hitters = HeavyHitters()
    marks = sorted({0, *cuts, len(pairs)})
    for begin, end in itertools.pairwise(marks):
        hitters.learn(*columns(pairs[begin:end]))
    plain = PlainHitters()
    for row, target, epoch, eighths in pairs:
        plain.learn(row, target, epoch, eighths / 8)

    assert [plain.counted(row) for row in range(4)] == [as_plain(hitters.counted(row)) for row in range(4)]


@given(PAIRS, st.randoms(use_true_random=False))
def test_order_does_not_matter_while_there_is_room(pairs: list[Pair], rng: Any) -> None:
    """Fewer targets than places: any order gives the same weights, none with an error."""
    shuffled = list(pairs)
    rng.shuffle(shuffled)
    for row in range(4):
        (epoch, total, places), (epoch_2, total_2, places_2) = (
            as_plain(learned(order).counted(row)) for order in (pairs, shuffled)
        )

        assert (epoch, total, sorted(places)) == (epoch_2, total_2, sorted(places_2))
        assert all(error == 0 for _, _, error in places)


@pytest.mark.parametrize("seed", range(5))
def test_bounds_hold_beyond_the_room(seed: int) -> None:
    """Ten times more targets than places: weights enclose the truth, and nothing heavy is missing."""
    pairs = many(seed, 20_000, 10 * KEPT)
    counted = learned(pairs).counted(0)
    truth: defaultdict[int, float] = defaultdict(float)
    for _, target, epoch, _ in pairs:
        truth[target] += 2.0 ** (epoch - counted.epoch)
    found = set(counted.targets.tolist())

    assert len(counted.targets) == KEPT
    assert counted.total == sum(truth.values())
    assert counted.weights.min() <= counted.total / KEPT
    assert {target for target, weight in truth.items() if weight > counted.total / KEPT} <= found
    for target, weight, error in as_plain(counted)[2]:
        assert weight - error <= truth[target] <= weight


@pytest.mark.parametrize("seed", range(3))
def test_a_full_row_is_that_of_plain_loops(seed: int) -> None:
    """Evictions too: which place is given up does not depend on batches."""
    pairs = many(seed, 3_000, 4 * KEPT)
    plain = PlainHitters()
    for row, target, epoch, eighths in pairs:
        plain.learn(row, target, epoch, eighths / 8)

    assert plain.counted(0) == as_plain(learned(pairs).counted(0))


def test_a_restored_row_goes_on_as_if_never_stopped() -> None:
    """Stop anywhere, restore into another place, go on: the same bytes; also beyond the room."""
    pairs = many(7, 4_000, 3 * KEPT)
    whole = learned(pairs)
    for cut in (1, 9, 40, 200, 2_000):
        restored = HeavyHitters()
        restored.learn(*columns([(9, 1, 5, 8)]))
        restored.restore(0, learned(pairs[:cut]).counted(0))
        restored.learn(*columns(pairs[cut:]))

        assert as_plain(whole.counted(0)) == as_plain(restored.counted(0))


def test_old_pairs_and_empty_rows_change_nothing() -> None:
    """A pair 24 half-lives before the newest is dropped; a row never met counts nothing."""
    hitters = learned([(0, 1, 40, 8), (0, 2, 16, 8)])

    assert (40, 1.0, [(1, 1.0, 0.0)]) == as_plain(hitters.counted(0))
    assert (0, 0.0, []) == as_plain(hitters.counted(5_000))
    with pytest.raises(ValueError, match="a row counts"):
        hitters.restore(0, Counted(0, 0.0, np.zeros(KEPT + 1, np.int32), np.zeros(KEPT + 1), np.zeros(KEPT + 1)))


def test_memory_is_bounded() -> None:
    """Blocks that rows grew out of are used again: the arena holds little more than what is counted."""
    rng = np.random.default_rng(3)
    pairs = [
        (int(row), int(target), 5, 8)
        for row, target in zip(rng.integers(0, 200, 150_000), rng.integers(0, 2_000, 150_000), strict=True)
    ]
    hitters = HeavyHitters()
    for begin in range(0, len(pairs), 10_000):
        hitters.learn(*columns(pairs[begin : begin + 10_000]))

    assert sum(len(hitters.counted(row).targets) for row in range(200)) == 200 * KEPT
    assert hitters.nbytes < 3 * 200 * KEPT * 20
