"""What users had met before a moment, against plain loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.histories import Histories
from models.interactions import Interactions

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=30)


@settings(deadline=None)
@given(PAIRS, st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30), st.integers(0, 6)), min_size=1, max_size=8))
def test_histories_are_what_stands_before(rows: list[tuple[int, int]], asked: list[tuple[int, int, int]]) -> None:
    """Lengths, distinct items, whether an item was met, and the items themselves."""
    users, items = (np.array([row[column] for row in rows], np.int32) for column in (0, 1))
    log = Interactions(users, items, items.astype(np.uint8), np.arange(len(rows)), items, items)
    histories = Histories(log)
    who, moments, wanted = (np.array([row[column] for row in asked], np.int32) for column in range(3))
    before = np.minimum(moments, len(rows)).astype(np.int64)
    plain = [[item for user, item in rows[:end] if user == one] for one, end in zip(who, before, strict=True)]
    assert [len(history) for history in plain] == histories.lengths(who, before).tolist()
    assert [len(set(history)) for history in plain] == histories.distinct(who, before).tolist()
    expected = [item in history for item, history in zip(wanted, plain, strict=True)]
    assert expected == histories.met(who, before, wanted).tolist()
    found, ends = histories.items(who, before)
    assert plain == [part.tolist() for part in np.split(found, ends[:-1])]
