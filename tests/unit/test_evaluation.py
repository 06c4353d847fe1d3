"""Evaluation: a log as columns, Freshet in virtual time, leave-one-out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.interactions import Asking
from models.ranking import RankingParameters
from streams.datasets.log import Entry
from streams.errors import ConfigurationError
from streams.evaluation.driving import answers
from streams.evaluation.live import Live, move_apart
from streams.evaluation.logs import EvaluationLog, columns, find_log
from streams.evaluation.protocols import leave_one_out
from streams.evaluation.runs import baselines
from streams.refresh.rank import Ranked
from streams.settings import Settings
from streams.wire.items import Item

START_MS = 1_700_000_000_000
SETTINGS = Settings()


def entry(user: str, item: str, after_s: float, topic: str = "clicks", **fields: Any) -> Entry:
    """Return an event so long after the start."""
    return Entry(topic, START_MS + round(after_s * 1000), {"user_id": user, "item_id": item, **fields})


def log_of(*entries: Entry, items: tuple[Item, ...] = ()) -> EvaluationLog:
    """Return a log as an evaluation takes it."""
    return columns("test", entries, list(items))


def test_a_log_becomes_columns() -> None:
    """Users, items and so on are numbered as they come; impressions are left out, items nobody met come last."""
    log = log_of(
        entry("u", "a", 0, session_id="s", device="tv"),
        entry("v", "b", 1, device=""),
        Entry("impressions", START_MS + 1_500, {"user_id": "w", "items": ["a"]}),
        entry("u", "b", 2, "purchases", session_id="s", device="phone"),
        items=(Item("b", category="mugs"), Item("c", category="cups")),
    )
    assert (["u", "v"], ["a", "b", "c"]) == (log.users, log.items)
    assert [[0, 1, 0], [0, 1, 1], [1, 1, 3]] == [column.tolist() for column in log.interactions[:3]]
    assert [0, -1, 0] == log.interactions.sessions.tolist()
    assert ([0, -1, 1], ("tv", "phone")) == (log.interactions.devices.tolist(), log.devices)
    assert [-1, 0, 1] == log.categories().tolist()
    assert [0, 0] == log.first_users(1).interactions.users.tolist()


def test_events_may_stand_in_any_order() -> None:
    """They are sorted by time; those of one moment keep the order of the file."""
    log = log_of(entry("u", "late", 9), entry("u", "a", 1), entry("v", "b", 0), entry("u", "c", 1))
    assert ["b", "a", "c", "late"] == [log.items[item] for item in log.interactions.items]


def test_a_log_that_is_not_there_is_named() -> None:
    """The refusal says which logs there are."""
    with pytest.raises(ConfigurationError, match=r"no log 'nowhere'.*movielens-100k"):
        find_log(SETTINGS, "nowhere")


def test_events_of_one_moment_are_moved_apart() -> None:
    """Events of one user at one time get growing times, over several calls; other users keep theirs."""
    newest = np.full(2, -1, np.int64)
    moved = np.empty(4, np.int64)
    move_apart(np.array([0, 0, 1, 0], np.int32), np.array([5, 5, 5, 5]), newest, moved)
    assert [5, 6, 5, 7] == moved.tolist()
    move_apart(np.array([0, 1], np.int32), np.array([6, 9]), newest, moved)
    assert [8, 9] == moved[:2].tolist()


def shoppers(users: int = 30, items: int = 12) -> EvaluationLog:
    """Return users who click item after item, one after the other, each from another begin."""
    walks = [
        entry(f"u{user}", f"i{(user + step) % items}", 3_600 * step + user)
        for step in range(6)
        for user in range(users)
    ]
    return log_of(*walks)


def asking(log: EvaluationLog) -> Asking:
    """Return all users asking now."""
    users = np.arange(len(log.users), dtype=np.int32)
    return Asking(users, np.full(len(users), -1, np.int32), np.full(len(users), START_MS + 10**9))


def test_freshet_learns_a_log_and_answers() -> None:
    """Lists are full, hold no item twice, and under the mask none that the user met; without it such items return."""
    log = shoppers()
    live = Live(SETTINGS, log.users, log.items)
    live.learn(log.interactions)
    live.fit()
    excluded = live.recommend(asking(log), 8, exclude_seen=True)
    allowed = live.recommend(asking(log), 8, exclude_seen=False)
    for user in range(len(log.users)):
        met = set(log.interactions.items[log.interactions.users == user].tolist())
        assert set(range(12)) - met == set(excluded[user, :6].tolist())
        assert [-1, -1] == excluded[user, 6:].tolist()
        assert 8 == len(set(allowed[user].tolist()))
        assert met & set(allowed[user].tolist())


def test_freshet_has_learned_what_the_signals_role_publishes() -> None:
    """Popularity, followers and fitted neighbours stand in the catalogue."""
    log = shoppers()
    live = Live(SETTINGS, log.users, log.items)
    live.learn(log.interactions)
    live.recommend(asking(log), 5, exclude_seen=True)
    assert 0 == len(live.catalogue.neighbours)
    assert 1.0 == live.catalogue.popularity.max()
    live.fit()
    assert 12 == len(live.catalogue.neighbours)
    assert 1.0 == live.catalogue.popularity.max()
    followers, _ = live.catalogue.followers.of(log.items.index("i3"))
    assert [] == followers.tolist(), "an hour apart is another session"


def test_how_a_log_is_cut_into_batches_changes_no_list() -> None:
    """Learned at once or event by event, the lists are the same."""
    log = shoppers(users=5)
    whole, parts = (Live(SETTINGS, log.users, log.items) for _ in range(2))
    whole.learn(log.interactions)
    for place in range(len(log.interactions.users)):
        parts.learn(log.interactions.at(slice(place, place + 1)))
    for exclude_seen in (True, False):
        one, other = (live.ranked(asking(log), 10, exclude_seen=exclude_seen) for live in (whole, parts))
        assert list(one) == list(other)


def test_users_without_events_get_the_default_list() -> None:
    """Whoever did nothing yet is shown what is popular."""
    log = shoppers(users=3)
    live = Live(SETTINGS, [*log.users, "new"], log.items)
    live.learn(log.interactions)
    new = Asking(np.array([3, 0], np.int32), np.full(2, -1, np.int32), np.full(2, START_MS))
    first, second = live.recommend(new, 5, exclude_seen=True)
    popular = live.catalogue.popularity[first]
    assert (np.diff(popular) <= 0).all()
    assert not set(second.tolist()) & set(log.interactions.items[log.interactions.users == 0].tolist())


def test_new_users_are_asked_for_at_their_own_time() -> None:
    """Where segments count, each of them gets what is popular in the part of the day in which the question is put."""
    log = log_of(*(entry(f"u{half}", ("night", "day")[half % 2], half * 43_200) for half in range(8)))
    live = Live(SETTINGS.model_copy(update={"day_parts": 2}), [*log.users, "new"], log.items)
    live.rank_by(RankingParameters(segment=1.0))
    live.learn(log.interactions)
    last = log.interactions.at(slice(6, 8))
    new = Asking(np.full(2, len(log.users), np.int32), np.full(2, -1, np.int32), last.ts_ms)
    assert last.items.tolist() == live.recommend(new, 1, exclude_seen=True)[:, 0].tolist()


def test_lists_follow_the_device_of_the_log() -> None:
    """Who comes with a device gets what is popular with it, where the setting names it; without, bytes are the same."""
    shown = {"phone": "small", "desktop": "large"}
    rows = [(f"{device}{number}", item, device) for number in range(4) for device, item in shown.items()]
    rows += [("anne", "other", "phone"), ("bert", "other", "desktop")]
    events = [entry(user, item, at, device=device) for at, (user, item, device) in enumerate(rows)]

    def lists(log: EvaluationLog, *devices: str) -> list[Ranked]:
        live = Live(SETTINGS.model_copy(update={"user_devices": devices}), log.users, log.items, (), log.devices)
        live.rank_by(RankingParameters(segment=1.0))
        live.learn(log.interactions)
        who = np.array([log.users.index(name) for name in ("anne", "bert")], np.int32)
        asking = Asking(who, np.full(2, -1, np.int32), np.zeros(2, np.int64))
        return list(live.ranked(asking, 2, exclude_seen=True))

    plain = log_of(*(entry(user, item, at) for at, (user, item, _) in enumerate(rows)))
    told = log_of(*events)
    for devices in (("desktop", "phone"), ("phone",)):
        assert ["small", "large"] == [one.item_ids[0] for one in lists(told, *devices)]
    assert lists(plain) == lists(told)


def test_answers_stand_in_the_order_of_the_questions() -> None:
    """Every question of leave-one-out has its list, under both masks."""
    log = shoppers()
    done: list[int] = []
    plan = leave_one_out(log.interactions)
    live = Live(SETTINGS, log.users, log.items)
    lists = answers(live, log.interactions, plan, 10, progress=done.append)
    assert (len(log.users), 10) == lists.excluded.shape == lists.allowed.shape
    assert len(log.interactions.users) == sum(done)
    for row, user in zip(lists.excluded, plan.asking.users, strict=True):
        assert not set(row.tolist()) & set(plan.learned.items[plan.learned.users == user].tolist())


def test_an_event_that_the_worker_refuses_is_told() -> None:
    """A log is not quietly evaluated without some of its events."""
    log = log_of(entry("u\x07", "a", 0))
    with pytest.raises(ConfigurationError, match=r"'u\\x07' is refused.*user_id"):
        Live(SETTINGS, log.users, log.items).learn(log.interactions)


def test_systems_are_chosen_by_name() -> None:
    """Freshet alone needs no other system's libraries."""
    assert [] == baselines(log_of(entry("u", "a", 0)), ["freshet"])
