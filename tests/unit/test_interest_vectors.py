"""Rows of rolling sums: when they are followed, when they are made anew, how they are given back."""

from __future__ import annotations

import numpy as np
import pytest

from streams.catalogue.matrix import Catalogue
from streams.interests.slab import Slab
from streams.interests.vectors import REBUILD_AFTER_FOLDS, InterestVectors
from streams.settings import Settings
from streams.wire.events import Event
from tests.support.strategies import START_MS, event_of

SETTINGS = Settings()
HALF_LIFE_MS = round(SETTINGS.half_life_short_s * 1000)


class Shop:
    """A slab, a catalogue of unit axes `a`, `b`, `c`, and the vectors."""

    def __init__(self) -> None:
        self.catalogue = Catalogue(3)
        for axis, item_id in enumerate("abc"):
            self.catalogue.set_vector(item_id, np.eye(3, dtype=np.float32)[axis])
        self.slab = Slab(SETTINGS)
        self.vectors = InterestVectors(self.catalogue, SETTINGS, capacity=1)

    def fold(self, *events: Event) -> None:
        """Fold a run."""
        self.vectors.fold(self.slab.fold(events))

    def sums(self, user_id: str = "u") -> list[list[float]]:
        """Return short, long and negative of a user."""
        state = self.slab.get(user_id)
        assert state is not None
        return [part[0].tolist() for part in self.vectors.gather([user_id], [state])]


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


def test_runs_are_followed_in_place() -> None:
    """A held user's row follows runs without being made anew, up to the limit."""
    shop = Shop()
    shop.fold(event_of("clicks", "u", "a", START_MS, "e"))
    shop.sums()
    held = shop.vectors._held["u"]
    for number in range(1, REBUILD_AFTER_FOLDS):
        shop.fold(event_of("clicks", "u", "b", START_MS + number * 86_400_000, f"e{number}"))
        assert (held.folds, held.stale) == (number, False)
    shop.fold(event_of("clicks", "u", "b", START_MS, "e999"))
    shop.fold(event_of("clicks", "u", "b", START_MS + 10**11, "e9999"))
    assert held.stale
    shop.sums()
    assert (held.folds, held.stale) == (0, False)


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
    wide = Catalogue(5)
    wide.set_vector("a", np.eye(5, dtype=np.float32)[4])
    shop.vectors._items = wide
    assert shop.sums()[0] == [0, 0, 0, 0, 1]


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
    dropped = 0
    for at in range(0, 400, 8):
        run = [event_of("clicks", "u", f"i{n}", START_MS + n * 10**7, f"e{n}") for n in range(at, at + 8)]
        result = shop.slab.fold(run)
        shop.vectors.fold(result)
        dropped += len(result.changes["u"].dropped)
        followed = shop.sums()
        shop.vectors._held["u"].folds = 0
        state = shop.slab.get("u")
        assert state is not None
        anew = [part[0] for part in InterestVectors(shop.catalogue, SETTINGS).gather(["u"], [state])]
        np.testing.assert_allclose(followed, anew, rtol=1e-5, atol=1e-6)
    assert dropped > 32


def test_replaced_copy_makes_the_row_anew() -> None:
    """When a newer copy of an event takes its place, the older one's share is gone."""
    shop = Shop()
    shop.fold(event_of("clicks", "u", "a", START_MS, "e"))
    shop.sums()
    shop.fold(event_of("clicks", "u", "b", START_MS + 1, "e"))
    assert shop.sums()[0] == [0, 1, 0]


def test_missed_run_is_noticed() -> None:
    """A run that was not followed makes the row stale, not wrong."""
    shop = Shop()
    shop.fold(event_of("clicks", "u", "a", START_MS, "e1"))
    shop.sums()
    shop.slab.fold([event_of("clicks", "u", "b", START_MS, "e2")])
    shop.fold(event_of("clicks", "u", "c", START_MS, "e3"))
    assert shop.sums()[0] == [1, 1, 1]


def test_rows_are_given_back() -> None:
    """A forgotten user's row serves the next one, clean."""
    shop = Shop()
    for number, item_id in enumerate("ab"):
        shop.fold(event_of("clicks", f"u{number}", item_id, START_MS, "e"))
        shop.sums(f"u{number}")
    row = shop.vectors._held["u0"].row
    shop.vectors.forget("u0")
    shop.vectors.forget("nobody")
    shop.fold(event_of("clicks", "new", "c", START_MS, "e"))
    assert shop.sums("new")[0] == [0, 0, 1]
    assert row == shop.vectors._held["new"].row
    assert shop.sums("u1")[0] == [0, 1, 0]
    assert shop.sums("u0")[0] == [1, 0, 0]
    assert len(shop.vectors) == 3


def test_nobody_is_gathered() -> None:
    """An empty batch gives empty arrays of the right width."""
    shop = Shop()
    assert [part.shape for part in shop.vectors.gather([], [])] == [(0, 3)] * 3
