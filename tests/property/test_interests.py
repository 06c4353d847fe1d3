"""The body of a user's record is a function of the set of events: order, copies, batches and crashes do not matter."""

from __future__ import annotations

import random

from hypothesis import given, settings

from streams.interests import codec
from streams.interests.slab import Slab
from streams.interests.state import LastList
from streams.settings import Settings
from streams.wire.events import Event
from tests.support.oracle import TYPES, Oracle
from tests.support.strategies import LATENESS_MS, Log, batches, event_of, logs, seeds, wire

SETTINGS = Settings(lateness_s=LATENESS_MS / 1000)


def folded(parts: list[list[Event]]) -> Slab:
    """Fold batch by batch into a new slab."""
    slab = Slab(SETTINGS)
    for part in parts:
        slab.fold(part)
    return slab


def bodies(slab: Slab) -> dict[str, bytes]:
    """Return the body of every user."""
    states = {user_id: slab.get(user_id) for user_id in slab}
    return {user_id: codec.encode_body(state) for user_id, state in states.items() if state is not None}


def oracle_of(events: tuple[Event, ...] | list[Event]) -> Oracle:
    """Tell the oracle everything."""
    oracle = Oracle()
    for event in events:
        oracle.add(*wire(event))
    return oracle


@settings(max_examples=60, deadline=None)
@given(logs(), seeds)
def test_any_arrival_gives_the_same_bytes(log: Log, seed: int) -> None:
    """Disorder within lateness, up to three copies and any batching give the body of the log in order."""
    expected = bodies(folded([list(log.events)]))
    assert expected == bodies(folded(batches(log.arrival(seed), seed)))


@settings(max_examples=40, deadline=None)
@given(logs(), seeds)
def test_crash_and_restore_give_the_same_bytes(log: Log, seed: int) -> None:
    """A worker that dies between commits, restores its records and reads on from its offset ends where others do."""
    rng = random.Random(seed)
    parts = batches(log.arrival(seed), seed)
    changelog: dict[bytes, bytes] = {}
    slab, uncommitted, at, committed = Slab(SETTINGS), set[str](), 0, 0
    crashes = 0
    while at < len(parts):
        uncommitted |= set(slab.fold(parts[at]).touched)
        at += 1
        fate = rng.random()
        if fate < 0.4:
            changelog |= {user_id.encode(): slab.encode(user_id) for user_id in sorted(uncommitted)}
            uncommitted.clear()
            committed = at
        elif fate < 0.6 and crashes < 20:
            crashes += 1
            slab, uncommitted, at = Slab(SETTINGS), set(), committed
            for key, value in changelog.items():
                slab.restore(key, value)
    assert bodies(folded([list(log.events)])) == bodies(slab)


@settings(max_examples=40, deadline=None)
@given(logs(), seeds)
def test_state_equals_the_oracle(log: Log, seed: int) -> None:
    """Counts, recent interactions and exclusions are what plain loops over the log say."""
    slab = folded(batches(log.arrival(seed), seed))
    oracle = oracle_of(log.events)
    assert oracle.users() == sorted(slab)
    for user_id in slab:
        state = slab.get(user_id)
        assert state is not None
        assert oracle.events_applied(user_id) == state.events_applied
        expected = [(ts, name, item, TYPES.index(kind)) for ts, name, item, kind in oracle.recent(user_id, LATENESS_MS)]
        assert expected == [tuple(interaction) for interaction in state.interactions()]
        assert oracle.disliked(user_id) | oracle.purchased(user_id) == set(state.excluded)
        older = len(oracle.interactions(user_id)) - len(expected)
        if len({entry[2] for entry in oracle.interactions(user_id)}) <= 256:
            assert older == sum(sum(tally.counts) for tally in state.items.values())


@settings(max_examples=40, deadline=None)
@given(logs(), seeds)
def test_each_event_is_accepted_once(log: Log, seed: int) -> None:
    """What the runs report as accepted is the set of events, each once; copies are told apart."""
    slab = Slab(SETTINGS)
    accepted = []
    copies = 0
    for part in batches(log.arrival(seed), seed):
        result = slab.fold(part)
        accepted += [part[index] for index in result.accepted]
        copies += result.late.total() + result.duplicates.total()
        assert len(result.accepted) == result.applied.total()
    by_hash = sorted(accepted, key=lambda event: event.event_hash)
    assert sorted(log.events, key=lambda event: event.event_hash) == by_hash
    assert len(log.arrival(seed)) - len(log.events) == copies


@settings(max_examples=40, deadline=None)
@given(logs(), seeds)
def test_copies_that_differ_are_one_event(log: Log, seed: int) -> None:
    """An event id told again with another time or item counts once, and arrival order does not matter."""
    rng = random.Random(seed)
    twice = []
    for event in log.events:
        twice.append(event)
        if rng.random() < 0.3 and not event.items:
            # Within half the lateness: both copies come before the first can have left.
            ts_ms = event.ts_ms + rng.randrange(LATENESS_MS // 2)
            twice.append(event_of(wire(event)[0], event.user_id, f"i{rng.randrange(5)}", ts_ms, event.event_id))
    first_ms = {event.event_id: event.ts_ms for event in log.events}
    orders = []
    for _ in range(2):
        # Half the lateness for the delay and half for the copies' times keep all within one lateness.
        arrival = [(first_ms[event.event_id] + rng.uniform(0, LATENESS_MS // 2), event) for event in twice]
        orders.append([event for _, event in sorted(arrival, key=lambda row: row[0])])
    first, second = (folded(batches(order, seed)) for order in orders)
    oracle = oracle_of(twice)
    for user_id in first:
        state = first.get(user_id)
        assert state is not None
        assert oracle.events_applied(user_id) == state.events_applied
    assert bodies(first) == bodies(second)


@settings(max_examples=40, deadline=None)
@given(logs(), seeds)
def test_codec_round_trip(log: Log, seed: int) -> None:
    """A record read back is the same state, and writing it again gives the same bytes."""
    slab = folded([list(log.events)])
    rng = random.Random(seed)
    for user_id in slab:
        state = slab.get(user_id)
        assert state is not None
        state.pending = rng.random() < 0.5
        items = tuple((f"i{place}", rng.randrange(2**41)) for place in range(rng.randrange(21)))
        state.last_list = LastList(rng.randint(1, 2**50), rng.randrange(2**41), items) if rng.random() < 0.8 else None
        record = codec.encode(state)
        again = codec.decode(record)
        assert record == codec.encode(again)
        for name in ("recent", "hashes", "floor", "items", "excluded", "counts", "impressions", "seen", "seen_floor"):
            assert getattr(state, name) == getattr(again, name), name
        assert (state.pending, state.last_list, state.first_ts_ms) == (
            again.pending,
            again.last_list,
            again.first_ts_ms,
        )
