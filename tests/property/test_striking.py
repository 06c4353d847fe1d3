"""Striking items from lists: the compiled maths and the shelf against a plain reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.exploration import CERTAIN
from models.reasons import MAX_REASONS
from models.reranking import Promotions, RerankParameters
from models.striking import strike
from streams.refresh.shelf import Origin, Shelf
from streams.refresh.strikes import Strikes
from streams.wire.ranked_items import EXPLORED, Places
from streams.wire.recommendations import AsOf
from tests.support.pools import World, list_before

ITEMS = 24
SEEDS = st.integers(0, 2**32 - 1)


def reference(items: list[int], usable: set[int], size: int) -> list[int]:
    """Return a list without what may not stay, and what stands by then, as the README says it."""
    listed, spares = items[:size], [item for item in items[size:] if item in usable]
    for place, item in enumerate(listed):
        if item not in usable:
            listed[place] = spares.pop(0) if spares else -1
    return [item for item in listed if item >= 0] + spares


@st.composite
def struck(draw: st.DrawFn) -> tuple[list[list[int]], set[int], int]:
    """Draw lists of different items, some shorter than others, what may still be listed, and the length of a list."""
    size, spare = draw(st.integers(1, 8)), draw(st.integers(0, 6))
    lists = draw(
        st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=size + spare, unique=True), min_size=1, max_size=6)
    )
    usable = draw(st.sets(st.integers(0, ITEMS - 1)))
    return [[*items, *[-1] * (size + spare - len(items))] for items in lists], usable, size


@given(struck())
def test_a_struck_list_is_the_references(drawn: tuple[list[list[int]], set[int], int]) -> None:
    """What may be listed keeps its place, holes go to what stands by in its order, and nothing else moves."""
    lists, usable, size = drawn
    flags = np.zeros(ITEMS, np.bool_)
    flags[list(usable)] = True
    places = strike(np.array(lists, np.int32), flags, size)
    made = [
        [items[place] for place in of_user if place >= 0] for items, of_user in zip(lists, places.tolist(), strict=True)
    ]
    assert [reference(items, usable, size) for items in lists] == made


@given(SEEDS, st.integers(1, 3), st.sets(st.integers(0, 29), max_size=10))
def test_any_spare_may_take_any_place_within_the_caps(seed: int, cap: int, gone: set[int]) -> None:
    """A list that broke no cap breaks none after items were struck from it."""
    world = World(seed, 30)
    order = world.rerank(10, spare=10, asked=RerankParameters(brand_cap=cap, category_cap=cap, dpp=0.2))
    rows = world.pool.rows[0][order.places[0]].astype(np.int32)
    rows[order.places[0] < 0] = -1
    usable = np.ones(int(world.pool.rows.max()) + 1, np.bool_)
    usable[world.pool.rows[0][sorted(gone)]] = False
    left = strike(rows[None], usable, 10)[0][:10]
    listed = rows[left[left >= 0]]
    for values in (world.attributes.brands[listed], world.attributes.categories[listed]):
        counted = np.bincount(values[values >= 0], minlength=1)
        assert order.beyond[0] or counted.max() <= cap


@given(
    SEEDS,
    st.builds(
        RerankParameters,
        mmr=st.sampled_from([0.0, 0.4]),
        dpp=st.sampled_from([0.0, 0.4]),
        calibration=st.sampled_from([0.0, 0.3]),
        brand_cap=st.sampled_from([0.0, 2.0]),
        category_cap=st.sampled_from([0.0, 3.0]),
        price_share=st.sampled_from([0.0, 0.6]),
        steadiness=st.sampled_from([0.0, 0.5, 1.0]),
    ),
    st.booleans(),
)
def test_what_stands_by_changes_nothing_of_the_list(seed: int, asked: RerankParameters, moved: bool) -> None:  # noqa: FBT001
    """A list is the same with and without spares, whatever is asked for: so it is the evaluated one."""
    world = World(seed, 30)
    before = list_before(world.random.choice(world.pool.rows[0], 10, replace=False).tolist(), moved=moved)
    pinned = np.array([world.pool.rows[0][3], -1, world.pool.rows[0][20]], np.int32)
    promotions = Promotions(pinned, world.random.choice([0.0, 0.1], 60).astype(np.float32))
    with_spares, without = (
        world.rerank(10, spare=spare, asked=asked, previous=before, promotions=promotions) for spare in (10, 0)
    )
    assert without.places[0].tolist() == with_spares.places[0, :10].tolist()
    spares = [place for place in with_spares.places[0, 10:].tolist() if place >= 0]
    assert not set(spares) & set(without.places[0].tolist())
    assert len(spares) == len(set(spares))


class Lists:
    """A shelf of users whose lists are drawn, and the same in plain lists."""

    def __init__(self, seed: int, size: int, spare: int, most: int) -> None:
        self.random = np.random.default_rng(seed)
        self.size, self.width = size, size + spare
        self.shelf: Shelf[str] = Shelf(size, spare, most)
        self.plain: dict[str, tuple[list[int], int, int]] = {}

    def put(self, users: list[str], version: int) -> None:
        """Make a list for each user."""
        count = len(users)
        items = np.array([self.random.permutation(ITEMS)[: self.width] for _ in users], np.int32)
        shape = (count, self.width)
        places = Places(
            items, self.random.integers(100, size=shape), np.ones(shape, np.uint8), np.full(shape, CERTAIN),
            np.zeros((*shape, MAX_REASONS), np.int32), np.zeros((*shape, MAX_REASONS), np.uint8),
            np.zeros((*shape, MAX_REASONS), np.int64),
        )  # fmt: skip
        times = self.random.choice(10_000, count, replace=False).tolist()
        origins = [Origin("home", "f", ts_ms, AsOf({"clicks": 1}), {}, {"clicks": 2}) for ts_ms in times]
        marks = np.zeros(shape, np.uint16)
        self.shelf.put([user[0] for user in users], users, places, marks, [version] * count, origins)
        for user, row, ts_ms in zip(users, items.tolist(), times, strict=True):
            self.plain[user] = (row, ts_ms, version)

    def check(self) -> None:
        """Hold every list that is there against the plain one."""
        users = [user for user in self.plain if user in self.shelf]
        found = self.shelf.get(users)
        made = [
            (items, origin.event_ts, version)
            for items, origin, version in zip(
                found.places.items.tolist(), found.origins, found.versions.tolist(), strict=True
            )
        ]
        assert [self.plain[user] for user in users] == made


@given(SEEDS, st.lists(st.sets(st.integers(0, 60), min_size=1), min_size=1, max_size=8))
def test_the_shelf_keeps_the_newest_list_of_each(seed: int, turns: list[set[int]]) -> None:
    """Whatever is put, dropped and grown over, each user's list is the newest; a full shelf gives up some lists."""
    lists = Lists(seed, 4, 2, most=40)
    for version, users in enumerate(turns):
        lists.put([f"{user % 2}:{user}" for user in sorted(users)][:40], version)
        gone = f"{version % 2}:{version}"
        lists.shelf.drop(gone)
        lists.plain.pop(gone, None)
        lists.check()
        assert len(lists.shelf) <= 40
    lists.shelf.forget("1")
    assert not any(user in lists.shelf for user in lists.plain if user[0] == "1")
    lists.check()


