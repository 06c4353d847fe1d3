"""Erasures among events, in any turns, with crashes and replays: what was before is gone, what was after is there."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.interests import codec
from streams.kafka.transport import Record
from streams.settings import Settings
from streams.wire.erasures import Erasure
from tests.support.partitions import LoggedPartition

NOW_MS = 1_800_000_000_000
SETTINGS = Settings()
TOPICS = ("views", "clicks", "purchases")
USERS = ("u", "v")

Given = tuple[str, Record]


class History(NamedTuple):
    """Records in the order of their timestamps, no two alike, and which of them are folded in one turn."""

    records: list[Given]
    turns: list[list[Given]]


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Events and erasures of two users; a turn holds a stretch of time, its records in any order."""
    records: list[Given] = []
    for number in range(draw(st.integers(1, 25))):
        user_id, ms = draw(st.sampled_from(USERS)), NOW_MS + 10 * number
        if draw(st.integers(0, 4)) == 0:
            value = Erasure(user_id, f"r{number}").encode()
            records.append(("user-erasures", Record(number, ms, user_id.encode(), value)))
            continue
        late_ms = draw(st.integers(0, 60_000))
        event = {
            "event_id": f"e{number}", "user_id": user_id, "item_id": f"i{draw(st.integers(0, 5))}", "ts": ms - late_ms,
        }  # fmt: skip
        topic = draw(st.sampled_from(TOPICS))
        records.append((topic, Record(number, ms, user_id.encode(), orjson.dumps(event))))
    cuts = sorted(draw(st.sets(st.integers(1, len(records)))) | {0, len(records)})
    turns = [draw(st.permutations(records[start:end])) for start, end in pairwise(cuts)]
    return History(records, turns)


def expected(history: History) -> dict[str, set[tuple[str, int]]]:
    """Return each user's events that no erasure reaches, as (event's topic, its time)."""
    erased = dict.fromkeys(USERS, 0)
    for topic, record in history.records:
        if topic == "user-erasures":
            erased[(record.key or b"").decode()] = record.timestamp
    left: dict[str, set[tuple[str, int]]] = {user_id: set() for user_id in USERS}
    for topic, record in history.records:
        user_id = (record.key or b"").decode()
        if topic != "user-erasures" and record.timestamp > erased[user_id]:
            left[user_id].add((topic, orjson.loads(record.value or b"")["ts"]))
    return left


def held(partition: LoggedPartition) -> dict[str, set[tuple[str, int]]]:
    """Return each user's events by the committed states."""
    found: dict[str, set[tuple[str, int]]] = {user_id: set() for user_id in USERS}
    for user_id, value in partition.newest("user-state").items():
        state = codec.decode(value or b"")
        found[user_id] = {(("views", "clicks", "carts", "purchases")[e.type_code], e.ts_ms) for e in state.recent}
        assert sum(state.events_applied.values()) == len(state.recent)
    return found


@settings(max_examples=150, deadline=None)
@given(histories(), st.data())
def test_before_is_gone_and_after_is_there(history: History, data: st.DataObject) -> None:
    """
    Whatever turns the records come in: exactly the events appended after the last erasure are held.

    A crash loses the turns since the last commit, which are read again; then everything is read again from the start.
    """
    partition = LoggedPartition(SETTINGS, NOW_MS + 1_000)
    committed = at = 0
    while at < len(history.turns):
        partition.fold(*history.turns[at])
        at += 1
        fate = data.draw(st.sampled_from(("nothing", "commit", "crash")))
        if fate == "commit":
            partition.commit()
            committed = at
        elif fate == "crash" and data.draw(st.booleans()):
            partition.take()
            at = committed
    partition.commit()

    assert expected(history) == held(partition)

    receipts = {record.key for record in partition.log if record.topic == "erasure-receipts"}
    partition.fold(*(record for record in history.records if record[0] != "user-erasures"))
    partition.fold(*history.records)
    partition.commit()

    assert expected(history) == held(partition)
    assert {b"r%d" % r.offset for topic, r in history.records if topic == "user-erasures"} == receipts


@settings(max_examples=150, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_nothing_from_before_survives_any_order(history: History, rng: object) -> None:
    """However far fetching has torn the topics apart, no event appended up to an erasure is held in the end."""
    records = list(history.records)
    rng.shuffle(records)  # type: ignore[attr-defined]  # a random.Random
    partition = LoggedPartition(SETTINGS, NOW_MS + 1_000)
    for record in records:
        partition.fold(record)
    partition.commit()
    left = expected(history)

    assert [] == [user_id for user_id, events in held(partition).items() if not events <= left[user_id]]
