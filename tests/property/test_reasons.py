"""Reasons are faithful: what is stated of an event is what its absence takes away."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from models.events import Events, Weighing
from models.reasons import (
    MAX_REASONS,
    SHARE_STEPS,
    Groups,
    contribute,
    explain,
    group,
    no_groups,
    no_reasons,
)

ITEMS, DIM, NOW_MS = 12, 6, 10**9
HALF_LIVES_MS = np.array([3.6e6, 8.64e7])
WEIGHING = Weighing(np.array([0.2, 1.0, 3.0, 0.0]), HALF_LIVES_MS)
SCALES = 0.6 / 2.5, 0.4 / 3.5
#: Item, type code, age in ms.
EVENTS = st.lists(
    st.tuples(st.integers(0, ITEMS + 1), st.integers(0, 3), st.integers(-1_000, 10**8)), min_size=1, max_size=20
)
SEEDS = st.integers(0, 2**32 - 1)

Happened = list[tuple[int, int, int]]
Doubles = npt.NDArray[np.float64]


class Case(NamedTuple):
    """Item vectors, groups of events, how many, and what they contribute to every item."""

    vectors: npt.NDArray[np.float32]
    groups: Groups
    known: int
    contributed: Doubles


def events_of(happened: Happened) -> Events:
    """Return the events of one user behind those of another, who has one."""
    items, kinds, ages = zip((0, 1, 0), *happened, strict=True)
    return Events(
        np.array(items, np.int32), np.array(kinds, np.uint8), NOW_MS - np.array(ages, np.int64),
        np.array([1, len(items)], np.int64),
    )  # fmt: skip


def case(seed: int, happened: Happened) -> Case:
    """
    Group a user's events and tell what each group adds to each of `ITEMS` items.

    Vectors are of eighths: their products are exact in float32, so what is told may differ by float64's rounding only.
    """
    vectors = (np.random.default_rng(seed).integers(-24, 25, (ITEMS, DIM)) / 8).astype(np.float32)
    groups = no_groups(ITEMS)
    count = group(events_of(happened), 1, ITEMS, NOW_MS, WEIGHING, *SCALES, groups)
    contribute(vectors, np.arange(ITEMS, dtype=np.int32), groups, count)
    return Case(vectors, groups, count, groups.contributed[:ITEMS, :count].copy())


def query(happened: Happened, vectors: npt.NDArray[np.float32]) -> Doubles:
    """Return the weighted sum of the events' vectors, from the definition."""
    found = np.zeros(DIM)
    for item, kind, age_ms in happened:
        if item < ITEMS:
            left = np.exp2(-max(age_ms, 0) / HALF_LIVES_MS)
            found += WEIGHING.of_kind[kind] * float(np.dot(SCALES, left)) * vectors[item].astype(np.float64)
    return found


@given(SEEDS, EVENTS, st.data())
def test_deleting_events_costs_what_is_stated(seed: int, happened: Happened, data: st.DataObject) -> None:
    """The personal score without a group, with the lengths held, is lower by exactly its contribution."""
    made = case(seed, happened)
    if not made.known:
        return
    gone = data.draw(st.integers(0, made.known - 1))
    pair = made.groups.items[gone], made.groups.kinds[gone]
    left = [event for event in happened if event[:2] != pair]
    lost = made.vectors @ (query(happened, made.vectors) - query(left, made.vectors))
    np.testing.assert_allclose(made.contributed[:, gone], lost, atol=1e-9)


@given(SEEDS, EVENTS)
def test_contributions_add_up_to_the_score(seed: int, happened: Happened) -> None:
    """Nothing of the personal score is left over when all its events are named."""
    made = case(seed, happened)
    np.testing.assert_allclose(
        made.vectors @ query(happened, made.vectors), made.contributed.sum(axis=1), atol=1e-9
    )  # fmt: skip


@given(SEEDS, EVENTS, st.floats(-2, 2))
def test_the_strongest_are_named_with_their_shares(seed: int, happened: Happened, older: float) -> None:
    """Named are the largest positive contributions, as shares of all that speaks for the item, the largest first."""
    made = case(seed, happened)
    reasons = no_reasons(1, ITEMS)
    for rank, contributed in enumerate(made.contributed):
        liked = float(contributed.sum()) + older
        explain(contributed.copy(), liked, made.groups, made.known, reasons, 0, rank)
        whole = np.maximum(contributed, 0).sum() + max(liked - contributed.sum(), 0.0)
        strongest = sorted(range(made.known), key=lambda at: (-contributed[at], at))[:MAX_REASONS]
        expected = [
            (int(made.groups.items[at]), int(made.groups.kinds[at]), round(contributed[at] / whole * SHARE_STEPS))
            for at in strongest
            if liked > 0 and contributed[at] > 0
        ]
        columns = (column[0, rank].tolist() for column in reasons)
        named = [reason for reason in zip(*columns, strict=True) if reason[2]]
        assert [reason for reason in expected if reason[2]] == named


@given(SEEDS, EVENTS, st.integers(0, ITEMS))
def test_lists_that_end_early(seed: int, happened: Happened, size: int) -> None:
    """Items behind the last are not looked at, and those before it all the same."""
    made = case(seed, happened)
    groups = made.groups
    groups.contributed[:] = np.nan
    items = np.full(ITEMS, -1, np.int32)
    items[:size] = np.arange(size)
    contribute(made.vectors, items, groups, made.known)
    assert made.contributed[:size].tolist() == groups.contributed[:size, : made.known].tolist()