@given(SEEDS, st.sets(st.integers(0, ITEMS - 1), min_size=1, max_size=3))
def test_holders_are_those_whose_list_has_the_item(seed: int, closed: set[int]) -> None:
    """Who has an item among those that stand by only is not named; who was active last comes first."""
    lists = Lists(seed, 5, 3, most=100)
    lists.put([f"u{number}" for number in range(30)], 1)
    holders = {user: ts_ms for user, (items, ts_ms, _) in lists.plain.items() if closed & set(items[:5])}
    expected = sorted(holders, key=lambda user: -holders[user])
    assert expected == lists.shelf.holders(closed, ITEMS)

    strikes, is_open = Strikes(lists.shelf), np.ones(ITEMS, np.bool_)
    is_open[list(closed)] = False
    strikes.add(closed, ITEMS)
    first = strikes.take(3, is_open, ()).user_ids
    assert (expected[:3], max(len(expected) - 3, 0)) == (first, len(strikes))


def test_who_got_another_list_is_left_alone() -> None:
    """A list that was made again while it waited holds nothing any more that has to go."""
    lists = Lists(1, 5, 3, most=100)
    lists.put(["u"], 1)
    item: Any = lists.plain["u"][0][0]
    strikes, is_open = Strikes(lists.shelf), np.ones(ITEMS, np.bool_)
    strikes.add([item], ITEMS)
    is_open[item] = False
    while item in lists.plain["u"][0][:5]:
        lists.put(["u"], 2)
    struck = strikes.take(10, is_open, ())
    assert ([], 0, []) == (struck.user_ids, len(struck.shelved.origins), struck.lost)


def test_who_is_owed_a_list_is_not_struck() -> None:
    """The list that is owed will have seen more, and will not hold what has to go."""
    lists = Lists(1, 5, 3, most=100)
    lists.put(["u", "v"], 1)
    strikes, is_open = Strikes(lists.shelf), np.zeros(ITEMS, np.bool_)
    strikes.add(range(ITEMS), ITEMS)
    assert ["v"] == strikes.take(10, is_open, {"u"}).user_ids
    assert 0 == len(strikes)


@pytest.mark.parametrize(
    ("source", "closed", "again"), [(0, 2, True), (0, 1, False), (EXPLORED, 2, True), (EXPLORED, 1, True)]
)
def test_what_exploration_drew_is_for_ranking_to_fill(source: int, closed: int, again: bool) -> None:  # noqa: FBT001
    """Whose exploration slot is struck, or anything from a list for which was drawn, is told; others are struck."""
    lists = Lists(1, 5, 3, most=100)
    lists.put(["u"], 1)
    shelved = lists.shelf.get(["u"])
    shelved.places.propensities[0, 2], shelved.places.sources[0, 2] = CERTAIN // 2, source
    lists.shelf.put(["u"], ["u"], shelved.places, shelved.price_marks, [2], shelved.origins)
    item, is_open = int(shelved.places.items[0, closed]), np.ones(ITEMS, np.bool_)
    strikes = Strikes(lists.shelf)
    strikes.add([item], ITEMS)
    is_open[item] = False
    found = strikes.take(10, is_open, ())
    assert (([], [("u", "u")]) if again else (["u"], [])) == (found.user_ids, found.lost)


def test_whose_list_left_the_shelf_is_told() -> None:
    """A list that had to make room while it waited is to be ranked again."""
    lists = Lists(1, 5, 3, most=8)
    lists.put([f"u{number}" for number in range(8)], 1)
    strikes, is_open = Strikes(lists.shelf), np.zeros(ITEMS, np.bool_)
    strikes.add(range(ITEMS), ITEMS)
    oldest = min(lists.plain, key=lambda user: lists.plain[user][1])
    lists.put(["new"], 1)
    strikes.add(range(ITEMS), ITEMS)
    struck = strikes.take(100, is_open, ())
    assert [("u", oldest)] == struck.lost
    assert {*lists.plain} - {oldest} == {*struck.user_ids}
