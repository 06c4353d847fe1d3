"""
The list of each user out of candidates from vectors, neighbours, history, popularity, trends and categories.

Candidates are put into a total order, of which `models.reranking` makes the list.
What a user's list becomes depends on that user and the items alone, not on who else is in the batch: `models.scan` and
`models.neighbours` only choose candidates, whose scores are summed again one user at a time in float64.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.audience import Audience, audience
from models.barring import barred_items
from models.calibration import Profile, no_profile, tell
from models.caps import Attributes
from models.compiled import compiled
from models.contenders import Rows
from models.events import Weighing, earlier
from models.exploration import Explored, Met, explore, is_asked, let_go
from models.leaders import (
    Demand,
    Leaders,
    attribute_categories,
    favoured,
    largest,
    leaders,
    led,
    no_leaders,
    strongest,
)
from models.medoids import attribute_interests, likeness, near_medoids
from models.neighbours import (
    HISTORY,
    REPEAT,
    VOICES,
    Related,
    Room,
    Scratch,
    attribute,
    come_back,
    hold,
    hush,
    loudest,
    measure,
    recall,
    speak,
)
from models.places import insert, make_room
from models.prices import attribute_prices, suits, untold, watch
from models.ranking import SCORE_STEP, Barred, Floats, Top, Weights, queries
from models.reasons import Groups, Reasons, contribute, dot, explain, group, no_groups, no_reasons
from models.reranking import Pool, Promotions, Tastes, is_plain, put_forward, rerank
from models.scan import exact_top, of_few
from models.scorer import SILENT, Scorer, listen, says
from models.segments import NO_SEGMENTS, favourites, prior
from models.users import Users

#: What carries an item: the interest vectors, its popularity, nothing but that there was room, or a voice.
INTEREST: Final = 0
POPULAR: Final = 1
ROOM: Final = 2
FIRST_VOICE: Final = 3
#: What carries an item besides: its demand rises; it leads in a category of the user's events.
TRENDING: Final = FIRST_VOICE + VOICES
CATEGORY: Final = TRENDING + 1
#: Where the scale of what categories say stands, behind those of the voices and the vectors.
_OF_CATEGORY: Final = VOICES + 3
#: Of the items whose demand rises, so many are candidates for every user.
_TRENDING_ITEMS: Final = 64
#: Steps of a score of 1.
STEPS: Final = round(1 / SCORE_STEP)
#: Candidates of each kind beyond the list's size: what is near to the vectors and what most is said of are two orders,
#: and the sum of both a third.
_SPARE: Final = 12


class Lists(NamedTuple):
    """
    The lists of n users, best first.

    Attributes
    ----------
    items
        (n, k) int32 rows; -1 where the items ended.
    steps
        (n, k) int64, score in steps of `SCORE_STEP`; descending where nothing but the score was asked for.
    sources
        (n, k) uint8, what carries each item: `INTEREST`, `POPULAR`, `ROOM`, `FIRST_VOICE` and the voices behind it,
        `TRENDING`, or `CATEGORY`.
    reasons
        The events behind each item.
    explored
        Where the items stand that exploration put there, and how likely that was; None where nobody asked for any.

    """

    items: npt.NDArray[np.int32]
    steps: npt.NDArray[np.int64]
    sources: npt.NDArray[np.uint8]
    reasons: Reasons
    explored: Explored | None = None


class _Found(NamedTuple):
    """
    The lists, and what reasons need of them.

    Attributes
    ----------
    liked
        (n, k) float64, the personal part of each score.
    scales
        (n, VOICES + 4) float64, what the voices, the short, long and negative vector, and the user's categories are
        multiplied with.
    best, said
        (size + spare,) scratch.

    """

    items: npt.NDArray[np.int32]
    steps: npt.NDArray[np.int64]
    sources: npt.NDArray[np.uint8]
    liked: npt.NDArray[np.float64]
    scales: npt.NDArray[np.float64]
    best: npt.NDArray[np.int64]
    said: npt.NDArray[np.float64]


def make_lists(
    users: Users, table: Rows, met: Met, related: Related, rising: Floats, attributes: Attributes,
    promotions: Promotions, size: int, weighing: Weighing, scratch: Scratch, spare: int = 0,
    scorer: Scorer = SILENT, of_segments: Floats = NO_SEGMENTS,
) -> Lists:  # fmt: skip
    """
    Return the lists of `size` items of each user, and behind them `spare` more that stand by.

    Parameters
    ----------
    met
        How often items were met.
    rising
        (items,) float32 in 0..1, how much demand rises.
    attributes, promotions
        What re-ranking knows of the items, and what the shop puts forward.
    weighing
        How much an event says.
    scorer
        Taught on vectors as those of the table.
    of_segments
        (items, parts, kinds) float32 in 0..1, popularity in each segment; without any where none are told apart.

    """
    count, rows = len(users.parameters), len(table.order)
    if explores := is_asked(users):
        users = users._replace(previous=let_go(users.previous))
    weights = Weights.of(users.parameters)
    short, long, negative = users.interests
    stamp = scratch.stamp(rows, count)
    room = scratch.arrays
    barred = barred_items(users, weights, rows, room.bought, stamp)
    whole, spoken = size + spare, size + max(spare, _SPARE)
    wanted = queries(short, long, negative, weights.vectors)
    top = exact_top(wanted, table, spoken, barred)
    asked = audience(users, weights, table, attributes, of_segments, scorer)
    demand = Demand(rising, _leaders(weights, table, attributes))
    also, width = _trending(weights, table, rising), whole
    near = near_medoids(asked.medoids, table, barred, spoken)
    also = np.concatenate([also, near, favourites(asked.segments, table.usable, table.order)], axis=1)
    if not (plain := is_plain(users.parameters, promotions, users.previous)):
        # What stood on the list before and what is put forward may be listed wherever the ranking has it.
        also = np.concatenate([also, users.previous.rows, np.tile(put_forward(promotions), (count, 1))], axis=1)
        width = top.columns.shape[1] + spoken * (1 + bool(len(demand.leaders.items))) + also.shape[1]
    found = _nothing_found(count, width, spoken)
    reasons = no_reasons(count, whole)
    profile = no_profile()
    _choose(asked, table, demand, related, weighing, barred, top, also, stamp, room, profile, found)
    if not plain:
        pool = Pool(found.items, found.steps, SCORE_STEP)
        tastes = Tastes(users.events, users.now_ms, weighing)
        order = rerank(
            pool, users.previous, tastes, promotions, attributes, table.vectors, users.parameters, size, spare
        )  # fmt: skip
        found = _at(found, order.places)
    explored = None
    if explores:
        explored = explore(
            users, wanted.interest, table, met, barred, found.items, size, attributes, promotions, weighing,
            room.barred, scratch.stamp(rows, count),
        )  # fmt: skip
        _put(
            explored, users, table, demand, related, attributes, weighing, barred, scratch, of_segments, scorer, found
        )  # fmt: skip
    _explain(asked, table, demand.leaders, related, weighing, room, profile, found, no_groups(whole), reasons)
    return Lists(found.items, found.steps, found.sources, reasons, explored)


def _nothing_found(count: int, width: int, spoken: int) -> _Found:
    shape = (count, width)
    return _Found(
        np.full(shape, -1, np.int32), np.zeros(shape, np.int64), np.zeros(shape, np.uint8), np.zeros(shape),
        np.zeros((count, VOICES + 4)), np.zeros(spoken, np.int64), np.zeros(spoken),
    )  # fmt: skip


def _put(
    explored: Explored, users: Users, table: Rows, demand: Demand, related: Related, attributes: Attributes,
    weighing: Weighing, barred: Barred, scratch: Scratch, of_segments: Floats, scorer: Scorer, found: _Found,
) -> None:  # fmt: skip
    """Put explored items into their slots, with the scores that they have like any other candidate."""
    there = found.items[np.arange(len(explored.items)), explored.slots]
    who = np.flatnonzero((explored.items >= 0) & (explored.items != there))
    if not len(who):
        return
    some, items, mine = users.only(who), explored.items[who].reshape(-1, 1), of_few(barred, who)
    assert mine is not None
    asked = audience(some, Weights.of(some.parameters), table, attributes, of_segments, scorer)
    # Room for what a list of its own begins with: the item most is said of, a leader, and this one.
    scored = _nothing_found(len(who), 3, 1)
    none = Top(np.empty((len(who), 0), np.int64), np.empty((len(who), 0), np.int64))
    stamp = scratch.stamp(len(table.order), len(who))
    _choose(
        asked, table, demand, related, weighing, mine, none, items, stamp, scratch.arrays, no_profile(), scored
    )  # fmt: skip
    scored = _at(scored, (scored.items == items).argmax(axis=1)[:, None])
    slots = explored.slots[who]
    # What stood by gives its place to what stood in the slot.
    users_at, places = np.nonzero(found.items[who] == items)
    columns: tuple[tuple[npt.NDArray[Any], npt.NDArray[Any]], ...] = (
        (found.items, scored.items), (found.steps, scored.steps), (found.sources, scored.sources),
        (found.liked, scored.liked),
    )  # fmt: skip
    for column, of_drawn in columns:
        column[who[users_at], places] = column[who[users_at], slots[users_at]]
        column[who, slots] = of_drawn[:, 0]


def _at(found: _Found, places: npt.NDArray[np.int64]) -> _Found:
    """Return what was found at some places of each user, -1 for none."""
    none = places < 0
    items = np.take_along_axis(found.items, places, axis=1)
    items[none] = -1
    return found._replace(
        items=items,
        steps=np.take_along_axis(found.steps, places, axis=1),
        sources=np.take_along_axis(found.sources, places, axis=1),
        liked=np.take_along_axis(found.liked, places, axis=1),
    )


def _trending(weights: Weights, table: Rows, rising: Floats) -> npt.NDArray[np.int32]:
    """Return the items (n, p) whose demand rises most, for those users with whom that counts; -1 for the others."""
    wanted = weights.trending > 0
    if not wanted.any():
        return np.empty((len(wanted), 0), np.int32)
    items = strongest(rising, table.usable, table.order, _TRENDING_ITEMS)
    return np.where(wanted[:, None], items[None, :], np.int32(-1))


def _leaders(weights: Weights, table: Rows, attributes: Attributes) -> Leaders:
    """Return the leaders of categories if they count with anyone: one pass over all items, no sort."""
    if not (weights.category > 0).any():
        return no_leaders()
    return leaders(attributes.categories, table.popularity, table.usable, table.order)


@compiled
def _choose(
    users: Audience, table: Rows, demand: Demand, related: Related, weighing: Weighing, barred: Barred, top: Top,
    also: npt.NDArray[np.int32], stamp: int, room: Room, profile: Profile, found: _Found,
) -> None:  # fmt: skip
    """Fill the lists, best first; `also` (n, p) are more candidates of each user, where they may have them."""
    rows = len(table.order)
    for user in range(len(users.now_ms)):
        mine = stamp + user
        for place in range(barred.ends[user - 1] if user else 0, barred.ends[user]):
            if 0 <= barred.columns[place] < rows:
                room.barred[barred.columns[place]] = mine
        scales = found.scales[user]
        wanted = users.voices[user]
        touched = speak(users.events, user, rows, weighing, related, wanted, users.half_lives_events[user], room)
        owned = users.owned
        first, end = owned.ends[user - 1] if user else 0, owned.ends[user]
        mass = 0.0
        for place in range(first, end):
            mass += owned.masses[place]
        # Somebody whose events are all of this session has no history beyond what the newest events say, and came for
        # what these are about, not for what others began to ask for.
        before = earlier(users.events, user, weighing, mass)
        wanted[HISTORY] *= before
        users.trending[user] *= before
        spoken_of = rows if wanted[HISTORY] > 0.0 else 0
        touched = recall(owned.items, owned.masses, first, end, related.neighbours, spoken_of, room, touched)
        if wanted[REPEAT] > 0.0 and not users.exclude_seen[user]:
            touched = come_back(owned.items, owned.masses, first, end, rows, room, touched)
        touched = measure(related, table.usable, mine, room, touched, wanted, scales)
        for part in range(3):
            scales[VOICES + part] = _scale(users.interests[part, user], users.vectors[user, part])
        listen(users.heard, users.interests, user)
        watch(users.prices, users.events, user, users.now_ms[user], weighing)
        kinds = _weigh_categories(users, user, demand.leaders, weighing, profile, scales)
        _enter_new(users, user, top.columns[user], table, demand, room, profile, kinds, mine, found)
        spoken = loudest(scales, room, touched, found.best, found.said)
        _enter_new(users, user, found.best[:spoken], table, demand, room, profile, kinds, mine, found)
        spoken = led(profile, kinds, demand.leaders, room.barred, mine, found.best, found.said)
        _enter_new(users, user, found.best[:spoken], table, demand, room, profile, kinds, mine, found)
        for place in range(also.shape[1]):
            item = also[user, place]
            if 0 <= item < rows and table.usable[item] and room.barred[item] != mine and room.chosen[item] != mine:
                _enter(users, user, item, table, demand, room, profile, kinds, found)
                room.chosen[item] = mine
        hush(room, touched)


@compiled
def _weigh_categories(
    users: Audience, user: int, leaders: Leaders, weighing: Weighing, profile: Profile, scales: npt.NDArray[np.float64]
) -> int:
    """Tell what a user's categories are multiplied with; return how many there are, 0 where they do not count."""
    if users.category[user] <= 0.0:
        return 0
    kinds = tell(users.events, user, users.now_ms[user], leaders.categories, weighing, profile)
    if kinds:
        scales[_OF_CATEGORY] = users.category[user] / largest(profile, kinds)
    return kinds


