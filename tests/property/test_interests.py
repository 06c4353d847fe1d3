"""The body of a user's record is a function of the set of events: order, copies, batches and crashes do not matter."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings

from streams.catalogue.matrix import Catalogue
from streams.interests import codec
from streams.interests.fold import APPLIED
from streams.interests.slab import Slab
from streams.interests.state import LastList
from streams.settings import Settings
from streams.wire.events import Event
from tests.support.batches import batch_of
from tests.support.oracle import TYPES, Oracle
from tests.support.reference import Reference, body_of, head_of
from tests.support.strategies import LATENESS_MS, Log, batches, event_of, logs, seeds, wire

SETTINGS = Settings(lateness_s=LATENESS_MS / 1000, user_devices=("phone", "tablet"))


def new_slab() -> Slab:
    """A slab with a catalogue of its own: rows of items differ from slab to slab, and must not matter."""
    catalogue = Catalogue(4)
    catalogue.rows([f"i{number}" for number in random.sample(range(400), 200)])
    return Slab(SETTINGS, catalogue)


def folded(parts: list[list[Event]]) -> Slab:
    """Fold batch by batch into a new slab."""
    slab = new_slab()
    for part in parts:
        slab.fold(batch_of(part, SETTINGS.user_devices))
    return slab


def bodies(slab: Slab) -> dict[str, bytes]:
    """Return the body of every user."""
    return {user_id: codec.split(slab.encode(user_id))[1] for user_id in slab}


def oracle_of(events: tuple[Event, ...] | list[Event]) -> Oracle:
    """Tell the oracle everything."""
    oracle = Oracle()
    for event in events:
        oracle.add(*wire(event))
    return oracle


@settings(max_examples=60, deadline=None)
@given(logs(), seeds)
def test_any_arrival_gives_the_same_bytes(log: Log, seed: int) -> None:
    """Disorder within lateness, up to three copies and any batching give the body that plain loops give."""
    reference = Reference(SETTINGS)
    reference.fold(log.events)
    assert reference.bodies() == bodies(folded([list(log.events)]))
    assert reference.bodies() == bodies(folded(batches(log.arrival(seed), seed)))


@settings(max_examples=40, deadline=None)
@given(logs(), seeds)
def test_crash_and_restore_give_the_same_bytes(log: Log, seed: int) -> None:
    """A worker that dies between commits, restores its records and reads on from its offset ends where others do."""
    rng = random.Random(seed)
    parts = batches(log.arrival(seed), seed)
    changelog: dict[bytes, bytes] = {}
    slab, at, committed = new_slab(), 0, 0
    crashes = 0
    while at < len(parts):
        slab.fold(batch_of(parts[at], SETTINGS.user_devices))
        at += 1
        fate = rng.random()
        if fate < 0.4:
            rows = slab.take_changed()
            changelog |= dict(slab.copy(rows, [False] * len(rows)).records())
            committed = at
        elif fate < 0.6 and crashes < 20:
            crashes += 1
            slab, at = new_slab(), committed
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
        assert expected == [tuple(interaction) for interaction in state.recent]
        assert oracle.disliked(user_id) | oracle.purchased(user_id) == set(state.excluded)
        older = len(oracle.interactions(user_id)) - len(expected)
        if len({entry[2] for entry in oracle.interactions(user_id)}) <= 256:
            assert older == sum(sum(tally.counts) for tally in state.items.values())


@settings(max_examples=40, deadline=None)
@given(logs(), seeds)
def test_each_event_is_accepted_once(log: Log, seed: int) -> None:
    """What the runs report as accepted is the set of events, each once; copies are told apart."""
    slab = new_slab()
    accepted: list[str] = []
    copies = 0
    for part in batches(log.arrival(seed), seed):
        batch = batch_of(part, SETTINGS.user_devices)
        result = slab.fold(batch)
        accepted += [batch.event_ids[at] for at in np.flatnonzero(result.outcome == APPLIED).tolist()]
        copies += result.late.total() + result.duplicates.total()
    acted = [event.event_id for event in log.events if not event.items]
    assert sorted(acted) == sorted(accepted)
    assert len(log.arrival(seed)) - len(log.events) == copies


@settings(max_examples=40, deadline=None)
@given(logs(), seeds)
def test_copies_that_differ_are_one_event(log: Log, seed: int) -> None:
    """An event id told again with another time, item or device counts once, and arrival order does not matter."""
    rng = random.Random(seed)
    twice = []
    for event in log.events:
        twice.append(event)
        if rng.random() < 0.3 and not event.items:
            # Within half the lateness: both copies come before the first can have left.
            ts_ms = event.ts_ms + rng.choice((0, rng.randrange(LATENESS_MS // 2)))
            item_id = rng.choice((event.item_id, f"i{rng.randrange(5)}"))
            device = rng.choice(("", *SETTINGS.user_devices, "watch"))
            twice.append(event_of(wire(event)[0], event.user_id, item_id, ts_ms, event.event_id, device=device))
    first_ms = {event.event_id: event.ts_ms for event in log.events}
    orders = []
    for _ in range(2):
        # Half the lateness for the delay and half for the copies' times keep all within one lateness.
        arrival = [(first_ms[event.event_id] + rng.uniform(0, LATENESS_MS // 2), event) for event in twice]
        orders.append([event for _, event in sorted(arrival, key=lambda row: row[0])])
    first, second = (folded(batches(order, seed)) for order in orders)
    oracle = oracle_of(twice)
    reference = Reference(SETTINGS)
    reference.fold(orders[0])
    assert reference.bodies() == bodies(first)
    for user_id in first:
        state = first.get(user_id)
        assert state is not None
        assert oracle.events_applied(user_id) == state.events_applied
    assert bodies(first) == bodies(second)


@settings(max_examples=40, deadline=None)
@given(logs(), seeds)
def test_codec_round_trip(log: Log, seed: int) -> None:
    """A record read back by plain Python is the same state, and a slab that restores it writes the same bytes."""
    slab = folded([list(log.events)])
    rng = random.Random(seed)
    restored = new_slab()
    for user_id in list(slab):
        row = slab.row(user_id)
        assert row is not None
        items = tuple((f"i{place}", rng.randrange(2**41)) for place in range(rng.randrange(21)))
        if rng.random() < 0.8:
            marks = tuple(rng.randrange(1, 2**16) for _ in items) if rng.random() < 0.5 else ()
            slab.serve(
                row, LastList(rng.randint(1, 2**50), rng.randrange(2**41), items, rng.randrange(2**41), 3, marks)
            )
        record = slab.encode(user_id)
        state = codec.decode(record)
        assert record == codec.seal(head_of(state), body_of(state), pending=False, erased=False)
        restored.restore(user_id.encode(), record)
        assert restored.row(user_id) is not None
        assert record == restored.encode(user_id)
