"""
Fresh items by exploration: one slot of a list is now and then given to an item of which little is known yet.

An item is fresh that has fewer than `FRESH_EVENTS` events. The list of a user is made as if there were no exploration;
then, with the probability `explore`, what stands in the exploration slot gives way to a fresh item that may be listed,
is not on the list, and keeps its caps and price band. With q the unit vector of the user's interests and x an item's,

    p(x) = exp(q . x / T) / sum over all such items y of exp(q . y / T),    T = `TEMPERATURE`,

which is uniform where the user has no vector. So the exact propensities are, of the items in the exploration slot,
`explore p(x)` for each fresh x and `1 - explore` for what would stand there otherwise, and 1 in all other slots, and
where there is no fresh item for the slot. They are conditional on all that a list is made from: the user's events and
last list, catalogue and policy.

Nothing is drawn from a clock or a generator: chance is a hash of the user, the UTC day of their newest event and the
item's id (Gumbel-max: the largest of `q . x / T` plus Gumbel noise is x with the probability p(x)). So every worker and
a replay draw the same, a refresh does not shuffle, and what comes and goes beside an item seldom changes the draw.
A list made anew without an event keeps what was drawn for it, and the propensity that it had then.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models import caps, consistency
from models.caps import MAX_PRICES, Attributes
from models.choosing import NONE, Aims
from models.compiled import compiled
from models.consistency import Previous
from models.contenders import Rows
from models.events import Events, Weighing
from models.hashing import event_name
from models.ranking import SCORE_STEP, Barred, Floats, unit
from models.reasons import dot
from models.reranking import Promotions, aims_of
from models.users import Users

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Items = npt.NDArray[np.int32]

#: An item with so many events of any type is known well enough for the other signals: its neighbours can be fitted.
FRESH_EVENTS: Final = 20
#: A likeness that is greater by a tenth makes an item 25 times as likely.
TEMPERATURE: Final = 1 / 32
#: Steps of a probability of 1: one of many thousand fresh items is less likely than a millionth.
CERTAIN: Final = 10**12
#: Days of event time: a user meets one fresh item a day at most.
_EPOCH_MS: Final = 86_400_000
#: What is drawn: whether a slot is given away at all, and to whom.
_WHETHER: Final = np.uint64(0x9E3779B97F4A7C15)
_WHOM: Final = np.uint64(0xD1B54A32D192ED03)
#: Hashes are cut to the 53 bits of a float64.
_ONE: Final = 2.0**-53


class Met(NamedTuple):
    """
    How often the items of a catalogue were met, and their ids.

    Attributes
    ----------
    events
        (items,) int64, of any type.
    pool, at
        The UTF-8 of item row r is `pool[at[r]:at[r + 1]]`.

    """

    events: Ints
    pool: npt.NDArray[np.uint8]
    at: Ints


class Explored(NamedTuple):
    """
    What exploration makes of n lists.

    Attributes
    ----------
    slots
        (n,) int64, place of the exploration slot, -1 where all of the list is certain.
    items
        (n,) int32, row of the fresh item that is put there; -1 where what stands there stays.
    propensities
        (n,) int64, of what stands there then, in steps of 1 / `CERTAIN`.

    """

    slots: Ints
    items: Items
    propensities: Ints


class _Chances(NamedTuple):
    """Of n users: who they are, how likely and where they explore, as of when, and where their interests point."""

    keys: npt.NDArray[np.uint64]
    explore: Doubles
    slots: Ints
    now_ms: Ints
    directions: Floats
    unmoved: npt.NDArray[np.bool_]


class _Draw(NamedTuple):
    """One user's draw: of whom, on which day, where the interests point, and whether the slot is given away at all."""

    key: np.uint64
    epoch: np.uint64
    direction: Floats
    gives: bool


class _Place(NamedTuple):
    """The exploration slot of one list of `size` rows, and what guardrails allow of the whole list."""

    rows: Items
    size: int
    slot: int
    brand: int
    category: int
    far: int
    middle: float


