"""Lists against plain loops over every item: what vectors, neighbours, history and popularity say, added up."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.consistency import no_previous
from models.contenders import Rows
from models.events import Events, Weighing
from models.exploration import Met
from models.listing import CATEGORY, FIRST_VOICE, INTEREST, POPULAR, ROOM, STEPS, TRENDING, Lists, make_lists
from models.medoids import INTERESTS
from models.neighbours import Family, Related, Scratch, damping
from models.quantisation import quantise
from models.ranking import RankingParameters, unit
from models.reasons import MAX_REASONS, SHARE_STEPS
from models.reranking import nothing_promoted
from models.scorer import SILENT, Scorer, direction
from models.users import Excluded, Owned, Users
from streams.catalogue.attributes import ItemAttributes
from tests.support.clusters import ward
from tests.support.scoring import sigma_of_f

ITEMS, DIM, NOW_MS = 14, 4, 10**9
HALF_LIVES_MS = np.array([3.6e6, 8.64e7])
#: Of the type codes 0 to 2; dislikes, code 3, speak for nothing.
WEIGHTS = (0.5, 1.0, 3.0, 0.0)
WEIGHING = Weighing(np.array(WEIGHTS), HALF_LIVES_MS)
SCRATCH = Scratch()
MET = Met(np.zeros(ITEMS, np.int64), np.zeros(0, np.uint8), np.zeros(ITEMS + 1, np.int64))

#: Neighbours of an item, at most one less.
_LINKS = 6

Linked = dict[int, list[tuple[int, float]]]


class Case(NamedTuple):
    """One user and a catalogue, both as plain lists."""

    vectors: Any
    popularity: Any
    rising: Any
    timeliness: Any
    in_segments: Any
    categories: Any
    prices: Any
    usable: Any
    neighbours: Linked
    followers: Linked
    happened: list[tuple[int, int, int]]
    owned: list[tuple[int, float, bool]]
    excluded: list[tuple[int, int]]
    parameters: RankingParameters
    device: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A small catalogue in which everything may speak for everything, and somebody who did a few things in it."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = st.sampled_from([0.0, 0.3, 1.0])
    items = st.integers(0, ITEMS - 1)

    def linked(least: float) -> Linked:
        return {
            int(item): [
                (int(other), float(random.uniform(least, 1.0)))
                for other in random.permutation(ITEMS)[: random.integers(6)]
            ]
            for item in random.permutation(ITEMS)[: random.integers(ITEMS)]
        }

    kinds, ages = st.integers(0, 3), st.integers(0, 10**8)
    happened = draw(st.lists(st.tuples(st.integers(0, ITEMS), kinds, ages), max_size=12))
    owned = draw(st.dictionaries(items, st.tuples(st.floats(0.125, 8), st.booleans()), max_size=6))
    for item, _, _ in happened:
        owned.setdefault(item, (1.0, False))
    return Case(
        unit(random.standard_normal((ITEMS, DIM)).astype(np.float32)),
        random.random(ITEMS).astype(np.float32),
        np.maximum(random.random(ITEMS) - 0.3, 0.0).astype(np.float32),
        np.exp(random.standard_normal(ITEMS)).astype(np.float32),
        random.random((ITEMS, 2, 4)).astype(np.float32),
        random.integers(-1, 3, ITEMS).astype(np.int32),
        np.where(random.random(ITEMS) < 0.7, np.exp(random.standard_normal(ITEMS)), 0.0).astype(np.float32),
        random.random(ITEMS) < 0.8,
        linked(-0.5),
        linked(0.0),
        sorted(happened, key=lambda event: -event[2]),
        [(item, mass, bought) for item, (mass, bought) in owned.items()],
        list(draw(st.dictionaries(items, st.sampled_from([NOW_MS - 50_000, NOW_MS]), max_size=4)).items()),
        RankingParameters(
            draw(weight), draw(weight), draw(weight), draw(weight), draw(weight), draw(weight), draw(weight),
            draw(weight), draw(st.sampled_from([0.0, 2.0, 15.0])), draw(st.booleans()),
            draw(st.sampled_from([0.0001, 0.01])), draw(weight), draw(weight),
            draw(weight), draw(weight), draw(weight),
        ),
        draw(st.sampled_from([0, 1, 2, 255])),
    )  # fmt: skip


def liked(case: Case) -> list[tuple[int, int, int, int]]:
    """Return (item, type code, age, events since) of what speaks for something, oldest first."""
    known = [event for event in case.happened if event[0] < ITEMS and WEIGHTS[event[1]] > 0]
    return [(*event, len(known) - 1 - place) for place, event in enumerate(known)]


def vector(case: Case, part: int) -> Any:
    """Return the short (0) or long (1) interest vector, or the one of dislikes (2)."""
    total = np.zeros(DIM)
    for item, kind, age_ms in case.happened:
        if item < ITEMS and (kind == 3) == (part == 2):
            weight = 1.0 if part == 2 else WEIGHTS[kind] * 2 ** (-age_ms / HALF_LIVES_MS[part])
            total += weight * case.vectors[item].astype(np.float64)
    return total.astype(np.float32)


def says(case: Case, item: int, kind: int, age_ms: int, since: int) -> tuple[dict[int, float], dict[int, float]]:
    """Return what one event says of other items, as a neighbour and as a leader."""
    del kind, age_ms
    damped = damping(case.popularity, case.timeliness)
    half_life = case.parameters.half_life_events
    near = 2 ** (-since / half_life) if half_life else float(since == 0)
    following = 1 / (since + 1) if since < 5 else 0.0
    # The older an event, the fewer of its neighbours it speaks of.
    nearest = case.neighbours.get(item, [])[: math.ceil(_LINKS * near)]
    return (
        {other: near * weight * float(damped[other, 0]) for other, weight in nearest},
        {other: following * weight * float(damped[other, 1]) for other, weight in case.followers.get(item, ())},
    )


def recalled(case: Case, item: int, mass: float) -> dict[int, float]:
    """Return what an item of the history says of others when so much was done with it."""
    root = math.sqrt(max(mass, 0.0))
    return {other: root * weight * float(case.timeliness[other]) for other, weight in case.neighbours.get(item, ())}


def barred(case: Case) -> set[int]:
    """Return what may not be listed."""
    bought = {item for item, _, was_bought in case.owned if was_bought}
    due = {
        item for item, ts_ms in case.excluded if NOW_MS - ts_ms >= 86_400_000 * case.parameters.repurchase_interval_days
    }
    out = {item for item, _ in case.excluded} - ((due & bought) if not case.parameters.exclude_seen else set())
    if case.parameters.exclude_seen:
        out |= {item for item, _, _ in case.happened} | {item for item, _, _ in case.owned}
    return out


def voices(case: Case) -> list[dict[int, float]]:
    """Return what each voice says of each item, not weighed."""
    said: list[dict[int, float]] = [{}, {}, {}, {}]

    def add(voice: int, values: dict[int, float]) -> None:
        for other, value in values.items():
            said[voice][other] = said[voice].get(other, 0.0) + value

    for event in liked(case):
        for voice, of_event in enumerate(says(case, *event)):
            add(voice, of_event)
    for item, mass, _ in case.owned:
        add(3, recalled(case, item, mass))
    if not case.parameters.exclude_seen:
        said[2] = {item: mass for item, mass, _ in case.owned if mass > 0}
    return said


def earlier(case: Case) -> float:
    """Return the share of what all events weigh that came before a silence of more than half an hour, the last one."""
    ages = [age_ms for _, _, age_ms in case.happened]
    silences = [place for place in range(1, len(ages)) if ages[place - 1] - ages[place] > 30 * 60_000]
    of_session = sum(WEIGHTS[kind] for _, kind, _ in case.happened[max(silences, default=0) :])
    mass = sum(mass for _, mass, _ in case.owned)
    return max(1 - of_session / mass, 0.0) if mass > 0 else 1.0


def scales(case: Case) -> list[float]:
    """Return what each voice is multiplied with."""
    asked = case.parameters
    wanted = (asked.neighbours, asked.followers, asked.repeat, asked.history * earlier(case))
    allowed = {item for item in range(ITEMS) if case.usable[item]} - barred(case)
    found = []
    for weight, said in zip(wanted, voices(case), strict=True):
        most = max((value for item, value in said.items() if item in allowed), default=0.0)
        found.append(weight / most if most > 0 else 0.0)
    return found


def personal(case: Case, item: int) -> tuple[float, float, list[float]]:
    """Return what the interest vectors, with and without dislikes, and the voices add to an item's score."""

    def likeness(part: int, weight: float) -> float:
        direction = vector(case, part)
        length = float(np.linalg.norm(direction.astype(np.float64)))
        return weight * float(direction.astype(np.float64) @ case.vectors[item]) / length if length else 0.0

    near = likeness(0, case.parameters.short) + likeness(1, case.parameters.long) + interested(case, item)
    spoken = [scale * said.get(item, 0.0) for scale, said in zip(scales(case), voices(case), strict=True)]
    return near, near - max(likeness(2, case.parameters.negative), 0.0), spoken


