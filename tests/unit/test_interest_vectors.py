"""Rolling sums: when they follow events in place, when they are made anew."""

from __future__ import annotations

import numpy as np
import pytest

from streams.catalogue.matrix import Catalogue
from streams.interests.slab import Slab
from streams.interests.sums import REBUILD_AFTER_FOLDS
from streams.interests.vectors import InterestVectors
from streams.settings import Settings
from streams.wire.events import Event
from streams.wire.models import Served
from tests.support.batches import batch_of
from tests.support.strategies import START_MS, event_of

SETTINGS = Settings()
HALF_LIFE_MS = round(SETTINGS.half_life_short_s * 1000)


class Shop:
    """A slab, and a catalogue of unit axes `a`, `b`, `c`."""

    def __init__(self) -> None:
        self.catalogue = Catalogue(3)
        for axis, item_id in enumerate("abc"):
            self.catalogue.set_vector(item_id, np.eye(3, dtype=np.float32)[axis])
        self.slab = Slab(SETTINGS, self.catalogue)

    def fold(self, *events: Event) -> None:
        """Fold a run."""
        self.slab.fold(batch_of(events))

    def row(self, user_id: str = "u") -> int:
        """Return the row of a user."""
        row = self.slab.row(user_id)
        assert row is not None
        return row

    def sums(self, user_id: str = "u") -> list[list[float]]:
        """Return short, long and negative of a user."""
        return [part[0].tolist() for part in InterestVectors(self.slab).gather(np.array([self.row(user_id)]))]

    def anew(self, user_id: str = "u") -> list[list[float]]:
        """Return them as they are when nothing is followed."""
        self.slab.store.users["stale"][self.row(user_id)] = True
        return self.sums(user_id)


def test_definition() -> None:
    """Weights, half-lives and the negative part are as the settings say."""
    shop = Shop()
    shop.fold(event_of("carts", "u", "a", START_MS, "e1"), event_of("dislikes", "u", "b", START_MS, "e2"))
    assert shop.sums() == [[3, 0, 0], [3, 0, 0], [0, 5, 0]]
    shop.fold(event_of("clicks", "u", "c", START_MS + HALF_LIFE_MS, "e3"))
    short, long, negative = shop.sums()
    assert short == [1.5, 0, 1]
    assert long == pytest.approx([3 * 2 ** (-3 / 60), 0, 1])
    assert negative == pytest.approx([0, 5 * 2 ** (-3 / 90), 0])


def test_events_are_followed_in_place() -> None:
    """A user's row follows events without being made anew, up to the limit."""
    shop = Shop()
    users = shop.slab.store.users
    for number in range(REBUILD_AFTER_FOLDS - 1):
        shop.fold(event_of("clicks", "u", "b", START_MS + number * 86_400_000, f"e{number}"))
    users = shop.slab.store.users
    shop.sums()
    assert users["folds"][shop.row()] == REBUILD_AFTER_FOLDS - 1
    shop.fold(event_of("clicks", "u", "b", START_MS + 10**11, "e999"))
    shop.sums()
    assert users["folds"][shop.row()] == 0


def test_late_item_vector_counts() -> None:
    """An event whose item has no vector yet counts from the moment the vector comes."""
    shop = Shop()
    shop.fold(event_of("clicks", "u", "new", START_MS, "e"))
    assert shop.sums()[0] == [0, 0, 0]
    shop.catalogue.set_vector("new", np.array([0, 0, 1], np.float32))
    assert shop.sums()[0] == [0, 0, 1]


def test_another_space_empties_the_rows() -> None:
    """With another dimension every user is made anew in the new space."""
    shop = Shop()
    shop.fold(event_of("clicks", "u", "a", START_MS, "e"))
    shop.sums()
    shop.catalogue.stage(Served("f", 5))
    shop.catalogue.switch()
    shop.catalogue.set_vector("a", np.eye(5, dtype=np.float32)[4])
    assert shop.sums()[0] == [0, 0, 0, 0, 1]