def is_asked(users: Users) -> bool:
    """Whether anyone explores, or did on the list before."""
    return bool(users.previous.explored.any()) or any(one.explore for one in users.parameters)


def let_go(previous: Previous) -> Previous:
    """
    Return the lists before without what was drawn for them, as far as an event asks for others.

    It is a newcomer to the next list like any other fresh item: they would gather on a steady list, one by one.
    """
    who = np.flatnonzero(previous.moved & (previous.explored[:, 1] > 0))
    rows = previous.rows.copy()
    rows[who, previous.explored[who, 0] - 1] = -2
    return previous._replace(rows=rows)


def explore(
    users: Users, interest: Floats, table: Rows, met: Met, barred: Barred, listed: Items, size: int,
    attributes: Attributes, promotions: Promotions, weighing: Weighing, stamps: Ints, stamp: int,
) -> Explored:  # fmt: skip
    """
    Return what stands in the exploration slots.

    Parameters
    ----------
    interest
        (n, d) float32, of which the direction counts; zeros for users without.
    listed
        (n, size or more) the lists as they are without exploration, -1 behind the last; what stands by behind a list
        may be drawn like any other item, so that lists do not depend on how many do.
    stamps, stamp
        (items,) scratch: the stamp of the last user who may not have the item; that of the first user here, greater
        than all that stand there, as are those of the others, which follow.

    """
    count = len(users.parameters)
    explored = Explored(np.full(count, -1, np.int64), np.full(count, -1, np.int32), np.full(count, CERTAIN))
    fresh = np.flatnonzero(table.usable & (met.events < FRESH_EVENTS))
    slots = np.array([one.explore_slot for one in users.parameters]).astype(np.int64)
    chances = _Chances(
        users.keys, np.array([one.explore for one in users.parameters], np.float64), np.minimum(slots, size) - 1,
        users.now_ms, np.ascontiguousarray(unit(interest)), consistency.unmoved(users.previous),
    )  # fmt: skip
    pinned = np.full(size, -1, np.int32)
    pinned[: len(promotions.pinned)] = promotions.pinned[:size]
    _explore(
        chances, users.previous, users.events, table.vectors, met, fresh, barred, listed, size, attributes,
        pinned, aims_of(users.parameters, size), weighing, stamps, stamp, np.zeros(MAX_PRICES), explored,
    )  # fmt: skip
    return explored


