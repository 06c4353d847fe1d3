"""Steady lists through the worker's own state, catalogue and ranking: what a user saw last outlives a restart."""

from __future__ import annotations

import numpy as np
import pytest

from models.exploration import FRESH_EVENTS, let_go
from models.ranking import RankingParameters
from streams.catalogue.matrix import Catalogue
from streams.catalogue.records import NeighboursTold
from streams.interests.slab import Slab
from streams.interests.state import LastList
from streams.interests.vectors import InterestVectors
from streams.refresh.rank import Ranked, Ranker
from streams.settings import Settings
from streams.wire.items import Item
from streams.wire.neighbours import ItemNeighbours
from streams.wire.signals import ItemSignals
from tests.support.batches import batch_of
from tests.support.strategies import event_of

START_MS = 1_700_000_000_000
ITEMS = 200
SETTINGS = Settings()
STEADY = RankingParameters(steadiness=0.5)
EXPLORING = RankingParameters(steadiness=0.5, explore=1.0)


def stocked(seed: int = 1) -> Catalogue:
    """Return a catalogue of items of four brands, with vectors and popularity."""
    random = np.random.default_rng(seed)
    catalogue = Catalogue(8)
    for number in range(ITEMS):
        catalogue.upsert_item(Item(f"i{number}", brand=f"b{number % 4}", price=float(number + 1)))
        vector = random.standard_normal(8).astype(np.float32)
        catalogue.set_vector(f"i{number}", vector / np.float32(np.linalg.norm(vector)))
        catalogue.set_signals([ItemSignals(f"i{number}", float(random.random()), START_MS, 0.0, 1)])
    return catalogue


def click(slab: Slab, number: int, after_ms: int) -> None:
    """Fold one click of the user."""
    slab.fold(batch_of([event_of("clicks", "u", f"i{number}", START_MS + after_ms, f"e{after_ms}")]))


def ranked(slab: Slab, catalogue: Catalogue, parameters: RankingParameters = STEADY) -> Ranked:
    """Return the user's list, unserved."""
    rows = np.array([slab.row("u")], np.int64)
    return Ranker(catalogue, SETTINGS).rank(InterestVectors(slab).users(rows, [parameters]))[0]


def serve(slab: Slab, served: Ranked, events: int, newest_ms: int) -> None:
    """Note a list in the user's state, as the publisher does."""
    row = slab.row("u")
    assert row is not None
    last = slab.last_list(row)
    since_ms = dict(last.items) if last else {}
    items = tuple((item_id, since_ms.get(item_id, newest_ms)) for item_id in served.item_ids)
    slab.serve(row, LastList(events, newest_ms, items, newest_ms, events, served.price_marks, served.explored))


def served_once() -> tuple[Catalogue, Slab, Ranked]:
    """Return a shop, its user after one event, and the list that was served."""
    catalogue = stocked()
    slab = Slab(SETTINGS, catalogue)
    click(slab, 3, 0)
    first = ranked(slab, catalogue)
    serve(slab, first, 1, START_MS)
    return catalogue, slab, first


def restored(slab: Slab, catalogue: Catalogue) -> Slab:
    """Return what another worker reads back of the user."""
    other = Slab(SETTINGS, catalogue)
    other.restore(b"u", slab.encode("u"))
    return other


def test_a_list_outlives_restarts_and_changed_scores() -> None:
    """Without an event the list stays, whatever becomes of popularity, and for a worker that read the state back."""
    catalogue, slab, first = served_once()
    for number in range(0, ITEMS, 3):
        catalogue.set_signals([ItemSignals(f"i{number}", 1_000.0 + number, START_MS, 0.0, 1)])

    assert first.item_ids == ranked(slab, catalogue).item_ids
    assert first.item_ids == ranked(restored(slab, catalogue), catalogue).item_ids
    assert first.item_ids != ranked(slab, catalogue, RankingParameters()).item_ids


