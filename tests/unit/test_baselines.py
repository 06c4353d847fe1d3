"""Baselines, against plain loops over small logs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.baselines import all_baselines
from models.baselines.als import ALS
from models.baselines.baseline import Baseline
from models.baselines.bpr import BPR
from models.baselines.co_occurrence import CoOccurrence
from models.baselines.ease import EASE
from models.baselines.item_knn import ItemKNN
from models.baselines.personal import PersonalFrequency
from models.baselines.popularity import DecayedPopularity, Popularity
from models.baselines.vs_knn import VSKNN, WINDOW
from models.interactions import Asking, Interactions

USERS, ITEMS = 5, 9

B = TypeVar("B", bound=Baseline)
#: user, item, session (-1 for none)
Rows = list[tuple[int, int, int]]


@st.composite
def logs(draw: st.DrawFn) -> Rows:
    """Return the rows of a log; each session is of one user."""
    rows = draw(st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1)), min_size=1, max_size=60))
    if draw(st.booleans()):
        return [(user, item, -1) for user, item in rows]
    sessions = [draw(st.integers(0, 2)) for _ in rows]
    return [(user, item, 3 * user + session) for (user, item), session in zip(rows, sessions, strict=True)]


def columns(rows: Rows, step_ms: int = 1000) -> Interactions:
    """Return rows as a log with an event each second."""
    table = np.array(rows, np.int32).reshape(-1, 3)
    ts_ms = np.arange(len(rows), dtype=np.int64) * step_ms
    return Interactions(table[:, 0], table[:, 1], np.zeros(len(rows), np.uint8), ts_ms, table[:, 2], table[:, 2])


def ask(users: Sequence[int]) -> Asking:
    """Return one question of each of these users."""
    return Asking(np.array(users, np.int32), np.full(len(users), -1, np.int32), np.zeros(len(users), np.int64))


def everybody() -> Asking:
    """Return one question of each user."""
    return ask(range(USERS))


def learned(baseline: B, rows: Rows) -> B:
    """Return the baseline after the log came in two parts, with a fit after each."""
    middle = len(rows) // 2
    log = columns(rows)
    for part in (log.at(slice(None, middle)), log.at(slice(middle, None))):
        baseline.learn(part)
        baseline.fit()
    return baseline


def best(scores: Sequence[float], rows: Rows, user: int, *, exclude_seen: bool) -> list[int]:
    """Sort items as the baselines promise to."""
    met = Counter(item for _, item, _ in rows)
    seen = {item for who, item, _ in rows if who == user} if exclude_seen else set()
    ordered = sorted(range(ITEMS), key=lambda item: (-scores[item], -met[item], item))
    return [item for item in ordered if item not in seen]


def check(baseline: Baseline, rows: Rows, scores: list[list[float]]) -> None:
    """Compare scores, and lists with the order of these scores."""
    learned(baseline, rows)
    found = np.zeros((USERS, ITEMS))
    baseline.score(everybody(), found)
    assert np.array(scores) == pytest.approx(found, abs=1e-6)
    for exclude_seen in (False, True):
        lists = baseline.recommend(everybody(), ITEMS + 2, exclude_seen=exclude_seen)
        for user in range(USERS):
            expected = best(found[user].tolist(), rows, user, exclude_seen=exclude_seen)
            assert expected + [-1] * (ITEMS + 2 - len(expected)) == lists[user].tolist()


def of(rows: Rows, user: int) -> list[int]:
    """Return the items of a user in order."""
    return [item for who, item, _ in rows if who == user]


def groups(rows: Rows, run: int | None) -> list[int]:
    """Return the number of each event's session, or of the run of its user's events."""
    counts: Counter[int] = Counter()
    found = []
    for user, _, session in rows:
        found.append(session if session >= 0 else 10_000 * (user + 1) + (counts[user] // run if run else 0))
        counts[user] += 1
    return found


@settings(deadline=None)
@given(logs())
def test_popularity_counts_events(rows: Rows) -> None:
    """Everybody gets the items of most events."""
    met = Counter(item for _, item, _ in rows)
    check(Popularity(USERS, ITEMS), rows, [[float(met[item]) for item in range(ITEMS)]] * USERS)


@settings(deadline=None)
@given(logs(), st.integers(1, 5_000))
def test_decayed_popularity_halves_at_each_half_life(rows: Rows, half_life_ms: int) -> None:
    """Masses are sums of 0.5 to the age over the half-life, up to one factor for all items."""
    baseline = learned(DecayedPopularity(USERS, ITEMS, half_life_ms), rows)
    mass = [0.0] * ITEMS
    for age, (_, item, _) in enumerate(reversed(rows)):
        mass[item] += 0.5 ** (age * 1000 / half_life_ms)
    found = np.zeros((USERS, ITEMS))
    baseline.score(everybody(), found)
    assert mass / np.sum(mass) == pytest.approx(found[0] / found[0].sum(), abs=1e-9)


@settings(deadline=None)
@given(logs())
def test_personal_frequency_prefers_the_frequent_then_the_late(rows: Rows) -> None:
    """A user's own items come first, by count and then by the last event; the rest by popularity."""
    baseline = learned(PersonalFrequency(USERS, ITEMS), rows)
    lists = baseline.recommend(everybody(), ITEMS, exclude_seen=False)
    met = Counter(item for _, item, _ in rows)
    for user in range(USERS):
        own = of(rows, user)
        late = {item: place for place, item in enumerate(own)}
        expected = sorted(late, key=lambda item: (-own.count(item), -late[item]))
        expected += sorted(set(range(ITEMS)) - set(own), key=lambda item: (-met[item], item))
        assert expected == lists[user].tolist()