@compiled
def _explore(
    chances: _Chances, before: Previous, events: Events, vectors: Floats, met: Met, fresh: Ints, barred: Barred,
    listed: Items, size: int, attributes: Attributes, pinned: Items, aims: Aims, weighing: Weighing, stamps: Ints,
    stamp: int, prices: Doubles, explored: Explored,
) -> None:  # fmt: skip
    for user in range(len(chances.keys)):
        slot, chance, rows = chances.slots[user], chances.explore[user], listed[user]
        if chances.unmoved[user]:
            told, said = before.explored[user, 0] - 1, before.explored[user, 1]
            if _stays(before, user, rows, size, told):
                explored.slots[user], explored.propensities[user] = told, abs(said)
                explored.items[user] = rows[told] if said > 0 else -1
                continue
        # No key: the list of visitors without events, which is one for all of them.
        if chance <= 0.0 or chances.keys[user] == 0 or slot < 0 or rows[slot] < 0 or rows[slot] == pinned[slot]:
            continue
        if chances.unmoved[user] and _stays(before, user, rows, size, slot):
            continue
        epoch = np.uint64(chances.now_ms[user] // _EPOCH_MS)
        gives = _uniform(chances.keys[user], epoch, _WHETHER) < chance
        _bar(barred, rows[:size], user, stamps, stamp + user)
        middle = math.nan
        if aims.far[user] < NONE:
            middle = caps.middle_price(events, user, attributes.prices, weighing, prices)
        place = _Place(rows, size, slot, aims.brand[user], aims.category[user], aims.far[user], middle)
        draw = _Draw(chances.keys[user], epoch, chances.directions[user], gives)
        drawn, share = _draw(draw, place, vectors, met, fresh, attributes, stamps, stamp + user)
        if drawn >= 0:
            explored.slots[user] = slot
            explored.items[user] = drawn if gives else -1
            # What was drawn cannot have been impossible, however unlikely it is.
            steps = np.int64(np.rint((chance * share if gives else 1.0 - chance) * CERTAIN))
            explored.propensities[user] = max(steps, np.int64(gives))


@compiled
def _stays(before: Previous, user: int, rows: Items, size: int, slot: int) -> bool:
    """Whether a slot of a list holds what it held on the list before."""
    return bool(0 <= slot < min(before.rows.shape[1], size) and 0 <= rows[slot] == before.rows[user, slot])


@compiled
def _bar(barred: Barred, rows: Items, user: int, stamps: Ints, mine: int) -> None:
    """Stamp what a user may not have, and what is on the list."""
    for place in range(barred.ends[user - 1] if user else 0, barred.ends[user]):
        if 0 <= barred.columns[place] < len(stamps):
            stamps[barred.columns[place]] = mine
    for place in range(len(rows)):
        if rows[place] >= 0:
            stamps[rows[place]] = mine


@compiled
def _draw(
    draw: _Draw, place: _Place, vectors: Floats, met: Met, fresh: Ints, attributes: Attributes, stamps: Ints, mine: int
) -> tuple[int, float]:  # fmt: skip
    """Return the item drawn and its probability among all that might be, -1 for none; any where it does not matter."""
    drawn, best, own, whole = -1, -math.inf, 0.0, 0.0
    for at in range(len(fresh)):
        item = fresh[at]
        if stamps[item] == mine or not _fits(place, item, attributes):
            continue
        if not draw.gives:
            return item, 1.0
        # In whole steps, as scores are: the last bits of a sum decide nothing.
        near = np.rint(dot(draw.direction, vectors[item]) / SCORE_STEP) * (SCORE_STEP / TEMPERATURE)
        name = event_name(0, met.pool, met.at[item], met.at[item + 1] - met.at[item])
        noise = -math.log(-math.log(_uniform(draw.key ^ name, draw.epoch, _WHOM)))
        share = math.exp(near)
        whole += share
        if near + noise > best:
            drawn, best, own = item, near + noise, share
    return drawn, own / whole


@compiled
def _fits(place: _Place, item: int, attributes: Attributes) -> bool:
    """Whether an item in a slot leaves the list within its caps and price band."""
    if place.brand == NONE and place.category == NONE and place.far == NONE:
        return True
    brand, category = attributes.brands[item], attributes.categories[item]
    is_far = caps.is_far(attributes.prices[item], place.middle)
    brands, categories, far = 0, 0, 0
    for slot in range(place.size):
        other = place.rows[slot]
        if slot != place.slot and other >= 0:
            brands += brand >= 0 and attributes.brands[other] == brand
            categories += category >= 0 and attributes.categories[other] == category
            far += caps.is_far(attributes.prices[other], place.middle)
    return bool(brands < place.brand and categories < place.category and not (is_far and far >= place.far))


@compiled
def _uniform(key: np.uint64, epoch: np.uint64, salt: np.uint64) -> float:
    """Return a number in (0, 1) that is decided by its arguments: murmur3's finisher, twice."""
    mixed = _mix(_mix(key ^ salt) + epoch * _WHETHER)
    return (np.float64(mixed >> np.uint64(11)) + 0.5) * _ONE


@compiled
def _mix(word: np.uint64) -> np.uint64:
    word = (word ^ (word >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    word = (word ^ (word >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return word ^ (word >> np.uint64(33))