def test_an_event_moves_no_more_than_the_budget() -> None:
    """After an event of quite another kind at most a third of the list is new; and the same after a restart."""
    catalogue, slab, first = served_once()
    opposite = int(np.argmin(catalogue.vectors[:ITEMS] @ catalogue.vectors[3]))
    click(slab, opposite, 60_000)
    second = ranked(slab, catalogue)
    new = set(second.item_ids) - set(first.item_ids)
    plain = set(ranked(slab, catalogue, RankingParameters()).item_ids)

    assert 0 < len(new) <= round(SETTINGS.list_size * 10**-0.5)
    assert len(new) < len(plain - set(first.item_ids))
    assert second == ranked(restored(slab, catalogue), catalogue)


def test_forced_breaks_change_only_their_places() -> None:
    """An item out of stock leaves at once, one of another price must earn its place; nothing else moves."""
    catalogue, slab, first = served_once()
    sold_out, dearer = first.item_ids[2], first.item_ids[19]
    catalogue.upsert_item(Item(sold_out, brand="b0", price=1.0, in_stock=False))
    catalogue.upsert_item(Item(dearer, brand="b0", price=5_000.0))
    catalogue.set_signals([ItemSignals(dearer, 0.0, START_MS, 0.0, 1)])
    second = ranked(slab, catalogue).item_ids

    assert sold_out not in second
    changed = {slot for slot in range(20) if first.item_ids[slot] != second[slot]}
    assert 2 in changed
    assert changed <= {2, 19}


def explored_once() -> tuple[Catalogue, Slab, Ranked]:
    """Return a shop full of fresh items, its user after one event, and the list with an explored item at rank 10."""
    catalogue = stocked()
    slab = Slab(SETTINGS, catalogue)
    click(slab, 3, 0)
    first = ranked(slab, catalogue, EXPLORING)
    serve(slab, first, 1, START_MS)
    assert first.items[9].source == "explore"
    return catalogue, slab, first


@pytest.mark.parametrize("explore", [1.0, 0.3, 0.0])
def test_an_explored_item_stays_without_an_event(explore: float) -> None:
    """The same bytes come again: after a restart, when nothing is fresh any more, and when nobody explores any more."""
    catalogue, slab, first = explored_once()
    later = RankingParameters(steadiness=0.5, explore=explore)
    assert first == ranked(slab, catalogue, later)
    catalogue.set_signals([ItemSignals(f"i{number}", 0.5, START_MS, 0.0, FRESH_EVENTS) for number in range(ITEMS)])
    kept = ranked(restored(slab, catalogue), catalogue, later)
    assert first.item_ids == kept.item_ids
    assert first.explored == kept.explored
    assert [(place.propensity, place.source == "explore") for place in first.items] == [
        (place.propensity, place.source == "explore") for place in kept.items
    ]


@pytest.mark.parametrize("explore", [1e-9, 0.0])
def test_what_is_left_in_the_slot_stays_without_an_event(explore: float) -> None:
    """A list into which nothing was drawn goes on saying so, and nothing is drawn into it later."""
    catalogue = stocked()
    slab = Slab(SETTINGS, catalogue)
    click(slab, 3, 0)
    first = ranked(slab, catalogue, RankingParameters(explore=explore))
    serve(slab, first, 1, START_MS)
    kept = ranked(slab, catalogue, EXPLORING)
    assert first.items_json == kept.items_json
    assert 1.0 - explore == kept.items[9].propensity


def test_an_explored_item_that_may_not_be_listed_leaves_its_slot_alone() -> None:
    """Another is drawn into its place, and all others stay where they are."""
    catalogue, slab, first = explored_once()
    catalogue.upsert_item(Item(first.item_ids[9], in_stock=False))
    later = ranked(slab, catalogue, EXPLORING)
    assert first.item_ids[:9] + first.item_ids[10:] == later.item_ids[:9] + later.item_ids[10:]
    assert "explore" == later.items[9].source
    assert first.item_ids[9] != later.item_ids[9]


