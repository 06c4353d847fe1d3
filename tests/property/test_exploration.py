"""Exploration of fresh items: what is drawn, how often, and what a list with it still keeps."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.exploration import FRESH_EVENTS, TEMPERATURE
from models.ranking import RankingParameters
from models.users import Users, joined
from streams.catalogue.matrix import Catalogue
from streams.catalogue.records import RuleTold
from streams.refresh.rank import Ranked, Ranker
from streams.settings import Settings
from streams.wire.events import TYPE_CODES
from streams.wire.items import Item
from streams.wire.models import Served
from streams.wire.recommendations import RankedItem
from streams.wire.rules import Block, Pin, Rule
from streams.wire.signals import ItemSignals
from tests.support.ranking import Asked, users_of

DIM, ITEMS, DAY_MS = 4, 40, 86_400_000
NOW_MS = 19_700 * DAY_MS
SETTINGS = Settings(list_size=6)
SLOT = 4
SEEDS = st.integers(0, 2**32 - 1)
EXPLORE = RankingParameters(explore=0.5, explore_slot=SLOT)


class Shop(NamedTuple):
    """A catalogue, and how many events each of its items has."""

    catalogue: Catalogue
    events: dict[str, int]


def shop(seed: int = 1, *, backwards: bool = False, vectors: bool = True) -> Shop:
    """Return a shop in which every other item is fresh; its ids are given their rows in one order or the other."""
    random = np.random.default_rng(seed)
    catalogue = Catalogue()
    catalogue.stage(Served("f" * 16, DIM))
    catalogue.switch()
    found = random.standard_normal((ITEMS, DIM)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    events = {f"i{n}": int(random.integers(FRESH_EVENTS)) if n % 2 else FRESH_EVENTS + n for n in range(ITEMS)}
    for number in reversed(range(ITEMS)) if backwards else range(ITEMS):
        name = f"i{number}"
        catalogue.upsert_item(Item(name, brand=f"b{number % 5}", category=f"c{number % 3}", price=1.0 + number))
        catalogue.set_signals([ItemSignals(name, 1.0 + events[name], NOW_MS, 1.0, events[name])])
        if vectors:
            catalogue.set_vector(name, found[number])
    return Shop(catalogue, events)


def asked(key: int, parameters: RankingParameters = EXPLORE, **changes: Any) -> Asked:
    """Return a user whose interests point along one axis."""
    interest, nothing = np.eye(DIM, dtype=np.float32)[0], np.zeros(DIM, np.float32)
    return Asked(interest, nothing, nothing, (), (), parameters, NOW_MS, key)._replace(**changes)


def keys(count: int, seed: int = 0) -> list[int]:
    """Return what stands for so many users."""
    return [int(key) for key in np.random.default_rng(seed).integers(1, 2**63, count)]


def lists(catalogue: Catalogue, *users: Asked, settings: Settings = SETTINGS, spare: int = 3) -> list[Ranked]:
    """Return the list of each user, behind which some items stand by."""
    return Ranker(catalogue, settings, spare).rank(users_of(users, catalogue))


def plain(one: Asked) -> Asked:
    """Return the same user without exploration."""
    return one._replace(parameters=dataclasses.replace(one.parameters, explore=0.0))


def alternatives(shop: Shop, one: Asked, *, blocked: tuple[str, ...] = ()) -> dict[str, float]:
    """Return what may come into the slot without exploration's draw being known, and how likely each is."""
    (base,) = lists(shop.catalogue, plain(one))
    weights = {}
    for name, events in shop.events.items():
        if events < FRESH_EVENTS and name not in {*base.item_ids, *blocked, *one.excluded}:
            vector = shop.catalogue.vectors[shop.catalogue.row(name)].astype(np.float64)
            length = float(np.linalg.norm(one.short))
            near = float(one.short.astype(np.float64) @ vector) / length if length else 0.0
            weights[name] = np.exp(near / TEMPERATURE)
    chance = one.parameters.explore if weights else 0.0
    found = {name: float(chance * weight / sum(weights.values())) for name, weight in weights.items()}
    return {base.item_ids[SLOT - 1]: 1.0 - chance, **found}


@pytest.mark.parametrize("has_vectors", [True, False])
def test_what_stands_in_the_slot_is_as_frequent_as_its_propensity(has_vectors: bool) -> None:  # noqa: FBT001
    """Over many users each alternative stands there as often as it says; they sum to 1; all other slots are certain."""
    made = shop(vectors=has_vectors)
    expected = alternatives(made, asked(1))
    users = 6_000
    found = [one.items for one in lists(made.catalogue, *(asked(key) for key in keys(users)))]
    assert pytest.approx(1.0) == sum(expected.values())
    assert {1.0} == {place.propensity for items in found for place in items if place.rank != SLOT}
    counts = dict.fromkeys(expected, 0)
    for items in found:
        there = items[SLOT - 1]
        assert pytest.approx(expected[there.item_id], abs=2e-5) == there.propensity
        counts[there.item_id] += 1
    for name, propensity in expected.items():
        # Five deviations: one of a million runs would fail, and this one is always the same.
        assert abs(counts[name] - users * propensity) <= 5 * np.sqrt(users * propensity * (1 - propensity)) + 1


