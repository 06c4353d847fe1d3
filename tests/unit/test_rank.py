"""Ranking: what may stand in a list, in which order, from which source, for which reasons."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from models.ranking import Floats, RankingParameters
from models.segments import Split
from models.users import joined
from streams.catalogue.matrix import Catalogue
from streams.catalogue.records import RuleGone, RuleTold
from streams.refresh.compose import compose
from streams.refresh.rank import Ranked, Ranker
from streams.settings import Settings
from streams.wire.events import TYPE_CODES
from streams.wire.items import Item
from streams.wire.models import Served
from streams.wire.recommendations import AsOf, Because, Trigger, decode_recommendation
from streams.wire.rules import Block, Boost, Pin, Rule
from streams.wire.signals import ItemSignals
from tests.support.ranking import Asked, ranked, users_of

NOW_MS = 1_700_000_000_000
DIM = 8
SETTINGS = Settings(list_size=4)
NOTHING = np.zeros(DIM, np.float32)


def axis(number: int) -> Floats:
    """Return a unit vector."""
    vector: Floats = np.eye(DIM, dtype=np.float32)[number]
    return vector


def shop(items: int = 10, split: Split | None = None) -> Catalogue:
    """Return a catalogue of items i0, i1 and so on; item k points along axis k modulo `DIM`."""
    catalogue = Catalogue(split=split)
    catalogue.stage(Served("f" * 16, DIM))
    catalogue.switch()
    for number in range(items):
        catalogue.upsert_item(Item(f"i{number}"))
        catalogue.set_vector(f"i{number}", axis(number % DIM))
    return catalogue


def request(short: Floats = NOTHING, **changes: Any) -> Asked:
    """Return a user who is interested in `short`."""
    nothing = np.zeros_like(short)
    return Asked(short, nothing, nothing, (), (), RankingParameters(), NOW_MS)._replace(**changes)


def ids(catalogue: Catalogue, *requests: Asked) -> list[list[str]]:
    """Return the item ids of each list."""
    return [[item.item_id for item in one.items] for one in ranked(catalogue, SETTINGS, *requests)]


def event(item_id: str, kind: str = "clicks", age_s: float = 0.0) -> tuple[int, str, int]:
    """Return an event of the past."""
    return NOW_MS - round(age_s * 1000), item_id, TYPE_CODES[kind]


def test_likeness_ranks_and_ids_break_ties() -> None:
    """The liked direction comes first; items that score alike stand in the order of their ids."""
    assert ids(shop(), request(axis(3))) == [["i3", "i0", "i1", "i2"]]


def test_what_may_not_be_listed_is_not() -> None:
    """Excluded, unlisted, deleted and out-of-stock items stay out, however well they fit."""
    catalogue = shop(8)
    catalogue.upsert_item(Item("i0", in_stock=False))
    catalogue.delete_item("i1")
    catalogue.set_vector("unlisted", axis(0))
    assert ids(catalogue, request(axis(0), excluded={"i2", "never met"})) == [["i3", "i4", "i5", "i6"]]


def ruled(*rules: Rule) -> Catalogue:
    """Return the catalogue of `shop` under rules of the shop."""
    catalogue = shop()
    catalogue.apply([RuleTold(rule) for rule in rules])
    return catalogue


def test_a_blocked_item_is_on_no_list() -> None:
    """Not where it fits best, not where it is pinned, and not on the default list."""
    catalogue = ruled(Rule("i3", Block("recall"), Pin(1)), Rule("i0", Block()))
    assert ids(catalogue, request(axis(3))) == [["i1", "i2", "i4", "i5"]]
    assert [item.item_id for item in Ranker(catalogue, SETTINGS).default().items] == ["i1", "i2", "i4", "i5"]


def test_a_pinned_item_has_its_slot() -> None:
    """Of everybody who may have it, also far from what the user likes; the others close up around it."""
    catalogue = ruled(Rule("i9", pin=Pin(2)), Rule("i8", pin=Pin(4)))
    assert ids(catalogue, request(axis(3)), request(axis(3), excluded={"i9"})) == [
        ["i3", "i9", "i0", "i8"],
        ["i3", "i0", "i1", "i8"],
    ]
    catalogue.apply([RuleGone("i9"), RuleGone("i8")])
    assert ids(catalogue, request(axis(3))) == [["i3", "i0", "i1", "i2"]]


def test_a_boost_moves_an_item() -> None:
    """Up as far as its score then reaches, and down below those that nothing speaks for."""
    catalogue = ruled(Rule("i2", boost=Boost(0.1)), Rule("i1", boost=Boost(10)), Rule("i3", boost=Boost(-10)))
    assert ids(catalogue, request(axis(3))) == [["i1", "i2", "i0", "i4"]]


def test_seen_items_stay_out_unless_a_variant_lets_them_in() -> None:
    """`exclude_seen` holds back the items of the user's recent events."""
    seen = request(axis(3), recent=[event("i3")])
    shown = seen._replace(parameters=RankingParameters(short=0.6, exclude_seen=False))
    assert ids(shop(), seen, shown) == [["i0", "i1", "i2", "i4"], ["i3", "i0", "i1", "i2"]]