def in_category(case: Case, item: int) -> list[tuple[tuple[int, int, int, int], float]]:
    """Return what each event says of an item of its own category, whatever that weighs."""
    rated = [event for event in liked(case) if case.categories[event[0]] >= 0]
    masses = {
        category: sum(long_mass(*event) for event in rated if case.categories[event[0]] == category)
        for category in range(3)
    }
    rivals = case.popularity[case.usable & (case.categories == case.categories[item])].astype(np.float64)
    return [
        (event, long_mass(*event) / max(masses.values()) * float(case.popularity[item]) / rivals.max())
        for event in rated
        if case.categories[event[0]] == case.categories[item]
    ]


def categorical(case: Case, item: int) -> float:
    """Return what the categories of the user's events add to an item's score."""
    return case.parameters.category * sum(said for _, said in in_category(case, item))


def in_price(case: Case, item: int) -> list[tuple[tuple[int, int, int, int], float]]:
    """Return what each event says of an item's price, whatever that weighs; nothing where either is not known."""
    logs = {row: math.log(price) for row, price in enumerate(case.prices.tolist()) if price > 0}
    events = [event for event in liked(case) if event[0] in logs]
    if not events or item not in logs:
        return []
    masses = np.array([long_mass(*event) for event in events])
    paid = np.array([logs[event[0]] for event in events])
    effective = masses.sum() ** 2 / (masses**2).sum()
    variance = np.average((paid - np.average(paid, weights=masses)) ** 2, weights=masses)
    reach = 2 * math.sqrt((effective * variance + 0.25) / (effective + 1))

    def near(log: float) -> Any:
        return masses * np.maximum(1 - np.abs(paid - log) / reach, 0)

    most = max(near(log).sum() for log in paid)
    return list(zip(events, (near(logs[item]) / most).tolist(), strict=True))


