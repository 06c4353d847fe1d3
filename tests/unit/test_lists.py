"""The lists that users had before, as ranking reads them."""

from __future__ import annotations

import numpy as np

from streams.catalogue.matrix import Catalogue
from streams.interests.lists import previous_lists
from streams.interests.slab import Slab
from streams.interests.state import LastList
from streams.settings import Settings
from tests.support.batches import batch_of
from tests.support.strategies import event_of

START_MS = 1_700_000_000_000


def test_lists_are_those_of_the_heads() -> None:
    """Items by rank with since-times and price marks; an item no longer known, a user without a list, one not asked."""
    catalogue = Catalogue(2)
    rows_of = dict(zip("abc", catalogue.rows(list("abc")).tolist(), strict=True))
    slab = Slab(Settings(), catalogue)
    slab.fold(batch_of([event_of("clicks", user, "a", START_MS, "e") for user in "uvw"]))
    rows = np.array([slab.row(user) for user in "uvw"], np.int64)
    last = LastList(
        3, START_MS + 50, (("b", START_MS - 9), ("gone", START_MS), ("c", START_MS)), START_MS, 1, (5, 6, 7), (2, -7)
    )
    for user in "uw":
        slab.serve(int(rows["uvw".index(user)]), last)
    previous = previous_lists(slab, rows, np.array([True, True, False]))

    assert [[rows_of["b"], -2, rows_of["c"]], [-1] * 3, [-1] * 3] == previous.rows.tolist()
    assert [START_MS - 9, START_MS, START_MS] == previous.since_ms[0].tolist()
    assert [5, 6, 7] == previous.price_marks[0].tolist()
    assert [[2, -7], [0, 0], [0, 0]] == previous.explored.tolist()
    assert [START_MS, 0, 0] == previous.made_ms.tolist()


def test_only_interactions_move_a_list() -> None:
    """An impression leaves a list as it is; an event that counts does not."""
    slab = Slab(Settings(), Catalogue(2))
    slab.fold(batch_of([event_of("clicks", "u", "a", START_MS, "e1")]))
    rows = np.array([slab.row("u")], np.int64)
    slab.serve(int(rows[0]), LastList(3, START_MS, (("b", START_MS),), START_MS, 1, ()))
    moved = [bool(previous_lists(slab, rows, np.ones(1, np.bool_)).moved[0])]
    slab.fold(batch_of([event_of("impressions", "u", "b", START_MS + 1, "e2")]))
    moved.append(bool(previous_lists(slab, rows, np.ones(1, np.bool_)).moved[0]))
    slab.fold(batch_of([event_of("clicks", "u", "b", START_MS + 2, "e3")]))
    moved.append(bool(previous_lists(slab, rows, np.ones(1, np.bool_)).moved[0]))
    assert [False, False, True] == moved
