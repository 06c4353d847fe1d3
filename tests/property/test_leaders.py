"""The strongest items against a sort."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.leaders import leaders, strongest


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), max_size=20), st.integers(1, 6))
def test_the_strongest_are_the_first_of_a_sort(items: list[tuple[float, bool]], count: int) -> None:
    """Of usable items with a value, the greatest first, of equals the one whose id comes first."""
    order = np.random.default_rng(len(items)).permutation(len(items))
    found = strongest(
        np.array([value for value, _ in items], np.float32), np.array([usable for _, usable in items], np.bool_),
        order, count,
    )  # fmt: skip
    ranked = sorted((-value, order[row], row) for row, (value, usable) in enumerate(items) if usable and value > 0)
    assert [row for _, _, row in ranked[:count]] == found.tolist()


@given(st.lists(st.tuples(st.integers(-1, 3), st.sampled_from([0.0, 0.5, 1.0])), max_size=30), st.integers(1, 4))
def test_leaders_are_the_strongest_of_each_category(items: list[tuple[int, float]], count: int) -> None:
    """Those of one category behind those of another, of none that is not known."""
    order = np.random.default_rng(len(items)).permutation(len(items))
    categories = np.array([category for category, _ in items], np.int32)
    values = np.array([value for _, value in items], np.float32)
    found = leaders(categories, values, np.ones(len(items), np.bool_), order, count)
    for category, (first, end) in enumerate(zip([0, *found.ends[:-1].tolist()], found.ends.tolist(), strict=False)):
        expected = strongest(values, categories == category, order, count)
        assert expected.tolist() == found.items[first:end].tolist()
    assert sorted({category for category, value in items if value > 0 and category >= 0}) == sorted(
        set(categories[found.items].tolist())
    )