def granted(case: Case, item: int) -> float:
    """Return what an item without a price gets where prices count and the user's are known."""
    told = any(case.prices[event[0]] > 0 for event in liked(case))
    return case.parameters.price / 2 if told and not case.prices[item] > 0 else 0.0


def priced(case: Case, item: int) -> float:
    """Return what the prices of the user's events add to an item's score."""
    return case.parameters.price * sum(said for _, said in in_price(case, item))


def of_interests(case: Case, item: int) -> list[tuple[tuple[int, int, int, int], float]]:
    """Return what each event says of an item through the interest it is nearest to, and what else is said, last."""
    owned = [(mass, item) for item, mass, _ in case.owned if item < ITEMS and mass > 0]
    clustered = [item for _, item in sorted(owned, key=lambda known: (-known[0], known[1]))]
    if not clustered:
        return []
    vectors, mass_of = case.vectors.astype(np.float64), {item: mass for mass, item in owned}
    clusters = [[clustered[place] for place in sorted(cluster)] for cluster in ward(vectors[clustered], INTERESTS)]

    def apart(one: int, cluster: list[int]) -> float:
        return sum(2 - 2 * float(vectors[one] @ vectors[other]) for other in cluster if other != one)

    medoids = [cluster[int(np.argmin([round(apart(one, cluster), 9) for one in cluster]))] for cluster in clusters]
    masses = [sum(mass_of[one] for one in cluster) for cluster in clusters]
    near = [float(vectors[medoid] @ vectors[item]) for medoid in medoids]
    at = max(range(len(near)), key=lambda number: near[number])
    scale = max(near[at], 0.0) / max(masses)
    said = [(event, scale * long_mass(*event)) for event in liked(case) if event[0] in clusters[at]]
    return [*said, ((-1, 0, 0, 0), scale * masses[at] - sum(value for _, value in said))]


def interested(case: Case, item: int) -> float:
    """Return what the user's interests add to an item's score."""
    return case.parameters.interests * sum(said for _, said in of_interests(case, item))


def of_what_items_are(case: Case, item: int) -> list[tuple[tuple[int, int, int, int], float]]:
    """Return what each event adds to an item's score through category, price and interests."""
    asked = case.parameters
    said = (
        (asked.category, in_category(case, item)),
        (asked.price, in_price(case, item)),
        (asked.interests, of_interests(case, item)[:-1]),
    )
    return [(event, weight * value) for weight, of_events in said for event, value in of_events]


