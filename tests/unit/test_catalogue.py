"""The catalogue in memory: who may list an item, what a vector space change does, the tie order, what changed."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from models.neighbours import HISTORY
from models.segments import Split
from streams.catalogue.matrix import Catalogue
from streams.catalogue.neighbours import Neighbours
from streams.catalogue.records import (
    CatalogueRecord,
    ExperimentTold,
    ItemGone,
    ItemTold,
    NeighboursTold,
    SignalsGone,
    SignalsTold,
    StageSpace,
    SwitchSpace,
    VectorGone,
    VectorTold,
)
from streams.wire.items import Item
from streams.wire.models import Served
from streams.wire.neighbours import ItemNeighbours
from streams.wire.signals import ItemSignals

SPACE = Served("f" * 16, 2, "model")
EAST = np.array([1, 0], np.float32)
NORTH = np.array([0, 1], np.float32)


def listed(catalogue: Catalogue, item_id: str) -> bool:
    """Whether an item is listed."""
    return bool(catalogue.offer.listed[catalogue.row(item_id)])


def test_rows_are_dense_and_stay() -> None:
    """A row is given at first sight, in order, and never changes while the arrays grow."""
    catalogue = Catalogue(2)
    ids = [f"i{number}" for number in range(5_000)]
    expected = list(range(5_000))
    assert expected == catalogue.rows(ids).tolist()
    assert expected == catalogue.rows(ids).tolist()
    assert ids == [catalogue.item_id(row) for row in expected]
    assert catalogue.vectors.shape[0] >= len(ids)


def test_find_gives_no_rows_out() -> None:
    """Looking for an unknown item tells -1 and remembers nothing."""
    catalogue = Catalogue(2)
    catalogue.row("a")
    assert catalogue.find(["b", "a"]).tolist() == [-1, 0]
    assert len(catalogue) == 1


@pytest.mark.parametrize("shop_first", [True, False])
def test_the_shop_stands_over_sightings(*, shop_first: bool) -> None:
    """In whatever order the topics are read, the shop's snapshot is the card."""
    catalogue = Catalogue(2)
    told: list[CatalogueRecord] = [
        ItemTold(Item("a", title="shop"), "items"),
        ItemTold(Item("a", title="seen"), "item-sightings"),
    ]
    catalogue.apply(told if shop_first else told[::-1])
    card = catalogue.card("a")
    assert card is not None
    assert card.title == "shop"


def test_a_sighting_lists_while_the_shop_says_nothing() -> None:
    """An item met in an event only is listed, until its sighting goes."""
    catalogue = Catalogue(2)
    catalogue.apply([ItemTold(Item("a", title="seen"), "item-sightings")])
    assert listed(catalogue, "a")
    catalogue.apply([ItemGone("a", "item-sightings")])
    assert not listed(catalogue, "a")


@pytest.mark.parametrize("seen_first", [True, False])
def test_a_deleted_item_is_not_listed_by_a_sighting(*, seen_first: bool) -> None:
    """A tombstone is the shop's word, before or after an event showed the item; only the shop lists it again."""
    catalogue = Catalogue(2)
    told: list[CatalogueRecord] = [ItemTold(Item("a"), "item-sightings"), ItemGone("a", "items")]
    catalogue.apply(told if seen_first else told[::-1])
    assert not listed(catalogue, "a")
    assert catalogue.card("a") is None
    catalogue.apply([ItemTold(Item("a"), "items")])
    assert listed(catalogue, "a")


def test_out_of_stock_is_not_offered() -> None:
    """An item that the shop has not in stock stays listed and is not offered."""
    catalogue = Catalogue(2)
    catalogue.upsert_item(Item("a", in_stock=False))
    catalogue.upsert_item(Item("b"))
    assert catalogue.view().offered.tolist() == [False, True]


def test_new_and_changed_vectors_are_told_once() -> None:
    """`Applied.vectors` names items whose vector is new or another one, not those told again alike or dropped since."""
    catalogue = Catalogue()
    catalogue.apply([StageSpace(SPACE), SwitchSpace()])
    first = catalogue.apply([VectorTold("a", EAST), VectorTold("b", EAST), VectorGone("b")])
    assert first.vectors == ["a"]
    second = catalogue.apply([VectorTold("a", EAST), VectorTold("b", NORTH)])
    assert second.vectors == ["b"]