def test_days_draw_anew_and_refreshes_do_not() -> None:
    """Over the days of one user the slot is as often explored as asked; within a day the list is the same."""
    made, days = shop(), 2_000
    users = [asked(7, now_ms=NOW_MS + day * DAY_MS) for day in range(days)]
    explored = [one.items[SLOT - 1].source == "explore" for one in lists(made.catalogue, *users)]
    assert abs(sum(explored) - days / 2) <= 5 * np.sqrt(days / 4)
    later = [one._replace(now_ms=one.now_ms + DAY_MS - 1) for one in users[:50]]
    assert lists(made.catalogue, *users[:50]) == lists(made.catalogue, *later)


@given(SEEDS, st.floats(0.05, 1), st.integers(1, 20))
def test_lists_are_the_plain_ones_but_for_one_slot(seed: int, chance: float, slot: int) -> None:
    """What is put there is fresh and says so, stands nowhere else, and has the score and reasons that it has anyway."""
    made = shop(seed)
    parameters = RankingParameters(explore=chance, explore_slot=slot)
    happened = [(NOW_MS - 5_000 * n, f"i{n}", TYPE_CODES["clicks"]) for n in (3, 10, 11)]
    users = [asked(key, parameters, recent=happened) for key in keys(8, seed)]
    without = lists(made.catalogue, *map(plain, users))
    every = lists(made.catalogue, plain(users[0]), settings=Settings(list_size=ITEMS))[0].items
    told = {place.item_id: (place.score, place.because) for place in every}
    for before, after in zip(without, lists(made.catalogue, *users), strict=True):
        at = min(slot, SETTINGS.list_size) - 1
        there = after.items[at]
        assert other(before.items, at) == other(after.items, at)
        if there.source == "explore":
            assert made.events[there.item_id] < FRESH_EVENTS
            assert there.item_id not in before.item_ids
            assert told[there.item_id] == (there.score, there.because)
        else:
            assert before.items[at] == RankedItem(**{**as_fields(there), "propensity": 1.0})
            assert pytest.approx(1 - chance) == there.propensity


def as_fields(place: RankedItem) -> dict[str, Any]:
    """Return a place as its fields."""
    return {name: getattr(place, name) for name in place.__struct_fields__}


def other(items: tuple[RankedItem, ...], at: int) -> list[RankedItem]:
    """Return all places but one."""
    return [place for number, place in enumerate(items) if number != at]


def test_nobody_explores_unless_asked() -> None:
    """Without the parameter, and for visitors without events, lists are the same bytes, beside others who explore."""
    made = shop()
    quiet = [asked(key, RankingParameters()) for key in keys(20)]
    alone = lists(made.catalogue, *quiet)
    loud = [asked(key, RankingParameters(explore=1.0, explore_slot=SLOT)) for key in keys(20, 1)]
    mixed = lists(made.catalogue, *(one for pair in zip(quiet, loud, strict=True) for one in pair))
    assert alone == mixed[::2]
    assert {"explore"} == {one.items[SLOT - 1].source for one in mixed[1::2]}
    assert lists(made.catalogue, *loud) == mixed[1::2]
    ranker = Ranker(made.catalogue, SETTINGS)
    assert ranker.default() == ranker.default(RankingParameters(explore=1.0))


def test_every_worker_draws_the_same() -> None:
    """Whatever rows a worker gave the items, the lists are the same bytes."""
    users = [asked(key) for key in keys(200)]
    one, another = lists(shop().catalogue, *users), lists(shop(backwards=True).catalogue, *users)
    assert one == another
    assert {"explore"} < {place.source for found in one for place in found.items}


def test_what_stands_by_changes_no_list() -> None:
    """Lists are the same bytes however many items stand by; nothing is on a list and stands by, and nothing is lost."""
    made, users = shop(), [asked(key) for key in keys(200)]
    happened = [(NOW_MS, "i20", TYPE_CODES["clicks"])]
    users = [one._replace(recent=happened) for one in users]
    assert lists(made.catalogue, *users, spare=0) == lists(made.catalogue, *users, spare=20)
    without, explored = (
        Ranker(made.catalogue, SETTINGS, 30).make(users_of(of, made.catalogue)).places.items
        for of in ([plain(one) for one in users], users)
    )
    for before, after in zip(without.tolist(), explored.tolist(), strict=True):
        assert sorted(before) == sorted(after)


