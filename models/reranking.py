"""
From a pool of ranked candidates to the list: diverse, calibrated, within guardrails, and steady.

A list depends on its own user's pool, events and last list alone, not on who else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models import choosing, consistency
from models.caps import Attributes
from models.choosing import Aims, Candidates, Desk
from models.compiled import compiled
from models.consistency import Controls, Previous
from models.diversity import DPP, MMR, OFF
from models.events import Events, Weighing

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]

#: Boosted items that every user is scored for; others are boosted where they are candidates anyway.
_MAX_BOOSTED: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankParameters:
    """
    What is made of a ranked pool; 0 is off wherever it may be.

    Attributes
    ----------
    mmr, dpp
        Weight of unlikeness against the score, 0..1, by maximal marginal relevance or by a determinantal point process;
        of both the first alone counts.
    diversity_window
        How many of the last choices repel; 0 for all.
    calibration
        Weight of the categories' divergence from those of the user's events against the score, 0..1.
    brand_cap, category_cap
        Items of one brand, of one category that a list may hold.
    price_share
        Least share of a list's items whose price is near to the user's, 0..1.
    steadiness
        How much a list keeps of the one before it, 0..1; see `models.consistency`.
    explore, explore_slot
        Probability that a slot of the list is given to a fresh item, 0..1, and which slot that is: the first is 1, and
        shorter lists have it at their end. See `models.exploration`.

    Raises
    ------
    ValueError
        Naming the parameter that cannot be.

    """

    mmr: float = 0.0
    dpp: float = 0.0
    diversity_window: float = 0.0
    calibration: float = 0.0
    brand_cap: float = 0.0
    category_cap: float = 0.0
    price_share: float = 0.0
    steadiness: float = 0.0
    explore: float = 0.0
    explore_slot: float = 10.0

    def __post_init__(self) -> None:
        for name in ("mmr", "dpp", "calibration", "price_share", "steadiness", "explore"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1, not {getattr(self, name):g}")
        for name in ("diversity_window", "brand_cap", "category_cap"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if not self.explore_slot >= 1:
            raise ValueError(f"explore_slot must be 1 or more, not {self.explore_slot:g}")


class Pool(NamedTuple):
    """
    Candidates of n users, best first.

    Attributes
    ----------
    rows
        (n, m) int32, rows of items the user may be shown, each once; -1 behind the last.
    steps
        (n, m) int64, scores in steps.
    step
        What one step is worth.

    """

    rows: Rows
    steps: Ints
    step: float


class Tastes(NamedTuple):
    """
    What n users' events say of categories and prices.

    Attributes
    ----------
    events
        Oldest first.
    now_ms
        (n,) int64, time of each user's newest event.
    weighing
        How much an event says.

    """

    events: Events
    now_ms: Ints
    weighing: Weighing


class Promotions(NamedTuple):
    """
    What the shop puts forward.

    Attributes
    ----------
    pinned
        (s,) int32, the item pinned to each of the first slots, -1 for none. A user whose pool lacks it gets another.
    boosts
        (items,) float32, added to an item's score before lists are made of it; rows beyond get nothing.

    """

    pinned: Rows
    boosts: Floats


class Order(NamedTuple):
    """
    The lists of n users as places in their pools.

    Attributes
    ----------
    places
        (n, size + spare) int64, -1 where the pool ended; the last `spare` of them stand by for items that are struck.
    changed
        (n,) int64, items that are not on the list before.
    forced
        (n,) int64, as many of these as something other than the score forced.
    beyond
        (n,) int64, items for which price band or caps were given up, because nothing else was left.

    """

    places: Ints
    changed: Ints
    forced: Ints
    beyond: Ints


def nothing_promoted() -> Promotions:
    """Return what puts nothing forward."""
    return Promotions(np.empty(0, np.int32), np.empty(0, np.float32))


def put_forward(promotions: Promotions) -> Rows:
    """
    Return the rows that are candidates for every user: what is pinned, and what is boosted most.

    >>> put_forward(Promotions(np.array([-1, 4], np.int32), np.array([0, 0.5, -1, 2], np.float32))).tolist()
    [4, 3, 1]
    """
    pinned = promotions.pinned[promotions.pinned >= 0]
    boosted = np.flatnonzero(promotions.boosts > 0)
    strongest = boosted[np.argsort(-promotions.boosts[boosted], kind="stable")[:_MAX_BOOSTED]]
    return np.concatenate([pinned, strongest.astype(np.int32)])


def is_plain(parameters: Sequence[RerankParameters], promotions: Promotions, previous: Previous) -> bool:
    """Whether nothing is asked for any user: lists are the first of their pools."""
    return not (
        _promotes(promotions)
        or consistency.unmoved(previous).any()
        or any(
            one.steadiness
            or one.dpp
            or one.mmr
            or one.calibration
            or one.brand_cap
            or one.category_cap
            or one.price_share
            for one in parameters
        )
    )


def _promotes(promotions: Promotions) -> bool:
    return bool(promotions.boosts.any() or (promotions.pinned >= 0).any())


def rerank(
    pool: Pool,
    previous: Previous,
    tastes: Tastes,
    promotions: Promotions,
    attributes: Attributes,
    vectors: Floats,
    parameters: Sequence[RerankParameters],
    size: int,
    spare: int = 0,
) -> Order:
    """
    Return the lists of n users.

    Parameters
    ----------
    previous
        Its items are candidates like others and stand in the pool, unless they may not be listed any more.
    vectors
        (items, d) unit vectors, zeros for items without.
    parameters
        One for each user.
    size, spare
        Items of a list, and how many more are named behind them.

    """
    users, candidates = pool.rows.shape
    aims = aims_of(parameters, size)
    held = consistency.controls(np.array([one.steadiness for one in parameters]), size)
    aims.plain[:] &= not _promotes(promotions)
    aims.plain[consistency.unmoved(previous)] = False
    order = Order(np.full((users, size + spare), -1, np.int64), *np.zeros((3, users), np.int64))
    desk = choosing.empty_desk(candidates, size + spare)
    _rerank(pool, previous, tastes, promotions, attributes, vectors, aims, held, size, order, desk)
    return order


def aims_of(parameters: Sequence[RerankParameters], size: int) -> Aims:
    """Return parameters as columns."""
    table = np.array(
        [
            (p.mmr, p.dpp, p.diversity_window, p.calibration, p.brand_cap, p.category_cap, p.price_share, p.steadiness)
            for p in parameters
        ]
    ).reshape(-1, 8)
    mmr, dpp, _, calibrate, _, _, near, _ = table.T
    window, brand, category = np.ceil(np.where(table > 0, table, choosing.NONE)).astype(np.int64).T[[2, 4, 5]]
    # Rounded before it is cut: 20 (1 - .7) is 6.000000000000001.
    far = np.where(near > 0, np.floor(np.round(size * (1 - near), 9)), choosing.NONE).astype(np.int64)
    return Aims(
        np.where(mmr > 0, MMR, np.where(dpp > 0, DPP, OFF)), np.where(mmr > 0, mmr, dpp), np.ascontiguousarray(window),
        np.ascontiguousarray(calibrate), np.ascontiguousarray(brand), np.ascontiguousarray(category), far,
        np.asarray(~(table > 0).any(axis=1)),
    )  # fmt: skip


@compiled
def _rerank(
    pool: Pool, previous: Previous, tastes: Tastes, promotions: Promotions, attributes: Attributes, vectors: Floats,
    aims: Aims, held: Controls, size: int, order: Order, desk: Desk,
) -> None:  # fmt: skip
    for user in range(len(pool.rows)):
        rows, places, now_ms = pool.rows[user], order.places[user], tastes.now_ms[user]
        count = 0
        while count < len(rows) and rows[count] >= 0:
            count += 1
        if aims.plain[user]:
            for place in range(min(count, len(places))):
                places[place] = place
            continue
        _pin(pool, promotions, user, count, size, desk.candidates)
        steady = consistency.goes_on(previous, user, now_ms, held.held[user])
        forced, budget = 0, choosing.NONE
        if steady:
            forced = _hold(pool, previous, attributes, held, user, count, size, now_ms, desk.candidates)
            budget = forced + (held.budget[user] if previous.moved[user] else 0)
        choosing.begin(tastes.events, now_ms, tastes.weighing, attributes, aims, user, rows, count, desk)
        made = choosing.choose(pool.step, attributes, vectors, aims, user, rows, count, size, budget, places, desk)
        choosing.close_up(places)
        order.beyond[user] = made.beyond
        if steady:
            order.changed[user], order.forced[user] = made.newcomers, forced + made.excess
            if held.sticky[user] and count >= size:
                consistency.keep_positions(
                    places, desk.candidates.fixed, desk.candidates.slots, size, desk.candidates.chosen
                )  # fmt: skip


@compiled
def _pin(
    pool: Pool, promotions: Promotions, user: int, count: int, size: int, candidates: Candidates
) -> None:  # fmt: skip
    """Say what candidates are worth, and give pinned ones their slots."""
    rows, fixed, taken = pool.rows[user], candidates.fixed, candidates.taken
    for candidate in range(count):
        row = rows[candidate]
        candidates.worth[candidate] = np.float64(pool.steps[user, candidate])
        if row < len(promotions.boosts):
            candidates.worth[candidate] += np.rint(np.float64(promotions.boosts[row]) / pool.step)
        taken[candidate] = False
        candidates.slots[candidate] = -1
    for slot in range(len(fixed)):
        fixed[slot] = -1
        if slot < min(len(promotions.pinned), size) and promotions.pinned[slot] >= 0:
            for candidate in range(count):
                if rows[candidate] == promotions.pinned[slot] and not taken[candidate]:
                    fixed[slot], taken[candidate] = candidate, True


@compiled
def _hold(
    pool: Pool, previous: Previous, attributes: Attributes, held: Controls, user: int, count: int, size: int,
    now_ms: int, candidates: Candidates,
) -> int:  # fmt: skip
    """
    Hold on to the list before; return how many newcomers there have to be.

    Without an event all that stood on it stays where it was, and within the dwell what has just come. The others are
    ahead by the bonus.
    """
    slots, since_ms, fixed, taken = candidates.slots, candidates.since_ms, candidates.fixed, candidates.taken
    incumbents = consistency.find_incumbents(
        previous, user, pool.rows[user], count, attributes.price_marks, size, slots, since_ms
    )
    moved, best = previous.moved[user], pool.steps[user, 0] if count else 0
    for candidate in range(count):
        if slots[candidate] < 0:
            continue
        stays = not moved or now_ms - since_ms[candidate] < held.dwell_ms[user]
        if stays and not taken[candidate] and fixed[slots[candidate]] < 0:
            fixed[slots[candidate]], taken[candidate] = candidate, True
        candidates.worth[candidate] += consistency.bonus_steps(held.bonus[user], best, slots[candidate])
    pinned_newcomers = 0
    for slot in range(size):
        pinned_newcomers += fixed[slot] >= 0 and slots[fixed[slot]] < 0
    return int(max(min(size, count) - incumbents, pinned_newcomers))