def test_no_list_holds_on_to_an_explored_item() -> None:
    """What was drawn is a newcomer to the next list an event asks for, and nothing else is."""
    catalogue, slab, first = explored_once()
    rows = np.array([slab.row("u")], np.int64)
    still = InterestVectors(slab).users(rows, [EXPLORING]).previous
    click(slab, 50, 60_000)
    moved = InterestVectors(slab).users(rows, [EXPLORING]).previous
    expected = [-2 if place == 9 else catalogue.row(item_id) for place, item_id in enumerate(first.item_ids)]
    assert [expected] == let_go(moved).rows.tolist()
    assert still.rows.tolist() == let_go(still).rows.tolist()
    still.moved[:] = True
    still.explored[:] = -still.explored
    assert still.rows.tolist() == let_go(still).rows.tolist()


def test_caps_hold_on_lists() -> None:
    """With a cap of five items a brand no brand has more."""
    catalogue = stocked()
    slab = Slab(SETTINGS, catalogue)
    click(slab, 3, 0)
    listed = ranked(slab, catalogue, RankingParameters(brand_cap=5)).item_ids
    brands = [int(item_id[1:]) % 4 for item_id in listed]
    assert [5] * 4 == [brands.count(brand) for brand in range(4)]


def test_reasons_are_those_of_the_chosen() -> None:
    """An item has the score, the source and the reasons it has on the plain list, wherever it stands now."""
    catalogue = stocked()
    slab = Slab(SETTINGS, catalogue)
    click(slab, 3, 0)
    click(slab, 50, 60_000)
    wide = Settings(list_size=60)
    rows = np.array([slab.row("u")], np.int64)
    plain = Ranker(catalogue, wide).rank(InterestVectors(slab).users(rows, [RankingParameters()]))[0]
    told = {place.item_id: (place.score, place.source, place.because) for place in plain.items}
    diverse = ranked(slab, catalogue, RankingParameters(dpp=0.5))
    assert diverse.item_ids != plain.item_ids[:20]
    found = {place.item_id: (place.score, place.source, place.because) for place in diverse.items}
    assert {item_id: told[item_id] for item_id in found if item_id in told} == {
        item_id: place for item_id, place in found.items() if item_id in told
    }
    assert len(set(told) & set(found)) >= 10


def two_tastes() -> Catalogue:
    """Return a catalogue of two kinds of items, equally popular, all neighbours and followers of one kind."""
    random = np.random.default_rng(2)
    catalogue = Catalogue(32)
    for number in range(ITEMS):
        vector = random.standard_normal(32) * 0.2
        vector[number % 2] += 1.0
        catalogue.upsert_item(Item(f"i{number}"))
        catalogue.set_vector(f"i{number}", (vector / np.linalg.norm(vector)).astype(np.float32))
    for number in range(ITEMS):
        others = [f"i{other}" for other in range(number % 2, ITEMS, 2) if other != number]
        near, next_ones = (random.choice(others, 20, replace=False).tolist() for _ in range(2))
        weights = np.sort(random.random(20))[::-1].tolist()
        told = ItemNeighbours(
            f"i{number}", tuple(zip(next_ones, weights, strict=True)), tuple(zip(near, weights, strict=True))
        )
        catalogue.apply([NeighboursTold(told)])
        catalogue.set_signals([ItemSignals(f"i{number}", 1.0, START_MS, 0.0, 1)])
    return catalogue


def followed(knob: float, events: int) -> int:
    """Return how many of the first ten are of a new kind after sixteen events on the other and so many on it."""
    catalogue = two_tastes()
    slab = Slab(SETTINGS, catalogue)
    made = None
    for event in range(16 + events):
        click(slab, 2 * event + int(event >= 16), 10_000 * event)
        made = ranked(slab, catalogue, RankingParameters(steadiness=knob))
        serve(slab, made, event + 1, START_MS + 10_000 * event)
    assert made is not None
    return sum(int(item_id[1:]) % 2 for item_id in made.item_ids[:10])


@pytest.mark.parametrize("knob", [0.0, 0.25, 0.5])
def test_half_of_the_first_ten_follows_a_switched_interest_within_8_events(knob: float) -> None:
    """Nothing of the new kind before the switch, five of the first ten within eight events after it."""
    assert 0 == followed(knob, 0)
    assert followed(knob, 8) >= 5
