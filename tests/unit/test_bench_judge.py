"""The benchmarks' judge: what peers fold is what the oracle works out, and a wrong state is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from tests.bench.stream import job
from tests.bench.stream.oracle import READERS, Oracle
from tests.bench.stream.records import COMPACT_EVENTS, SAMPLED, Fold, compact_fold, sample_of, vector_fold

_USERS = 300
_TABLE = job.item_vectors()
_EVENTS = job.whole("zipf", 30_000, _USERS)
_ORACLE = Oracle(_EVENTS, _TABLE, _USERS)


@pytest.fixture
def sample_file(tmp_path: Path) -> Path:
    """Where a peer leaves vectors."""
    return tmp_path / "sample.f32"


def _fold_of(record: str, sample_file: Path) -> Fold:
    return compact_fold(_TABLE, sample_file) if record == "compact" else vector_fold(_TABLE)


def _folded(fold: Fold) -> dict[bytes, bytes]:
    """Fold the log as the peers do: from its JSON."""
    state: dict[bytes, bytes] = {}
    for value in job.encoded(_EVENTS):
        event = orjson.loads(value)
        key = value[job.USER_ID]
        state[key] = fold(key, state.get(key), event["ts"], int(event["item_id"][1:]))
    return state


@pytest.mark.parametrize("record", ["vector", "compact"])
def test_what_peers_fold_is_right(record: str, sample_file: Path) -> None:
    """Folding the log event by event gives what the oracle works out in one step."""
    assert [] == _ORACLE.wrong(_folded(_fold_of(record, sample_file)), READERS[record])


def test_vectors_in_memory_are_right(sample_file: Path) -> None:
    """Beside compact records the vectors of the sampled users are what the oracle works out."""
    _folded(_fold_of("compact", sample_file))

    assert [] == _ORACLE.memory_wrong(sample_of(sample_file))


def test_a_wrong_vector_in_memory_is_found(sample_file: Path) -> None:
    """A vector that missed one event is told; so are those that were never written."""
    fold = _fold_of("compact", sample_file)
    _folded(fold)
    sample = sample_of(sample_file)
    sample[7] -= _TABLE[_EVENTS.items[_ORACLE.of(7)[-1]]]

    assert ["u0000007"] == [sentence.split()[0] for sentence in _ORACLE.memory_wrong(sample)]
    assert SAMPLED == len(_ORACLE.memory_wrong(sample_of(sample_file.with_name("none"))))


def test_vectors_in_memory_come_back_from_the_newest_events(sample_file: Path) -> None:
    """A consumer that starts with records alone has the vectors of their events, and goes on from there."""
    state = _folded(_fold_of("compact", sample_file))
    whole = sample_of(sample_file)
    fold = _fold_of("compact", sample_file)
    few = [user for user in range(SAMPLED) if len(_ORACLE.of(user)) < COMPACT_EVENTS]
    for user in few:
        key = job.user_id(user).encode()
        fold(key, state[key], job.BASE_MS, 3)

    np.testing.assert_allclose(whole[few] + _TABLE[3], sample_of(sample_file)[few], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("record", ["vector", "compact"])
def test_one_event_too_many_is_found(record: str, sample_file: Path) -> None:
    """A user who got one event twice is told, whoever it is."""
    fold = _fold_of(record, sample_file)
    state = _folded(fold)
    user = min(state)
    state[user] = fold(user, state[user], job.BASE_MS + job.STEP_MS * 30_000, 5)

    assert 1 == len(_ORACLE.wrong(state, READERS[record]))
    assert user.decode() in _ORACLE.wrong(state, READERS[record])[0]


def test_a_missing_user_is_found() -> None:
    """A user without a state is told."""
    state = _folded(vector_fold(_TABLE))
    del state[min(state)]

    assert "1 of 300 users have no state" in _ORACLE.wrong(state, READERS["vector"])[0]


@pytest.mark.parametrize("record", ["vector", "compact"])
def test_another_item_is_found(record: str, sample_file: Path) -> None:
    """The right number of events with one of another item is told."""
    fold = _fold_of(record, sample_file)
    state = _folded(fold)
    user = job.user_id(_ORACLE.sampled[0]).encode()
    mine = _ORACLE.of(_ORACLE.sampled[0])
    made = None
    for number in mine:
        other = (int(_EVENTS.items[number]) + (number == mine[-1])) % job.ITEMS
        made = fold(user, made, int(_EVENTS.ts_ms[number]), other)
    assert made is not None
    state[user] = made

    assert 1 == len(_ORACLE.wrong(state, READERS[record]))


def test_a_hot_user_stays_right() -> None:
    """Float32 sums of a user with tens of thousands of events stay within what the judge allows."""
    events = job.whole("zipf", 50_000, 2)
    fold, state = vector_fold(_TABLE), dict[bytes, bytes]()
    for number, ts_ms, item in zip(events.users.tolist(), events.ts_ms.tolist(), events.items.tolist(), strict=True):
        key = job.user_id(number).encode()
        state[key] = fold(key, state.get(key), ts_ms, item)

    assert [] == Oracle(events, _TABLE, 2).wrong(state, READERS["vector"])


def test_a_longer_log_begins_with_the_shorter() -> None:
    """The prefix that slow peers get is the same log."""
    shorter, longer = job.whole("uniform", 150_000), job.whole("uniform", 250_000)

    assert (longer.users[:150_000] == shorter.users).all()
    assert (longer.items[:150_000] == shorter.items).all()