@settings(deadline=None)
@given(logs(), st.integers(1, 3))
def test_co_occurrence_counts_what_stood_near_the_last_item(rows: Rows, reach: int) -> None:
    """For each event of the last item, the events up to `reach` steps away in its session."""
    numbers = groups(rows, None)
    scores = [[0.0] * ITEMS for _ in range(USERS)]
    for user in range(USERS):
        for group in set(numbers) if of(rows, user) else ():
            items = [item for (_, item, _), number in zip(rows, numbers, strict=True) if number == group]
            for a, item in enumerate(items):
                for b, other in enumerate(items):
                    if item == of(rows, user)[-1] and 0 < abs(a - b) <= reach:
                        scores[user][other] += 1
    check(CoOccurrence(USERS, ITEMS, reach), rows, scores)


@settings(deadline=None)
@given(logs(), st.integers(1, ITEMS), st.floats(0.0, 5.0))
def test_item_knn_sums_shrunken_cosines_of_the_nearest(rows: Rows, neighbours: int, shrinkage: float) -> None:
    """Each distinct item of a user adds the similarities of its nearest."""
    who = [{user for user, met, _ in rows if met == item} for item in range(ITEMS)]
    near = []
    for a in range(ITEMS):
        similar = {
            b: len(who[a] & who[b]) / (math.sqrt(len(who[a]) * len(who[b])) + shrinkage)
            for b in range(ITEMS)
            if a != b and who[a] & who[b]
        }
        near.append(sorted(similar.items(), key=lambda pair: (-pair[1], pair[0]))[:neighbours])
    scores = [
        [sum(dict(near[a]).get(b, 0.0) for a in set(of(rows, user))) for b in range(ITEMS)] for user in range(USERS)
    ]
    check(ItemKNN(USERS, ITEMS, neighbours, shrinkage), rows, scores)


@settings(deadline=None)
@given(logs(), st.integers(1, 6))
def test_vs_knn_sums_the_nearest_sessions(rows: Rows, neighbours: int) -> None:
    """Products with the current session, its newest item weighing most; ties go to the later session."""
    numbers = groups(rows, WINDOW)
    named = rows[0][2] >= 0
    scores = [[0.0] * ITEMS for _ in range(USERS)]
    for user in range(USERS):
        newest_first = of(rows, user)[::-1][:WINDOW]
        if not newest_first:
            continue
        own = {number for (who, _, _), number in zip(rows, numbers, strict=True) if who == user}
        newest = [number for (who, _, _), number in zip(rows, numbers, strict=True) if who == user][-1]
        near = []
        for group in set(numbers) - ({newest} if named else own):
            places = [place for place, number in enumerate(numbers) if number == group]
            items = {rows[place][1] for place in places}
            steps = [newest_first.index(item) for item in set(newest_first) & items]
            if steps:
                product = sum(len(newest_first) - step for step in steps)
                near.append((-product, -places[-1], product / (min(steps) + 1), items))
        for _, _, worth, items in sorted(near, key=lambda session: session[:2])[:neighbours]:
            for item in items:
                scores[user][item] += worth
    check(VSKNN(USERS, ITEMS, neighbours, sample=1_000), rows, scores)