def popular(case: Case, item: int) -> float:
    """Return what an item's popularity adds, on the device in the half of the day of `NOW_MS` as the user is new."""
    mass = sum(mass for _, mass, _ in case.owned)
    half, device = NOW_MS % 86_400_000 // 43_200_000, min(case.device, 3)
    prior = case.parameters.segment * 10 / (10 + mass) * float(case.in_segments[item, half, device])
    return case.parameters.popularity * float(case.popularity[item]) + prior


def expected(case: Case) -> dict[int, tuple[float, int]]:
    """Return the score and the source of each item that may be listed."""
    found = {}
    for item in set(range(ITEMS)) - barred(case):
        if not case.usable[item]:
            continue
        _, near, spoken = personal(case, item)
        asked_for = popular(case, item)
        category = categorical(case, item)
        source, most = ROOM, 0.0
        for voice, value in enumerate(spoken):
            if value > most:
                source, most = FIRST_VOICE + voice, value
        if category > most:
            source, most = CATEGORY, category
        if asked_for > 0 and asked_for >= most:
            source, most = POPULAR, asked_for
        trending = case.parameters.trending * earlier(case) * float(case.rising[item])
        if trending > most:
            source, most = TRENDING, trending
        score = near + sum(spoken) + category + asked_for + trending + priced(case, item) + granted(case, item)
        found[item] = score, INTEREST if near > 0 and near >= most else source
    return found


def family(linked: Linked) -> Family:
    """Return neighbours as arrays."""
    place = np.full(ITEMS, -1, np.int32)
    counts, rows = np.zeros(len(linked), np.uint8), np.zeros((len(linked), _LINKS), np.int32)
    weights = np.zeros(rows.shape, np.float32)
    for at, (item, others) in enumerate(linked.items()):
        place[item], counts[at] = at, len(others)
        for slot, (other, weight) in enumerate(others):
            rows[at, slot], weights[at, slot] = other, weight
    return Family(place, counts, rows, weights)


def listed(case: Case, scorer: Scorer = SILENT) -> Lists:
    """Return the list of all items that may be listed."""
    end = np.array([1], np.int64)
    users = Users(
        np.stack([vector(case, part) for part in range(3)])[:, None],
        Events(
            np.array([item for item, _, _ in case.happened], np.int32),
            np.array([kind for _, kind, _ in case.happened], np.uint8),
            np.array([NOW_MS - age_ms for _, _, age_ms in case.happened], np.int64),
            end * len(case.happened),
        ),
        Owned(
            np.array([item for item, _, _ in case.owned], np.int32),
            np.array([mass for _, mass, _ in case.owned], np.float64),
            np.array([bought for _, _, bought in case.owned], np.bool_),
            end * len(case.owned),
        ),
        Excluded(
            np.array([item for item, _ in case.excluded], np.int32),
            np.array([ts_ms for _, ts_ms in case.excluded], np.int64),
            end * len(case.excluded),
        ),
        end * NOW_MS,
        np.array([case.device], np.uint8),
        [case.parameters],
        no_previous(1),
        np.ones(1, np.uint64),
    )
    table = Rows(case.vectors, quantise(case.vectors), case.popularity, case.usable, np.arange(ITEMS))
    attributes = ItemAttributes().first(ITEMS)._replace(categories=case.categories, prices=case.prices)
    related = Related(family(case.neighbours), family(case.followers), damping(case.popularity, case.timeliness))
    return make_lists(
        users, table, MET, related, case.rising, attributes, nothing_promoted(), ITEMS, WEIGHING, SCRATCH,
        scorer=scorer, of_segments=case.in_segments,
    )  # fmt: skip