def test_a_vector_change_is_noted_by_revision() -> None:
    """`changed_at` of a row moves with its vector alone, so that sums over vectors know when they are behind."""
    catalogue = Catalogue(2)
    catalogue.set_vector("a", EAST)
    catalogue.set_vector("b", EAST)
    before = catalogue.changed_at[:2].tolist()
    catalogue.upsert_item(Item("a"))
    catalogue.set_vector("b", EAST)
    assert before == catalogue.changed_at[:2].tolist()
    catalogue.set_vector("b", NORTH)
    assert catalogue.changed_at[1] == catalogue.revision > before[1]


def test_a_staged_space_changes_nothing_until_the_switch() -> None:
    """While another space is loaded the served one is as it was, and takes its own new vectors; rows may grow."""
    catalogue = Catalogue()
    catalogue.apply([StageSpace(SPACE), VectorTold("a", EAST, staged=True), SwitchSpace()])
    other = Served("e" * 16, 3)
    catalogue.apply([StageSpace(other), VectorTold("a", np.eye(3, dtype=np.float32)[2], staged=True)])
    catalogue.apply([VectorTold("b", NORTH)])
    catalogue.rows([f"i{number}" for number in range(3_000)])
    assert catalogue.served == SPACE
    assert catalogue.view().fingerprint == SPACE.fingerprint
    assert catalogue.vectors[:2].tolist() == [[1, 0], [0, 1]]


def test_the_switch_replaces_every_vector_at_once() -> None:
    """It takes dimension and vectors of the new space, none of the old, and counts as a change of each vector."""
    catalogue = Catalogue()
    catalogue.apply([StageSpace(SPACE), SwitchSpace()])
    catalogue.apply([VectorTold("a", EAST), VectorTold("b", NORTH), ItemTold(Item("a"), "items")])
    before = catalogue.changed_at[:2].tolist()
    new = np.eye(3, dtype=np.float32)
    told = [VectorTold(item_id, new[row], staged=True) for row, item_id in enumerate(["b", "c", "gone"])]
    applied = catalogue.apply([StageSpace(Served("e" * 16, 3)), *told, VectorGone("gone", staged=True), SwitchSpace()])
    rows = catalogue.find(["a", "b", "c", "gone"])
    assert catalogue.dim == 3
    assert catalogue.served == Served("e" * 16, 3)
    assert catalogue.has_vector[rows].tolist() == [False, True, True, False]
    assert catalogue.vectors[rows].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert applied.vectors == ["c"]
    assert listed(catalogue, "a")
    assert all(catalogue.changed_at[row] > earlier for row, earlier in enumerate(before))


def test_a_staged_space_can_be_given_up() -> None:
    """Back to the served space before the new one was complete: what was loaded of it is dropped."""
    catalogue = Catalogue()
    catalogue.apply([StageSpace(SPACE), VectorTold("a", EAST, staged=True), SwitchSpace()])
    catalogue.apply([StageSpace(Served("e" * 16, 2)), VectorTold("a", NORTH, staged=True), StageSpace(None)])
    assert catalogue.served == SPACE
    assert catalogue.vectors[0].tolist() == [1, 0]


def test_a_vector_of_another_dimension_is_refused() -> None:
    """A wrong dimension is a bug of the caller, not something to store."""
    with pytest.raises(ValueError, match="does not fit dimension 2"):
        Catalogue(2).set_vector("a", np.ones(3, np.float32))


def test_popularity_compares_masses_of_different_times() -> None:
    """A mass told one half-life earlier counts half; the last told counts; the most popular item has 1."""
    catalogue = Catalogue(2, half_life_popularity_s=10.0)
    told = [ItemSignals("old", 8.0, 1_000_000, 0.0, 1), ItemSignals("new", 7.0, 1_010_000, 0.0, 1)]
    catalogue.set_signals([*told, ItemSignals("new", 8.0, 1_010_000, 0.0, 2)])
    catalogue.row("unknown")
    assert catalogue.popularity[:3].tolist() == [0.5, 1.0, 0.0]
    catalogue.apply([SignalsGone("new"), SignalsTold(ItemSignals("unknown", 2.0, 1_000_000, 1.5, 3))])
    assert catalogue.popularity[:3].tolist() == [1.0, 0.0, 0.25]