@compiled
def _enter_new(
    users: Audience, user: int, items: npt.NDArray[np.int64], table: Rows, demand: Demand, room: Room, profile: Profile,
    kinds: int, mine: int, found: _Found,
) -> None:  # fmt: skip
    """Enter those of the candidates that are not yet, up to the first -1."""
    for place in range(len(items)):
        item = items[place]
        if item < 0:
            break
        if room.chosen[item] != mine:
            _enter(users, user, item, table, demand, room, profile, kinds, found)
            room.chosen[item] = mine


@compiled
def _enter(
    users: Audience, user: int, item: int, table: Rows, demand: Demand, room: Room, profile: Profile, kinds: int,
    found: _Found,
) -> None:  # fmt: skip
    """Score a candidate and put it in its place on the user's list."""
    scales, sums = found.scales[user], room.sums[item]
    liked = 0.0
    for part in range(2):
        if scales[VOICES + part] != 0.0:
            liked += dot(users.interests[part, user], table.vectors[item]) * scales[VOICES + part]
    if users.of_medoids[user] > 0.0:
        liked += users.of_medoids[user] * likeness(users.medoids, user, table.vectors, item)
    near = liked
    if scales[VOICES + 2] != 0.0:
        near -= max(dot(users.interests[2, user], table.vectors[item]) * scales[VOICES + 2], 0.0)
    popular = users.vectors[user, 3] * table.popularity[item] + prior(users.segments, user, item)
    source, most, voices = ROOM, 0.0, 0.0
    for voice in range(VOICES):
        said = scales[voice] * sums[voice]
        voices += said
        if said > most:
            source, most = FIRST_VOICE + voice, said
    category = scales[_OF_CATEGORY] * favoured(profile, kinds, demand.leaders, item) if kinds else 0.0
    if category > most:
        source, most = CATEGORY, category
    if popular > 0.0 and popular >= most:
        source, most = POPULAR, popular
    trending = users.trending[user] * demand.rising[item]
    if trending > most:
        source, most = TRENDING, trending
    if near > 0.0 and near >= most:
        source = INTEREST
    # A price brings no item onto a list: it is in the score, but no source. What was learned, or is granted to an item
    # that tells no price, is of no event either: it is not in what is explained.
    priced, granted = suits(users.prices, item), untold(users.prices, user, item)
    learned = says(users.heard, table.vectors[item])
    step = int(np.rint((near + voices + category + priced + granted + popular + trending + learned) * STEPS))
    rank = insert(found.items[user], found.steps[user], table.order, item, step)
    if rank < found.items.shape[1]:
        make_room(found.sources[user], rank)
        make_room(found.liked[user], rank)
        found.sources[user, rank], found.liked[user, rank] = source, liked + voices + category + priced