def test_events_after_a_switch_leave_nothing_of_the_old_space() -> None:
    """A sum that was followed before and after the switch, with no look between, is wholly of the new space."""
    shop = Shop()
    shop.fold(event_of("clicks", "u", "a", START_MS, "e1"))
    shop.sums()
    shop.catalogue.stage(Served("f", 3))
    shop.catalogue.stage_vector("a", np.array([0, 0, 1], np.float32))
    shop.catalogue.stage_vector("b", np.array([0, 0, 1], np.float32))
    shop.fold(event_of("clicks", "u", "b", START_MS, "e2"))
    assert shop.sums()[0] == [1, 1, 0]
    shop.catalogue.switch()
    shop.fold(event_of("clicks", "u", "a", START_MS, "e3"))
    assert shop.sums()[0] == [0, 0, 3]


def test_what_has_left_is_exactly_zero() -> None:
    """When the last dislike has left `recent`, the negative part is zero and not a rounding error."""
    shop = Shop()
    shop.catalogue.set_vector("odd", np.array([0.36, 0.48, 0.8], np.float32))
    shop.fold(event_of("dislikes", "u", "odd", START_MS, "e"))
    shop.sums()
    for number in range(70):
        shop.fold(event_of("clicks", "u", "a", START_MS + number * 7_654_321, f"e{number}"))
    assert shop.sums()[2] == [0, 0, 0]


def test_given_up_tallies_are_subtracted() -> None:
    """When the lightest tallies are dropped, the followed long sum loses them as the defined one does."""
    shop = Shop()
    rng = np.random.default_rng(1)
    for number in range(400):
        vector = rng.normal(size=3)
        shop.catalogue.set_vector(f"i{number}", (vector / np.linalg.norm(vector)).astype(np.float32))
    for at in range(0, 400, 8):
        shop.fold(*(event_of("clicks", "u", f"i{n}", START_MS + n * 10**7, f"e{n}") for n in range(at, at + 8)))
        np.testing.assert_allclose(shop.sums(), shop.anew(), rtol=1e-4, atol=1e-5)
    state = shop.slab.get("u")
    assert state is not None
    assert len(state.items) < 400 - 64


def test_replaced_copy_makes_the_row_anew() -> None:
    """When a newer copy of an event takes its place, the older one's share is gone."""
    shop = Shop()
    shop.fold(event_of("clicks", "u", "a", START_MS, "e"))
    shop.sums()
    shop.fold(event_of("clicks", "u", "b", START_MS + 1, "e"))
    assert shop.sums()[0] == [0, 1, 0]


def test_a_vector_that_changes_after_it_was_added_is_not_subtracted_wrongly() -> None:
    """An item whose vector changed while it was in the sum makes the sum anew when the item leaves."""
    shop = Shop()
    shop.fold(event_of("clicks", "u", "a", START_MS, "e"))
    shop.sums()
    shop.catalogue.set_vector("a", np.array([0, 0, 1], np.float32))
    shop.fold(*(event_of("clicks", "u", "b", START_MS + 10**6 + n * 10**6, f"e{n}") for n in range(70)))
    np.testing.assert_allclose(shop.sums(), shop.anew(), rtol=1e-5, atol=1e-5)
    assert shop.sums()[0][0] == 0


def test_rows_are_given_back() -> None:
    """A forgotten user's row serves the next one, clean."""
    shop = Shop()
    for number, item_id in enumerate("ab"):
        shop.fold(event_of("clicks", f"u{number}", item_id, START_MS, "e"))
    row = shop.row("u0")
    shop.slab.forget("u0")
    shop.slab.forget("nobody")
    shop.fold(event_of("clicks", "new", "c", START_MS, "e"))
    assert shop.sums("new")[0] == [0, 0, 1]
    assert row == shop.row("new")
    assert shop.sums("u1")[0] == [0, 1, 0]


def test_nobody_is_gathered() -> None:
    """An empty batch gives empty arrays of the right width."""
    shop = Shop()
    assert [part.shape for part in InterestVectors(shop.slab).gather(np.empty(0, np.int64))] == [(0, 3)] * 3