def test_rules_and_exclusions_hold() -> None:
    """What is blocked, out of stock, excluded or known is never drawn; a pinned item keeps the slot for certain."""
    made = shop()
    users = [asked(key, excluded={"i1", "i3"}) for key in keys(300)]
    made.catalogue.apply([RuleTold(Rule("i5", Block()))])
    made.catalogue.upsert_item(Item("i7", in_stock=False))
    expected = alternatives(made, users[0], blocked=("i5", "i7"))
    for one in lists(made.catalogue, *users):
        there = one.items[SLOT - 1]
        assert pytest.approx(expected[there.item_id], abs=2e-5) == there.propensity
    made.catalogue.apply([RuleTold(Rule("i9", pin=Pin(SLOT)))])
    assert {("i9", "pinned", 1.0)} == {
        (there.item_id, there.source, there.propensity)
        for there in (one.items[SLOT - 1] for one in lists(made.catalogue, *users))
    }


def test_a_new_item_is_fresh_before_anybody_met_it() -> None:
    """An item of which there is only a text, and so a vector, is drawn; from its twentieth event on it is not."""
    made = shop()
    made.catalogue.set_signals([ItemSignals(name, 9.0, NOW_MS, 1.0, FRESH_EVENTS) for name in made.events])
    made.catalogue.upsert_item(Item("new", title="A new thing"))
    made.catalogue.set_vector("new", np.array([-1, 0, 0, 0], np.float32))
    certainly = asked(1, RankingParameters(explore=1.0, explore_slot=SLOT))
    expected = [("new", 1.0)]
    for events in (FRESH_EVENTS - 1, FRESH_EVENTS):
        (found,) = lists(made.catalogue, certainly)
        assert expected == [(one.item_id, one.propensity) for one in found.items if one.source == "explore"]
        made.catalogue.set_signals([ItemSignals("new", 1.0, NOW_MS, 1.0, events)])
    (found,) = lists(made.catalogue, certainly)
    assert "explore" not in {one.source for one in found.items}


def test_a_shop_without_fresh_items_is_certain() -> None:
    """Where nothing is fresh, lists are those without exploration, byte for byte."""
    made = shop()
    made.catalogue.set_signals([ItemSignals(name, 9.0, NOW_MS, 1.0, FRESH_EVENTS) for name in made.events])
    users = [asked(key, RankingParameters(explore=1.0)) for key in keys(20)]
    assert lists(made.catalogue, *map(plain, users)) == lists(made.catalogue, *users)


@given(SEEDS, st.integers(1, 3), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]))
def test_caps_and_prices_hold(seed: int, brands: int, categories: int, near: float) -> None:
    """Where a list without exploration is within its guardrails, the one with it is."""
    made = shop(seed)
    guarded = RankingParameters(
        explore=1.0, explore_slot=SLOT, brand_cap=brands, category_cap=categories, price_share=near
    )
    happened = [(NOW_MS, "i20", TYPE_CODES["clicks"])]
    users = [asked(key, guarded, recent=happened) for key in keys(20, seed)]
    for before, after in zip(lists(made.catalogue, *map(plain, users)), lists(made.catalogue, *users), strict=True):
        for part, most in ((5, brands), (3, categories)):
            allowed = max(most, greatest(before.item_ids, part))
            assert greatest(after.item_ids, part) <= allowed
        assert far(after) <= max(far(before), int(SETTINGS.list_size * (1 - near)) if near else SETTINGS.list_size)


def greatest(item_ids: tuple[str, ...], parts: int) -> int:
    """Return how many items of a list share the brand or category that most of them share."""
    return int(np.bincount([int(item_id[1:]) % parts for item_id in item_ids]).max())


def far(ranked: Ranked) -> int:
    """Return how many items of a list are far from the price of i20."""
    return sum(abs(np.log((1.0 + int(item_id[1:])) / 21.0)) > 1.2 for item_id in ranked.item_ids)


@given(SEEDS, st.lists(st.integers(0, 9), max_size=12))
def test_some_of_the_users_are_what_they_were(seed: int, chosen: list[int]) -> None:
    """Users taken out of a batch, in any order and more than once, are those users one by one."""
    random, catalogue = np.random.default_rng(seed), shop().catalogue
    users = [
        asked(
            int(key),
            short=random.standard_normal(DIM).astype(np.float32),
            recent=[(NOW_MS - int(n), f"i{n}", 1) for n in random.integers(ITEMS, size=key % 4)],
            excluded=[f"i{n}" for n in random.integers(ITEMS, size=key % 3)],
        )
        for key in range(1, 11)
    ]
    if chosen:
        alone = joined([users_of([users[user]], catalogue) for user in chosen])
        assert flat(alone) == flat(users_of(users, catalogue).only(np.array(chosen, np.int64)))


def flat(users: Users) -> list[Any]:
    """Return all that is known of users as plain lists."""
    parts = (*users.events, *users.owned, *users.excluded, *users.previous, users.interests, users.now_ms, users.keys)
    return [part.tolist() for part in parts] + [users.parameters]