def test_a_dislike_costs_and_unlikeness_earns_nothing() -> None:
    """An item near the negative vector falls behind neutral ones; one opposite to it does not rise."""
    catalogue = shop(8)
    catalogue.set_vector("i7", -axis(0))
    assert ids(catalogue, request(negative=axis(0))) == [["i1", "i2", "i3", "i4"]]


def test_popularity_fills_lists_of_cold_users() -> None:
    """Without an interest the most popular come first, then the rest by id; each item names its source."""
    catalogue = shop()
    catalogue.set_signals([ItemSignals("i9", 5.0, NOW_MS, 0.0, 1)])
    catalogue.set_signals([ItemSignals("i7", 4.0, NOW_MS, 0.0, 1)])
    items = Ranker(catalogue, SETTINGS).default().items
    assert [(item.item_id, item.rank, item.source) for item in items] == [
        ("i9", 1, "popular"),
        ("i7", 2, "popular"),
        ("i0", 3, "catalogue"),
        ("i1", 4, "catalogue"),
    ]
    assert [item.because for item in items] == [()] * 4


def test_what_is_popular_at_that_time_of_day_is_for_who_is_not_known() -> None:
    """Asked for in the user's half of the day, though of little popularity; it counts less, the heavier a history."""
    catalogue, noon_ms = shop(100, Split(2)), NOW_MS // 86_400_000 * 86_400_000 + 43_200_000
    catalogue.set_signals([ItemSignals(f"i{number}", 9.0, NOW_MS, 0.0, 9, (8.5, 0.5)) for number in range(80)])
    catalogue.set_signals([ItemSignals("i99", 4.0, NOW_MS, 0.0, 9, (0.0, 4.0))])
    ranker, asked = Ranker(catalogue, SETTINGS), RankingParameters(segment=0.2)
    for now_ms, first in ((noon_ms - 1, "i0"), (noon_ms, "i99"), (noon_ms + 43_200_000, "i0")):
        best = ranker.default(asked, None, now_ms).items[0]
        assert (first, "popular") == (best.item_id, best.source)
    assert "i0" == ranker.default(None, None, noon_ms).item_ids[0]

    users = users_of([request(recent=[event("i5")], parameters=asked, now_ms=noon_ms)], catalogue)
    known = users._replace(owned=users.owned._replace(masses=np.array([90.0])))
    assert "i99" == ranker.rank(users)[0].item_ids[0]
    assert "i99" not in ranker.rank(known)[0].item_ids


def test_what_is_popular_on_a_device_is_for_who_comes_with_it() -> None:
    """At that time of day; who tells no device gets what is popular on all, another device what is on all unnamed."""
    catalogue, noon_ms = shop(100, Split(2, ("phone",))), NOW_MS // 86_400_000 * 86_400_000 + 43_200_000
    told = {"i1": (0.0, 9.0, 0.0), "i2": (0.0, 0.0, 6.0), "i3": (4.0, 4.0, 4.0)}
    catalogue.set_signals(
        [ItemSignals(item, 12.0, NOW_MS, 0.0, 9, (0.0, 0.0, 0.0, *masses), ("phone",)) for item, masses in told.items()]
    )
    asked = RankingParameters(segment=0.2)

    def first(device: int, now_ms: int = noon_ms) -> str:
        one = request(parameters=asked, now_ms=now_ms, device=device)
        return ranked(catalogue, SETTINGS, one)[0].item_ids[0]

    assert ["i3", "i1", "i2", "i2"] == [first(device) for device in (0, 1, 2, 255)]
    assert "i3" == Ranker(catalogue, SETTINGS).default(asked, None, noon_ms).item_ids[0]
    before = [ranked(catalogue, SETTINGS, request(device=device)) for device in (0, 1)]
    assert before[0] == before[1]
    users = users_of([request(parameters=asked, now_ms=noon_ms, device=device) for device in (1, 255, 0)], catalogue)
    together = Ranker(catalogue, SETTINGS).rank(joined([users.only(np.array([0, 1])), users.only(np.array([2]))]))
    assert ["i1", "i2", "i3"] == [one.item_ids[0] for one in together]


