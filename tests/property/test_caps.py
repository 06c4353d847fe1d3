"""Guardrails: never broken while the pool has anything else, and told where it has not."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.caps import PRICE_BAND
from models.ranking import SCORE_STEP
from models.reranking import Pool, Promotions, RerankParameters
from tests.support.pools import ITEMS, World, listed

SEEDS = st.integers(0, 2**32 - 1)


def most(counted: list[int]) -> int:
    """Return how often the commonest known value stands there."""
    return max(Counter(value for value in counted if value >= 0).values(), default=0)


@given(SEEDS, st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 0.5, 0.7, 1.0]), st.booleans())
def test_no_guardrail_breaks_unsaid(seed: int, brand: int, category: int, near: float, diverse: bool) -> None:  # noqa: FBT001
    """A list breaks no cap and no price band; where it says that it gave something up, nothing else was left."""
    world, size = World(seed, 30), 10
    order = world.rerank(
        size, asked=RerankParameters(brand_cap=brand, category_cap=category, price_share=near, dpp=0.3 * diverse)
    )
    rows = np.array(listed(world.pool, order, size))
    brands, categories, prices, _ = (column[rows].tolist() for column in world.attributes)
    known = [price for price in world.attributes.prices[world.events.items].tolist() if price > 0]
    middle = math.log(sorted(known)[(len(known) - 1) // 2]) if known else math.nan
    far = sum(price > 0 and abs(math.log(price) - middle) > PRICE_BAND for price in prices)

    assert size == len(set(rows.tolist()))
    if not order.beyond[0]:
        assert most(brands) <= brand
        assert most(categories) <= category
        assert not near or far <= math.floor(round(size * (1 - near), 9))
    else:
        left = set(world.pool.rows[0].tolist()) - set(rows.tolist())
        kept = rows[: size - order.beyond[0]].tolist()
        for row in left:
            extra = world.attributes.prices[[*kept, row]].tolist()
            assert (
                most(world.attributes.brands[[*kept, row]].tolist()) > brand
                or most(world.attributes.categories[[*kept, row]].tolist()) > category
                or (
                    near
                    and sum(price > 0 and abs(math.log(price) - middle) > PRICE_BAND for price in extra)
                    > math.floor(round(size * (1 - near), 9))
                )
            )


def test_a_pool_of_one_brand_fills_the_list_and_says_so() -> None:
    """Caps are given up where nothing else is left: better a list of one brand than a short one."""
    world = World(1, 20)
    world.attributes.brands[:] = 3
    order = world.rerank(10, asked=RerankParameters(brand_cap=3))
    assert list(range(10)) == order.places[0].tolist()
    assert [7] == order.beyond.tolist()


@given(SEEDS, st.integers(0, 9), st.integers(0, 9), st.booleans())
def test_pinned_items_take_their_slots(seed: int, first: int, second: int, diverse: bool) -> None:  # noqa: FBT001
    """A pinned item stands in its slot for every user who may see it; for another the slot is like any other."""
    world = World(seed, 20)
    pinned = np.full(10, -1, np.int32)
    pinned[first], pinned[second] = world.random.choice(ITEMS, 2, replace=False)
    promotions = Promotions(pinned, np.empty(0, np.float32))
    rows = listed(world.pool, world.rerank(10, promotions=promotions, asked=RerankParameters(mmr=0.3 * diverse)), 10)
    candidates = world.pool.rows[0].tolist()
    expected = {slot: row for slot, row in enumerate(pinned.tolist()) if row in candidates}
    assert expected == {slot: rows[slot] for slot in expected}
    assert 10 == len(set(rows))
    others = [candidates.index(row) for slot, row in enumerate(rows) if slot not in expected]
    assert diverse or all(one < other for one, other in pairwise(others))


def test_a_boost_is_a_score() -> None:
    """A boosted item stands where one with so much more of a score would."""
    world = World(5, 4)
    pool = Pool(world.pool.rows, np.array([[50_000, 40_000, 30_000, 20_000]]), SCORE_STEP)
    boosts = np.zeros(ITEMS, np.float32)
    boosts[pool.rows[0, 3]] = 0.15
    order = world.rerank(4, pool=pool, promotions=Promotions(np.empty(0, np.int32), boosts))
    assert [0, 1, 3, 2] == order.places[0].tolist()


@given(SEEDS, st.integers(1, 20), st.integers(0, 10))
def test_nothing_asked_is_the_plain_ranking(seed: int, size: int, spare: int) -> None:
    """By default a list is the first of the pool, and what stands by comes next."""
    order = World(seed, 18).rerank(size, spare=spare).places[0]
    assert [place if place < 18 else -1 for place in range(size + spare)] == order.tolist()


@given(SEEDS, st.integers(0, 25))
def test_spares_are_the_best_of_the_rest(seed: int, candidates: int) -> None:
    """Behind a diverse list stand the others by score, each once; a small pool gives what it has."""
    world = World(seed, candidates)
    places = world.rerank(10, spare=5, asked=RerankParameters(dpp=0.4)).places[0].tolist()
    spares = [place for place in places[10:] if place >= 0]
    assert spares == sorted(spares)
    assert min(candidates, 15) == len({place for place in places if place >= 0})
    assert [-1] * (15 - min(candidates, 15)) == places[min(candidates, 15) :]


@pytest.mark.parametrize("wrong", [{"mmr": 1.1}, {"steadiness": -0.1}, {"brand_cap": -1.0}])
def test_what_cannot_be_asked_is_refused(wrong: dict[str, float]) -> None:
    """Parameters out of range are named."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RerankParameters(**wrong)