def test_vs_knn_samples_the_latest_sessions() -> None:
    """With a sample of two, only the two latest sessions that hold the item are compared with."""
    rows = [(user, item, -1) for user in range(4) for item in (8, user)] + [(4, 8, -1)]
    baseline = learned(VSKNN(USERS, ITEMS, 10, sample=2), rows)
    scores = np.zeros((1, ITEMS))
    baseline.score(ask([4]), scores)
    assert [2, 3, 8] == np.flatnonzero(scores[0]).tolist()


@settings(deadline=None)
@given(logs(), st.floats(0.5, 50.0))
def test_ease_is_the_closed_form(rows: Rows, regularisation: float) -> None:
    """Weights are -P / diag(P) by columns, 0 on the diagonal, with P the regularised inverse."""
    histories = np.zeros((USERS, ITEMS))
    for user, item, _ in rows:
        histories[user, item] = 1
    inverse = np.linalg.inv(histories.T @ histories + regularisation * np.eye(ITEMS))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    baseline = learned(EASE(USERS, ITEMS, regularisation), rows)
    found = np.zeros((USERS, ITEMS))
    baseline.score(everybody(), found)
    assert histories @ weights == pytest.approx(found, abs=1e-4)


def missing(user: int) -> int:
    """Return the one item of the user's taste that the user has not met."""
    return 4 * (user % 2) + user // 2 % 4


def two_tastes(users: int) -> Rows:
    """Return a log in which even users meet items 0-3 and odd ones 4-7, each all but one."""
    group = range(4)
    return [
        (user, 4 * (user % 2) + place, -1)
        for user in range(users)
        for place in group
        if 4 * (user % 2) + place != missing(user)
    ]


def factorised(users: int) -> list[Baseline]:
    """Return models of two factors, one for each taste."""
    return [ALS(users, ITEMS, 2, 0.01, 10.0), BPR(users, ITEMS, 2, 0.001, 100)]


def test_factors_find_what_is_missing() -> None:
    """Of two groups with nothing in common, each user is offered the one item of the group not met."""
    for model in factorised(40):
        lists = learned(model, two_tastes(40)).recommend(ask(range(40)), 3, exclude_seen=True)
        assert [missing(user) for user in range(40)] == lists[:, 0].tolist(), model.name


def test_als_knows_a_user_who_came_after_the_fit() -> None:
    """It solves for the factors of the history as it is; BPR has none for such a user and offers popular items."""
    als, bpr = (learned(model, two_tastes(40)) for model in factorised(41))
    history = [(40, 4, -1), (40, 6, -1)]
    for model in (als, bpr):
        model.learn(columns(history))
    popular = learned(Popularity(41, ITEMS), [*two_tastes(40), *history])
    assert {5, 7} == set(als.recommend(ask([40]), 2, exclude_seen=True)[0].tolist())
    expected = popular.recommend(ask([40]), ITEMS, exclude_seen=True)
    assert expected.tolist() == bpr.recommend(ask([40]), ITEMS, exclude_seen=True).tolist()


def test_bpr_is_the_same_each_time() -> None:
    """A fit depends on the log alone, not on the fits before."""
    model = BPR(40, ITEMS, 2, 0.001, 5)
    model.learn(columns(two_tastes(40)))
    scores = []
    for _ in range(2):
        model.fit()
        found = np.zeros((40, ITEMS))
        model.score(ask(range(40)), found)
        scores.append(found.tolist())
    assert scores[0] == scores[1]


def test_a_new_user_gets_a_list_from_every_baseline() -> None:
    """Without a history, and before anything was learned or fitted, a list of distinct items comes back."""
    for baseline in all_baselines(USERS, ITEMS, 1):
        nothing_known = baseline.recommend(everybody(), ITEMS, exclude_seen=True)
        assert [list(range(ITEMS))] * USERS == np.sort(nothing_known, axis=1).tolist(), baseline.name
        baseline.learn(columns([(0, 1, -1), (0, 2, -1), (1, 2, -1), (1, 3, -1)]))
        baseline.fit()
        lists = baseline.recommend(everybody(), ITEMS, exclude_seen=True)
        assert list(range(ITEMS)) == np.sort(lists[4]).tolist(), baseline.name
        assert {1, 2}.isdisjoint(lists[0]), baseline.name