@compiled
def _explain(
    users: Audience, table: Rows, leaders: Leaders, related: Related, weighing: Weighing, room: Room, profile: Profile,
    found: _Found, groups: Groups, reasons: Reasons,
) -> None:  # fmt: skip
    """Name the events behind each item."""
    rows = len(table.order)
    for user in range(len(users.now_ms)):
        scales, items = found.scales[user], found.items[user]
        short, long = scales[VOICES], scales[VOICES + 1]
        count = group(users.events, user, rows, users.now_ms[user], weighing, short, long, groups)
        if not count:
            continue
        contribute(table.vectors, items, groups, count)
        first = users.owned.ends[user - 1] if user else 0
        hold(users.owned.items, users.owned.masses, first, users.owned.ends[user], groups, count, room)
        attribute(related, items, groups, count, weighing, scales, users.half_lives_events[user], room)
        weight = users.of_medoids[user]
        if weight > 0.0:
            attribute_interests(users.medoids, user, table.vectors, items, groups, count, weighing, weight)
        if scales[_OF_CATEGORY] > 0.0:
            kinds = tell(users.events, user, users.now_ms[user], leaders.categories, weighing, profile)
            attribute_categories(profile, kinds, leaders, items, groups, count, weighing, scales[_OF_CATEGORY])
        watch(users.prices, users.events, user, users.now_ms[user], weighing)
        attribute_prices(users.prices, items, groups, count, weighing)
        for rank in range(len(items)):
            if items[rank] < 0:
                break
            explain(groups.contributed[rank], found.liked[user, rank], groups, count, reasons, user, rank)


@compiled
def _scale(vector: Floats, weight: float) -> float:
    """Return what makes a vector as long as its ranking weight; 0 where it says nothing."""
    length = math.sqrt(dot(vector, vector))
    return weight / length if length > 0.0 else 0.0
