"""Steady lists: nothing changes without a reason, and with one no more than the knob allows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.consistency import controls
from models.events import SESSION_GAP_MS
from models.ranking import SCORE_STEP
from models.reranking import Pool, Promotions, RerankParameters
from tests.support.pools import ITEMS, NOW_MS, World, list_before, listed

SEEDS = st.integers(0, 2**32 - 1)
KNOBS = st.sampled_from([0.05, 0.25, 0.5, 0.75, 0.8, 1.0])
SIZE = 10


def both(world: World, before: list[int], candidates: int = 25) -> Pool:
    """Return a new pool that holds what stood on the list before, as pools do, and other items."""
    pool = world.new_pool(candidates)
    rows = list(dict.fromkeys([*before, *pool.rows[0].tolist()]))
    steps = np.sort(world.random.integers(-10, 60, len(rows)))[::-1] * 1_000
    return Pool(world.random.permutation(rows).astype(np.int32)[None], steps[None].astype(np.int64), SCORE_STEP)


def steady(knob: float) -> RerankParameters:
    """Return what asks for nothing but steadiness."""
    return RerankParameters(steadiness=knob)


@given(SEEDS, KNOBS, st.booleans())
def test_the_budget_is_kept(seed: int, knob: float, diverse: bool) -> None:  # noqa: FBT001
    """No more newcomers than the budget, unless places fell free; each item once; the same input, the same list."""
    world = World(seed)
    before = listed(world.pool, world.rerank(SIZE), SIZE)
    pool = both(world, before)
    gone = set(world.random.choice(before, world.random.integers(0, 4), replace=False).tolist())
    here = [row not in gone for row in pool.rows[0].tolist()]
    pool = Pool(pool.rows[:, here], pool.steps[:, here], SCORE_STEP)
    asked = RerankParameters(steadiness=knob, dpp=0.3 * diverse)
    order = world.rerank(SIZE, pool=pool, previous=list_before(before), asked=asked)
    after = listed(pool, order, SIZE)
    budget = int(controls(np.array([knob]), SIZE).budget[0])

    assert SIZE == len(set(after))
    assert len(set(after) - set(before)) <= budget + len(gone)
    assert (len(set(after) - set(before)), len(gone)) == (order.changed[0], order.forced[0])
    again = world.rerank(SIZE, pool=pool, previous=list_before(before), asked=asked)
    assert order.places.tolist() == again.places.tolist()


@given(SEEDS, st.just(0.0) | KNOBS, st.integers(0, 3), st.booleans())
def test_nothing_changes_without_a_reason(seed: int, knob: float, cap: int, diverse: bool) -> None:  # noqa: FBT001
    """Without an event a list stays as it is, whatever the scores; of a struck item the place alone changes."""
    world = World(seed)
    asked = RerankParameters(steadiness=knob, dpp=0.3 * diverse, brand_cap=float(cap))
    before = listed(world.pool, world.rerank(SIZE, asked=asked), SIZE)
    pool = both(world, before)
    order = world.rerank(SIZE, pool=pool, previous=list_before(before, moved=False), asked=asked)
    assert before == listed(pool, order, SIZE)
    assert ([0], [0]) == (order.changed.tolist(), order.forced.tolist())

    struck = int(world.random.choice(before))
    here = pool.rows[0] != struck
    pool = Pool(pool.rows[:, here], pool.steps[:, here], SCORE_STEP)
    after = listed(pool, world.rerank(SIZE, pool=pool, previous=list_before(before, moved=False), asked=asked), SIZE)
    differs = [slot for slot in range(SIZE) if before[slot] != after[slot]]
    assert [before.index(struck)] == differs
    once_more = world.rerank(SIZE, pool=pool, previous=list_before(after, moved=False), asked=asked)
    assert after == listed(pool, once_more, SIZE)


@given(SEEDS, st.floats(0, 1), st.integers(0, SIZE - 1))
def test_anchored_items_never_move(seed: int, knob: float, slot: int) -> None:
    """A pinned item keeps its slot through any chain of refreshes at any setting, and the rest keeps the budget."""
    world = World(seed)
    pinned = np.full(SIZE, -1, np.int32)
    pinned[slot] = anchor = int(world.random.integers(0, ITEMS))
    promotions = Promotions(pinned, np.empty(0, np.float32))
    before: list[int] = []
    for moved in (True, True, False, True):
        pool = both(world, [anchor, *(row for row in before if row != anchor)])
        previous = list_before(before, moved=moved)
        order = world.rerank(SIZE, pool=pool, previous=previous, promotions=promotions, asked=steady(knob))
        after = listed(pool, order, SIZE)
        assert anchor == after[slot]
        if before and knob:
            allowed = int(controls(np.array([knob]), SIZE).budget[0]) if moved else 0
            assert len(set(after) - set(before)) <= allowed
        before = after


@given(SEEDS)
def test_steadiness_0_is_the_plain_ranking(seed: int) -> None:
    """With an event behind it, the list before is nothing to a knob at 0."""
    world = World(seed)
    before = listed(world.pool, world.rerank(SIZE), SIZE)
    pool = both(world, before)
    order = world.rerank(SIZE, pool=pool, previous=list_before(before), asked=steady(0.0))
    assert list(range(SIZE)) == order.places[0].tolist()


@given(SEEDS, KNOBS)
def test_a_new_session_begins_a_new_list(seed: int, knob: float) -> None:
    """After a pause as long as ends a session, the first event brings the plain ranking."""
    world = World(seed)
    before = listed(world.pool, world.rerank(SIZE), SIZE)
    pool = both(world, before)
    previous = list_before(before)
    late = int(previous.made_ms[0]) + SESSION_GAP_MS + 1
    order = world.rerank(SIZE, pool=pool, previous=previous, now_ms=late, asked=steady(knob))
    assert list(range(SIZE)) == order.places[0].tolist()


@given(SEEDS)
def test_items_stay_for_the_dwell(seed: int) -> None:
    """At 1 an item that came less than half a minute ago stays where it is; later it may go."""
    world = World(seed)
    before = listed(world.pool, world.rerank(SIZE), SIZE)
    pool = both(world, before)
    fresh = list_before(before, since_ms=NOW_MS - 29_999)
    assert before == listed(pool, world.rerank(SIZE, pool=pool, previous=fresh, asked=steady(1.0)), SIZE)


@given(SEEDS, st.sampled_from([0.8, 1.0]))
def test_items_that_stay_keep_their_positions(seed: int, knob: float) -> None:
    """From .8 on newcomers take the places of those who left, and nobody else moves."""
    world = World(seed)
    before = listed(world.pool, world.rerank(SIZE), SIZE)
    pool = both(world, before)
    after = listed(pool, world.rerank(SIZE, pool=pool, previous=list_before(before), asked=steady(knob)), SIZE)
    stayed = set(before) & set(after)
    assert [row for row in before if row in stayed] == [row for row in after if row in stayed]
    assert all(before[slot] == row for slot, row in enumerate(after) if row in stayed)


def test_an_item_of_another_price_must_earn_its_place() -> None:
    """A changed price breaks the hold on one item and on no other."""
    world = World(7)
    before = listed(world.pool, world.rerank(SIZE), SIZE)
    rows = np.array([[row for row in range(ITEMS) if row not in before] + before], np.int32)
    pool = Pool(rows, np.arange(ITEMS, 0, -1)[None] * 10, SCORE_STEP)
    previous = list_before(before, moved=False)
    previous.price_marks[0, :] = world.attributes.price_marks[before]
    world.attributes.price_marks[before[4]] = 100
    after = listed(pool, world.rerank(SIZE, pool=pool, previous=previous, asked=steady(1.0)), SIZE)
    assert [*before[:4], int(rows[0, 0]), *before[5:]] == after


@pytest.mark.parametrize("knob", [0.25, 0.5])
def test_half_of_the_list_follows_a_switched_interest_within_8_events(knob: float) -> None:
    """When all that was good is bad and other items are good, 8 events bring half of ten of the new ones."""
    world = World(2)
    old, new = list(range(20)), list(range(20, 40))
    pool = Pool(np.array([new + old], np.int32), np.repeat([80_000, 40_000], 20)[None], SCORE_STEP)
    before = old
    for _ in range(8):
        previous = list_before(before, since_ms=NOW_MS - 1_000)
        before = listed(pool, world.rerank(20, pool=pool, previous=previous, asked=steady(knob)), 20)
        if sum(row in new for row in before[:10]) >= 5:
            break
    assert sum(row in new for row in before[:10]) >= 5