def test_what_rises_is_a_candidate_for_everybody() -> None:
    """However far from the user and however little popular, where the user's parameters say so; the source tells it."""
    catalogue, day_ms = shop(100), 86_400_000
    catalogue.set_signals([ItemSignals(f"i{number}", 9.0, NOW_MS, 0.5, 9) for number in range(80)])
    catalogue.set_signals([ItemSignals("i99", 1.0, NOW_MS, 5.0, 1), ItemSignals("i98", 1.0, NOW_MS - day_ms, 5.0, 1)])
    catalogue.set_signals([ItemSignals("i97", 1.0, NOW_MS, 5.0, 1)])
    catalogue.delete_item("i97")
    rises = request(axis(1), parameters=RankingParameters(trending=1.0))
    still = request(axis(1), parameters=RankingParameters(trending=0.0))
    trending, plain = ranked(catalogue, SETTINGS, rises, still)
    assert ("i99", "trending") == (trending.items[0].item_id, trending.items[0].source)
    assert {"i97", "i98", "i99"}.isdisjoint(plain.item_ids)
    assert "i97" not in trending.item_ids
    assert [plain] == ranked(catalogue, SETTINGS, still)


def test_leaders_of_the_users_categories_are_candidates() -> None:
    """Where the parameters say so, by the events' weights, most popular first; source and events are told."""
    catalogue = shop(200)
    for number in range(80, 200):
        catalogue.upsert_item(Item(f"i{number}", category=("tea", "mugs", "bowls")[number % 3]))
    catalogue.set_signals([ItemSignals(f"i{number}", 99.0, NOW_MS, 0.0, 9) for number in range(80)])
    catalogue.set_signals([ItemSignals(f"i{number}", number / 100, NOW_MS, 0.0, 1) for number in range(80, 200)])
    recent = [event("i81", "carts"), event("i82", "clicks")]
    likes = request(recent=recent, parameters=RankingParameters(category=1.0))
    plain = request(recent=recent, parameters=RankingParameters(category=0.0))
    led, other = ranked(catalogue, SETTINGS, likes, plain)
    # Tea, of which i81 is, has 3 of 4 parts; each item counts by its popularity as a share of that of i198.
    assert ["i198", "i195", "i192", "i189"] == [item.item_id for item in led.items if item.source == "category"]
    assert all(item.because == (Because("i81", "carts", 1.0),) for item in led.items)
    assert {"popular"} == {item.source for item in other.items}


def test_an_item_whose_price_is_near_stands_before_its_like() -> None:
    """Where the parameters say so: first what costs as much, then what tells no price, last what costs far more."""
    catalogue = shop(DIM)
    for number, price in enumerate((400.0, None, 9.0)):
        catalogue.upsert_item(Item(f"like{number}", price=price))
        catalogue.set_vector(f"like{number}", axis(1))
    catalogue.upsert_item(Item("i7", price=10.0))
    asked = RankingParameters(short=0.6, exclude_seen=False)
    plain = request(axis(1), recent=[event("i7")], parameters=asked)
    looked = plain._replace(parameters=dataclasses.replace(asked, price=0.3))
    assert ["i1", "like0", "like1", "like2"] == ids(catalogue, plain)[0]
    told = {item.item_id: item for item in ranked(catalogue, SETTINGS, looked)[0].items}
    assert ["like2", "i1", "like1", "like0"] == list(told)
    assert (Because("i7", "clicks", 0.2985),) == told["like2"].because
    assert () == told["like1"].because == told["i1"].because == told["like0"].because


def test_items_without_vectors_are_listed_by_popularity() -> None:
    """An item whose vector is still on its way can be recommended all the same."""
    catalogue = shop(3)
    catalogue.upsert_item(Item("fresh"))
    catalogue.set_signals([ItemSignals("fresh", 1.0, NOW_MS, 0.0, 1)])
    assert ids(catalogue, request(axis(2))) == [["i2", "fresh", "i0", "i1"]]


def test_lists_are_full_or_the_catalogue_is_empty() -> None:
    """A list is shorter than asked only where there are no more items."""
    assert [len(items) for items in ids(shop(3), request())] == [3]
    assert ids(Catalogue(), request()) == [[]]


def test_vectors_of_another_dimension_say_nothing() -> None:
    """A user whose vectors are of the last vector space is ranked by popularity until they are made anew."""
    assert ids(shop(), request(np.ones(3, np.float32))) == [["i0", "i1", "i2", "i3"]]


def test_the_list_does_not_depend_on_the_batch() -> None:
    """The same user and the same catalogue give the same list, alone or among others."""
    random = np.random.default_rng(5)
    catalogue = shop(0)
    for number in range(300):
        vector = random.standard_normal(DIM).astype(np.float32)
        catalogue.upsert_item(Item(f"i{number}"))
        catalogue.set_vector(f"i{number}", vector / np.linalg.norm(vector))
    requests = [
        request(
            random.standard_normal(DIM).astype(np.float32),
            recent=[event(f"i{item}", age_s=item) for item in random.integers(300, size=number % 5)],
            excluded=[f"i{item}" for item in random.integers(300, size=number % 3)],
        )
        for number in range(40)
    ]
    alone = [ranked(catalogue, SETTINGS, one)[0] for one in requests]
    assert alone == ranked(catalogue, SETTINGS, *requests)
    users = joined([users_of(requests[:1], catalogue), users_of(requests[1:3], catalogue)])
    assert alone[:3] == Ranker(catalogue, SETTINGS).rank(users)