def test_demand_that_rises_is_told_by_how_surely() -> None:
    """By standard deviations beyond the long-term rate, the most is 1; a rise of long ago is over."""
    catalogue, day_ms = Catalogue(2), 86_400_000
    rise = ItemSignals("rise", 40.0, 100 * day_ms, 2.0, 90)
    fall = ItemSignals("fall", 80.0, 100 * day_ms, 0.5, 90)
    alone = ItemSignals("alone", 1.0, 100 * day_ms, 11.0, 1)
    once = ItemSignals("once", 80.0, 90 * day_ms, 4.0, 90)
    catalogue.set_signals([rise, fall, alone, once])
    # Expected of a day are 40 / 14 and 1 / 14, found were twice and eleven times as many.
    most, other = 40 / 14 / math.sqrt(40 / 14 + 5), 10 / 14 / math.sqrt(1 / 14 + 5)
    assert pytest.approx([1.0, 0.0, other / most, 0.0]) == catalogue.rising[:4].tolist()
    catalogue.apply([SignalsGone("rise")])
    assert [0.0, 0.0, 1.0, 0.0] == catalogue.rising[:4].tolist()


def test_histories_speak_louder_for_what_is_in_season() -> None:
    """By the day's demand over that of a day at the long-term rate, one more on both sides; 1 for what is not known."""
    catalogue, day_ms = Catalogue(2), 86_400_000
    signals = [ItemSignals("rise", 70.0, 100 * day_ms, 3.0, 90), ItemSignals("fall", 70.0, 100 * day_ms, 0.2, 90)]
    catalogue.set_signals([*signals, ItemSignals("over", 0.0, 100 * day_ms, 0.0, 90)])
    catalogue.row("unknown")
    # 70 at a half-life of 14 days are 5 a day; found were 15 and 1.
    expected = [16 / 6, 2 / 6, 1.0, 1.0]
    assert pytest.approx(expected) == catalogue.view().related.damping[:4, HISTORY].tolist()


def test_popularity_is_told_apart_by_segment() -> None:
    """In each segment 1 for its most popular item; of a record with other segments nothing is known there."""
    catalogue, half_life_ms = Catalogue(2, half_life_popularity_s=10.0, split=Split(2)), 10_000
    now_ms = 100 * half_life_ms
    catalogue.set_signals(
        [
            ItemSignals("early", 4.0, now_ms, 0.0, 1, (4.0, 0.0)),
            ItemSignals("late", 4.0, now_ms, 0.0, 1, (1.0, 3.0)),
            ItemSignals("before", 4.0, now_ms - half_life_ms, 0.0, 1, (4.0, 3.0)),
            ItemSignals("other", 9.0, now_ms, 0.0, 1, (3.0, 3.0, 3.0)),
        ]
    )
    assert [[1.0, 0.0], [0.25, 1.0], [0.5, 0.5], [0.0, 0.0]] == catalogue.view().of_segments[:, :, 0].tolist()
    catalogue.apply([SignalsGone("early")])
    assert [[0.0, 0.0], [0.5, 1.0], [1.0, 0.5], [0.0, 0.0]] == catalogue.view().of_segments[:, :, 0].tolist()


def test_popularity_is_told_apart_by_device() -> None:
    """In each part of the day; where no device is known all of them count, and of other devices nothing is known."""
    catalogue = Catalogue(2, split=Split(2, ("phone",)))
    masses = (0.0, 1.0, 1.0, 2.0, 0.0, 4.0)
    catalogue.set_signals(
        [
            ItemSignals("all", 8.0, 5_000, 0.0, 1, masses, ("phone",)),
            ItemSignals("half", 4.0, 5_000, 0.0, 1, tuple(mass / 2 for mass in masses), ("phone",)),
            ItemSignals("other", 8.0, 5_000, 0.0, 1, masses, ("desktop",)),
            ItemSignals("untold", 8.0, 5_000, 0.0, 1, (4.0, 4.0)),
        ]
    )
    expected = [[[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]], [[0.5, 0.5, 0.5], [0.5, 0.0, 0.5]], *2 * [2 * [3 * [0.0]]]]
    assert expected == catalogue.view().of_segments.tolist()


