"""What a user's record must hold by plain loops, what it does hold, and the two compared for a whole topic."""

from __future__ import annotations

from typing import Any

from streams.interests import codec
from streams.settings import EVENT_TYPES, Settings
from streams.wire.events import Event
from tests.support.oracle import TYPES, Oracle
from tests.support.reference import Reference
from tests.support.verifier import read_topic

#: No user id holds a control character: this is a partition's own record.
_CONTROL = b"\x00"


def plain(settings: Settings, oracle: Oracle, user_id: str) -> dict[str, Any]:
    """Return what a state must hold, by plain loops."""
    recent = oracle.recent(user_id, round(settings.lateness_s * 1000))
    older = oracle.interactions(user_id)[: -len(recent)]
    tallies: dict[str, list[int]] = {}
    mass: dict[str, tuple[float, int]] = {}
    for ts_ms, _, item_id, name in older:
        tallies.setdefault(item_id, [0] * len(EVENT_TYPES))[TYPES.index(name)] += 1
        before, then_ms = mass.get(item_id, (0.0, ts_ms))
        faded = before * 2.0 ** ((then_ms - ts_ms) / (settings.half_life_long_s * 1000))
        mass[item_id] = faded + (0.0 if name == "dislikes" else settings.weights[name]), ts_ms
    return {
        "counts": oracle.events_applied(user_id),
        "recent": [(ts_ms, name_hash, item_id, TYPES.index(name)) for ts_ms, name_hash, item_id, name in recent],
        "excluded": oracle.purchased(user_id) | oracle.disliked(user_id),
        "items": {
            item_id: (tuple(counts), mass[item_id][1], round(mass[item_id][0], 9))
            for item_id, counts in tallies.items()
        },
    }


def decoded(record: bytes) -> dict[str, Any]:
    """Return the same of a record."""
    state = codec.decode(record)
    return {
        "counts": {name: int(count) for name, count in zip(EVENT_TYPES, state.counts, strict=True) if count},
        "recent": [tuple(interaction) for interaction in state.recent],
        "excluded": set(state.excluded),
        "items": {
            item_id: (tuple(tally.counts), tally.last_ts_ms, round(tally.mass, 9))
            for item_id, tally in state.items.items()
        },
    }


def bodies(settings: Settings, oracle: Oracle) -> dict[str, bytes]:
    """Return the body of every user's record as plain Python makes it, from the oracle's events in order of time."""
    reference = Reference(settings)
    for user_id in oracle.users():
        reference.fold(
            Event(TYPES.index(name), user_id, item_id, ts_ms, name_hash, "")
            for ts_ms, name_hash, item_id, name in oracle.interactions(user_id)
        )
    return reference.bodies()


def check_states(settings: Settings, oracle: Oracle) -> None:
    """Hold the newest committed record of every user on `user-state` against plain loops, and its body byte by byte."""
    newest = {read.key: read.value for read in read_topic(settings, "user-state") if read.key is not None}
    expected_bodies = bodies(settings, oracle)
    wrong = []
    for user_id in oracle.users():
        record = newest.get(user_id.encode())
        found = decoded(record) if record else None
        if (expected := plain(settings, oracle, user_id)) != found:
            parts = [name for name in expected if found is None or expected[name] != found[name]]
            wrong.append((user_id, [(name, expected[name], found and found[name]) for name in parts]))
        elif record and codec.split(record)[1] != expected_bodies[user_id]:
            wrong.append((user_id, [("body", expected_bodies[user_id], codec.split(record)[1])]))

    assert not wrong, f"{len(wrong)} of {len(oracle.users())} states are wrong: {str(wrong[0])[:4_000]}"
    assert set(oracle.users()) == {key.decode() for key in newest if not key.startswith(_CONTROL)}