def test_what_some_variants_weigh_changes_no_other_list() -> None:
    """Users with whom trends, categories, prices and so on count stand beside others as if each were alone."""
    random = np.random.default_rng(6)
    catalogue = shop(0, Split(2))
    for number in range(300):
        vector = random.standard_normal(DIM).astype(np.float32)
        catalogue.upsert_item(Item(f"i{number}", category=f"c{number % 7}", price=1.0 + number % 11))
        catalogue.set_vector(f"i{number}", vector / np.linalg.norm(vector))
    catalogue.set_signals(
        [
            ItemSignals(f"i{row}", 1 + row / 10, NOW_MS, 2 * random.random(), 9, (row / 10, 1.0))
            for row in range(0, 300, 2)
        ]
    )
    variants = [
        RankingParameters(),
        RankingParameters(trending=0.5),
        RankingParameters(category=0.5),
        RankingParameters(interests=0.5),
        RankingParameters(price=0.5),
        RankingParameters(segment=0.5),
        RankingParameters(category=0.1, mmr=0.5),
    ]
    requests = [
        request(
            random.standard_normal(DIM).astype(np.float32),
            recent=[event(f"i{item}", age_s=item) for item in random.integers(300, size=9)],
            parameters=variants[number % len(variants)],
        )
        for number in range(20)
    ]

    def lists(asked: list[Asked]) -> list[Ranked]:
        users = users_of(asked, catalogue)
        owned = users.owned._replace(masses=1 + (users.owned.items % 5).astype(np.float64))
        return Ranker(catalogue, SETTINGS).rank(users._replace(owned=owned))

    alone = [lists([one])[0] for one in requests]
    assert alone == lists(requests)
    assert {"interest", "trending", "category"} <= {item.source for one in alone for item in one.items}


def test_reasons_are_the_events_that_carry_the_item() -> None:
    """Shares follow event weight, decay and likeness; equal events speak as one; dislikes and unknown items never."""
    catalogue = shop(2)
    catalogue.set_vector("i1", (axis(0) * np.float32(0.8) + axis(1) * np.float32(0.6)))
    catalogue.set_vector("i9", axis(0))
    catalogue.set_vector("i8", axis(1))
    recent = [
        event("i9"),
        event("i9", age_s=SETTINGS.half_life_short_s),
        event("i8", "carts"),
        event("i9", "dislikes"),
        event("gone"),
    ]
    # Decayed weights of the short vector: 1 + 1/2 along axis 0, 3 along axis 1.
    short = 1.5 * axis(0) + 3 * axis(1)
    parameters = RankingParameters(short=1.0, long=0.0, negative=0.0, popularity=0.0)
    first, second = ranked(catalogue, SETTINGS, request(short, recent=recent, parameters=parameters))[0].items
    assert (first.item_id, first.source) == ("i1", "interest")
    # 1.5 x 0.8 = 1.2 against 3 x 0.6 = 1.8.
    assert first.because == (Because("i8", "carts", 0.6), Because("i9", "clicks", 0.4))
    assert first.score == pytest.approx(3.0 / np.hypot(1.5, 3), abs=1e-5)
    assert second.because == (Because("i9", "clicks", 1.0),)


def test_older_history_takes_its_share() -> None:
    """What the recent events do not explain is no event's share."""
    catalogue = shop(1)
    catalogue.set_vector("i9", axis(0))
    # The long vector holds 1 of the event and 3 of what left the recent ones.
    asked = request(long=4 * axis(0), recent=[event("i9")])
    (item,) = ranked(catalogue, SETTINGS, asked)[0].items
    assert item.because == (Because("i9", "clicks", 0.25),)


def test_a_composed_list_reads_back() -> None:
    """The published JSON holds what was ranked, with an id made of partition and version."""
    (found,) = ranked(shop(), SETTINGS, request(axis(3)))
    made = compose(
        found, user_id="u", surface="home", partition=3, version=2**32 + 10, generated_at_ms=NOW_MS + 5,
        event_ts_ms=NOW_MS, ingested_at_ms=NOW_MS + 1, policy="p", model="m", as_of=AsOf({"clicks": 7}),
        experiments={}, trigger=Trigger("event", "clicks", 3, 6, "e"), events_applied={"clicks": 1},
    )  # fmt: skip
    value = made.encode()
    assert value.startswith(b'{"version":4294967306,')
    assert made.recommendation_id == "3-10000000a"
    assert value == decode_recommendation(value).encode()
    assert found.items == decode_recommendation(value).items
