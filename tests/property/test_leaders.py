"""The strongest items against a sort."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.leaders import strongest


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