@given(cases(), st.floats(0.01, 2), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_a_scorer_adds_what_it_says(case: Case, weight: float, hidden: int, seed: int) -> None:
    """Weight times sigma(f) is added to every score, nothing where the user has no direction; all else stays."""
    random = np.random.default_rng(seed)
    inner = (4 * random.standard_normal((hidden, DIM))).astype(np.float32)
    scorer = Scorer(inner, random.standard_normal(hidden), float(random.standard_normal()))
    asked = dataclasses.replace(case.parameters, network=weight)
    without, silent = listed(case, scorer), listed(case._replace(parameters=asked))
    user = direction(*(vector(case, part)[None] for part in range(2)))[0]
    expected = {
        item: step + (weight * sigma_of_f(scorer, user, case.vectors[item]) * STEPS if user.any() else 0.0)
        for item, step in zip(without.items[0].tolist(), without.steps[0].tolist(), strict=True)
        if item >= 0
    }
    made = listed(case._replace(parameters=asked), scorer)
    for item, step in zip(made.items[0].tolist(), made.steps[0].tolist(), strict=True):
        assert item < 0 or pytest.approx(expected.pop(item), abs=2) == step
    assert not expected
    assert without.items.tolist() == silent.items.tolist()
    assert without.steps.tolist() == silent.steps.tolist()


@given(cases())
def test_lists_are_those_of_plain_loops(case: Case) -> None:
    """Every item that may be listed stands there once, best first, with its score and what carries it."""
    made = listed(case)
    found = expected(case)
    items = [item for item in made.items[0].tolist() if item >= 0]
    assert sorted(found) == sorted(items)
    steps = made.steps[0].tolist()
    assert [pytest.approx(found[item][0] * STEPS, abs=1) for item in items] == steps[: len(items)]
    assert sorted(steps[: len(items)], reverse=True) == steps[: len(items)]
    for place, item in enumerate(items):
        near, without, spoken = personal(case, item)
        parts = sorted(
            [
                without,
                popular(case, item),
                case.parameters.trending * earlier(case) * float(case.rising[item]),
                categorical(case, item),
                *spoken,
            ],
            reverse=True,
        )
        if parts[0] - parts[1] > 1e-6:
            assert found[item][1] == made.sources[0, place], (near, parts)


def long_mass(item: int, kind: int, age_ms: int, since: int) -> float:
    """Return what one event adds to what its item weighs in the history."""
    del item, since
    return float(WEIGHTS[kind] * 2 ** (-age_ms / HALF_LIVES_MS[1]))


def with_events(case: Case) -> list[tuple[int, float, bool]]:
    """Return the history with what each item weighs by its events; older ones count for as much as they did."""
    older = {item: mass for item, mass, _ in case.owned} | {item: 0.0 for item, kind, _ in case.happened if kind % 2}
    for event in liked(case):
        older[event[0]] = older.get(event[0], 0.0) + long_mass(*event)
    return [(item, mass, False) for item, mass in older.items()]


@given(cases())
def test_an_event_taken_away_costs_what_is_stated(case: Case) -> None:
    """With the lengths, the scales and the places of the other events held, a named event's share is what it adds."""
    case = case._replace(owned=with_events(case))
    made, scale, masses = listed(case), scales(case), {item: mass for item, mass, _ in case.owned}
    for place, item in enumerate(made.items[0].tolist()):
        if item < 0:
            break
        near, _, spoken = personal(case, item)
        whole_liked = near + sum(spoken) + categorical(case, item) + priced(case, item)
        if whole_liked <= 1e-3:
            continue
        added: dict[tuple[int, int], float] = {}
        lost: dict[tuple[int, int], float] = {}
        for event in liked(case):
            share = sum(factor * said.get(item, 0.0) for factor, said in zip(scale, says(case, *event), strict=False))
            if event[0] == item and not case.parameters.exclude_seen:
                share += scale[2] * long_mass(*event)
            for part, weight in enumerate((case.parameters.short, case.parameters.long)):
                length = float(np.linalg.norm(vector(case, part).astype(np.float64)))
                decayed = WEIGHTS[event[1]] * 2 ** (-event[2] / HALF_LIVES_MS[part])
                share += weight * decayed * float(case.vectors[event[0]] @ case.vectors[item]) / length
            added[event[:2]] = added.get(event[:2], 0.0) + share
            lost[event[:2]] = lost.get(event[:2], 0.0) + long_mass(*event)
        for event, said in of_what_items_are(case, item):
            added[event[:2]] += said
        for (other, kind), mass in lost.items():
            before, after = (
                recalled(case, other, left).get(item, 0.0) for left in (masses[other], masses[other] - mass)
            )
            added[other, kind] += scale[3] * (before - after)
        whole = sum(max(value, 0.0) for value in added.values())
        whole += max(whole_liked - sum(added.values()), 0.0)
        reasons = made.reasons
        for rank in range(MAX_REASONS):
            if told := int(reasons.shares[0, place, rank]):
                named = int(reasons.items[0, place, rank]), int(reasons.kinds[0, place, rank])
                assert pytest.approx(added[named] / whole * SHARE_STEPS, abs=2) == told