def test_neighbours_are_held_by_row() -> None:
    """Each record replaces both families; one without them forgets them."""
    catalogue = Catalogue(2)
    catalogue.row("a")
    told = ItemNeighbours("b", (("c", 0.5), ("a", 0.25)), (("d", 0.125),))
    catalogue.apply([NeighboursTold(told), NeighboursTold(ItemNeighbours("d", (("b", 1.0),)))])
    b, d = catalogue.row("b"), catalogue.row("d")

    assert (["c", "a"], [0.5, 0.25]) == named(catalogue, catalogue.followers.of(b))
    assert (["d"], [0.125]) == named(catalogue, catalogue.neighbours.of(b))
    assert ([], []) == named(catalogue, catalogue.neighbours.of(d))
    catalogue.apply([NeighboursTold(ItemNeighbours("b", (("a", 1.0),))), NeighboursTold(ItemNeighbours("d"))])
    assert (["a"], [1.0]) == named(catalogue, catalogue.followers.of(b))
    assert [0, 0] == [len(catalogue.neighbours.of(row)[0]) for row in (b, d)]
    assert (1, 0) == (len(catalogue.followers), len(catalogue.neighbours))


def named(catalogue: Catalogue, neighbours: tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]) -> object:
    """Rows as ids, with their weights."""
    rows, weights = neighbours
    return [catalogue.item_id(row) for row in rows], weights.tolist()


def test_neighbours_of_many_items() -> None:
    """Full lists and empty ones, set again and again, in any order: what was set last is there, in its room."""
    random = np.random.default_rng(5)
    neighbours, expected = Neighbours(), {}
    for row in random.permutation(np.repeat(np.arange(500), 4)).tolist():
        rows = random.permutation(1_000)[: random.choice([0, 1, 64])]
        neighbours.set(row, rows, rows / 1_024)
        expected[row] = (rows.tolist(), (rows / 1_024).tolist())

    for row in range(600):
        found = neighbours.of(row)
        assert expected.get(row, ([], [])) == (found[0].tolist(), found[1].tolist())
    assert len(neighbours) == sum(bool(rows) for rows, _ in expected.values())
    assert neighbours._rows.shape[0] <= 512
    with pytest.raises(ValueError, match="neighbours of shape"):
        neighbours.set(1, range(65), [1.0] * 65)
    with pytest.raises(ValueError, match="neighbours of shape"):
        neighbours.set(1, [1, 2], [1.0])


@pytest.mark.parametrize("more", [1, 64, 65, 500])
def test_the_tie_order_is_the_order_of_ids(more: int) -> None:
    """Whether few or many ids are new, `order` is each id's place among all sorted ids."""
    catalogue = Catalogue(2)
    random = np.random.default_rng(more)
    catalogue.rows([f"i{number}" for number in random.permutation(200)])
    assert len(catalogue.order) == 200
    catalogue.rows([f"i{number}" for number in 200 + random.permutation(more)])
    ids = [catalogue.item_id(row) for row in range(len(catalogue))]
    expected = [sorted(ids).index(item_id) for item_id in ids]
    assert expected == catalogue.order.tolist()


def test_a_view_does_not_see_later_rows() -> None:
    """Rows given out while a ranking call runs change nothing in what it reads."""
    catalogue = Catalogue(2)
    catalogue.upsert_item(Item("a"))
    view = catalogue.view()
    catalogue.rows([f"i{number}" for number in range(3_000)])
    assert [1] * 7 == [len(part) for part in (view.vectors, *view.coded, view.popularity, view.offered)]
    assert 1 == len(view.names.at) - 1


def test_experiments_are_passed_on() -> None:
    """Experiment records leave as they came, in order; changed cards are told."""
    told = ExperimentTold("e", b"{}")
    item = Item("a", title="A")
    applied = Catalogue(2).apply([told, ItemTold(item, "items"), ItemTold(item, "items")])
    assert applied.experiments == [told]
    assert applied.cards == [item]
