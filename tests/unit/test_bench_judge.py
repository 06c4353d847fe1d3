"""The benchmarks' judge: what peers fold is what the oracle works out, and a wrong state is found."""

from __future__ import annotations

import orjson
import pytest

from tests.bench.stream import job
from tests.bench.stream.oracle import READERS, Oracle
from tests.bench.stream.records import Fold, compact_fold, vector_fold

_USERS = 300
_TABLE = job.item_vectors()
_EVENTS = job.whole("zipf", 30_000, _USERS)
_ORACLE = Oracle(_EVENTS, _TABLE, _USERS)


def _folds(record: str) -> Fold:
    return compact_fold if record == "compact" else vector_fold(_TABLE)


def _folded(record: str) -> dict[bytes, bytes]:
    """Fold the log as the peers do: from its JSON."""
    fold = _folds(record)
    state: dict[bytes, bytes] = {}
    for value in job.encoded(_EVENTS):
        event = orjson.loads(value)
        key = value[job.USER_ID]
        state[key] = fold(state.get(key), event["ts"], int(event["item_id"][1:]))
    return state


@pytest.mark.parametrize("record", ["vector", "compact"])
def test_what_peers_fold_is_right(record: str) -> None:
    """Folding the log event by event gives what the oracle works out in one step."""
    assert [] == _ORACLE.wrong(_folded(record), READERS[record])


@pytest.mark.parametrize("record", ["vector", "compact"])
def test_one_event_too_many_is_found(record: str) -> None:
    """A user who got one event twice is told, whoever it is."""
    state = _folded(record)
    user = min(state)
    state[user] = _folds(record)(state[user], job.BASE_MS + job.STEP_MS * 30_000, 5)

    assert 1 == len(_ORACLE.wrong(state, READERS[record]))
    assert user.decode() in _ORACLE.wrong(state, READERS[record])[0]


def test_a_missing_user_is_found() -> None:
    """A user without a state is told."""
    state = _folded("vector")
    del state[min(state)]

    assert "1 of 300 users have no state" in _ORACLE.wrong(state, READERS["vector"])[0]


@pytest.mark.parametrize("record", ["vector", "compact"])
def test_another_item_is_found(record: str) -> None:
    """The right number of events with one of another item is told."""
    state = _folded(record)
    user = job.user_id(_ORACLE.sampled[0]).encode()
    mine = _ORACLE.of(_ORACLE.sampled[0])
    fold, made = _folds(record), None
    for number in mine:
        other = (int(_EVENTS.items[number]) + (number == mine[-1])) % job.ITEMS
        made = fold(made, int(_EVENTS.ts_ms[number]), other)
    assert made is not None
    state[user] = made

    assert 1 == len(_ORACLE.wrong(state, READERS[record]))


def test_a_hot_user_stays_right() -> None:
    """Float32 sums of a user with tens of thousands of events stay within what the judge allows."""
    events = job.whole("zipf", 50_000, 2)
    fold, state = vector_fold(_TABLE), dict[bytes, bytes]()
    for number, ts_ms, item in zip(events.users.tolist(), events.ts_ms.tolist(), events.items.tolist(), strict=True):
        key = job.user_id(number).encode()
        state[key] = fold(state.get(key), ts_ms, item)

    assert [] == Oracle(events, _TABLE, 2).wrong(state, READERS["vector"])


def test_a_longer_log_begins_with_the_shorter() -> None:
    """The prefix that slow peers get is the same log."""
    shorter, longer = job.whole("uniform", 150_000), job.whole("uniform", 250_000)

    assert (longer.users[:150_000] == shorter.users).all()
    assert (longer.items[:150_000] == shorter.items).all()
