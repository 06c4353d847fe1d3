"""Users who left the columns come back as they were, whatever their record holds and whoever comes back with them."""

from __future__ import annotations

import random
import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from streams.catalogue.matrix import Catalogue
from streams.errors import RecordFormatError
from streams.interests import codec
from streams.interests.budget import Budget
from streams.interests.slab import Slab
from streams.interests.state import LastList, UserState
from streams.interests.thawing import RecordReader
from streams.settings import EVENT_TYPES, Settings
from streams.wire.events import Event
from tests.property.test_interest_vectors import DIM, assert_same, by_definition, gathered, unit
from tests.support.batches import batch_of
from tests.support.reference import body_of
from tests.support.strategies import LATENESS_MS, START_MS, Log, batches, event_of, logs, seeds

SETTINGS = Settings(lateness_s=LATENESS_MS / 1000)


def new_slab(catalogue: Catalogue, max_hot_users: int = 10**6) -> Slab:
    """An empty slab with room for so many hot users."""
    return Slab(SETTINGS, catalogue, Budget(max_hot_users, 2**40))


def commit(slab: Slab) -> None:
    """Take the changed users' records as written: then they may leave the columns."""
    rows = slab.take_changed()
    slab.copy(rows, slab.store.users["owed"][rows])


def serve(slab: Slab, user_id: str, served: LastList) -> None:
    """Serve a user a list."""
    row = slab.row(user_id)
    assert row is not None
    slab.serve(row, served)


def records(slab: Slab) -> dict[str, bytes]:
    """Return the record of every user."""
    return {user_id: slab.encode(user_id) for user_id in sorted(slab)}


@settings(max_examples=40, deadline=None)
@given(logs(), seeds, st.integers(1, 3))
def test_a_slab_without_room_writes_what_a_roomy_one_does(log: Log, seed: int, max_hot_users: int) -> None:
    """Users who come and go with every run have the records and the vectors of users who stay."""
    rng = random.Random(seed)
    catalogue = Catalogue(DIM)
    for item_id in {event.item_id for event in log.events}:
        catalogue.set_vector(item_id, unit(rng))
    strangers = [event_of("clicks", f"x{number}", "i0", START_MS, "x") for number in range(4)]
    roomy, tight = new_slab(catalogue), new_slab(catalogue, max_hot_users)
    for part in batches(log.arrival(seed), seed):
        for slab in (roomy, tight):
            slab.fold(batch_of(part))
            commit(slab)
            slab.fold(batch_of(strangers))
        if rng.random() < 0.3:
            items = tuple((f"i{n}", n) for n in range(rng.randrange(21)))
            last = LastList(rng.randint(1, 2**50), START_MS, items, START_MS, 2, ())
            for slab in (roomy, tight):
                serve(slab, part[0].user_id, last)
                commit(slab)
    users = sorted(roomy)
    states = [codec.decode(record) for record in records(tight).values()]

    assert records(roomy) == records(tight)
    for state, stayed, came in zip(states, gathered(roomy, users), gathered(tight, users), strict=True):
        assert_same(by_definition(state, catalogue, SETTINGS), stayed)
        assert_same(by_definition(state, catalogue, SETTINGS), came)
    tight.close()
    assert (0, 0) == (tight.budget.hot_users, tight.budget.state_bytes)


@settings(max_examples=40, deadline=None)
@given(st.lists(logs(120), min_size=1, max_size=6), seeds)
def test_many_come_back_at_once(several: list[Log], seed: int) -> None:
    """Users of restored records who are met in one run have the same records still, all read by compiled code."""
    rng = random.Random(seed)
    source, restored = new_slab(Catalogue(2)), new_slab(Catalogue(2))
    events: dict[str, Event] = {}
    for number, log in enumerate(several):
        told = [replace(event, user_id=f"{event.user_id}-{number}") for event in log.events]
        source.fold(batch_of(told))
        events |= {event.user_id: event for event in told}
    for user_id in sorted(source):
        if rng.random() < 0.5:
            items = tuple((f"i{place}", rng.randrange(2**41)) for place in range(rng.randrange(21)))
            serve(source, user_id, LastList(rng.randint(1, 2**50), rng.randrange(2**41), items, START_MS, 2, ()))
        restored.restore(user_id.encode(), source.encode(user_id))
    read = RecordReader(Catalogue(2)).read(list(records(source).values()))
    result = restored.fold(batch_of(list(events.values())))

    assert {} == read.states
    assert not result.applied
    assert restored.budget.hot_users == len(events)
    assert records(source) == records(restored)


def a_body(
    ids: list[bytes],
    recent: list[tuple[int, int, int]],
    tallies: list[tuple[bytes, bytes, list[bytes]]],
    behind: bytes = b"",
) -> bytes:
    """Return a body of varints of one byte: interactions (step, place, type), tallies (place, after, counts)."""
    sizes = (len(recent), len(tallies), len(ids), 0)
    return b"".join(
        (
            struct.pack("<qqqQq6I4H", START_MS, START_MS, 0, 0, 0, *range(len(EVENT_TYPES)), *sizes),
            *(bytes([len(item_id)]) + item_id for item_id in ids),
            *(bytes(column) for column in zip(*recent, strict=True)),
            struct.pack(f"<{len(recent)}Q", *range(len(recent))),
            *(place + after + b"".join(counts) for place, after, counts in tallies),
            struct.pack(f"<{len(tallies)}d", *(0.5 + number for number in range(len(tallies)))),
            behind,
        )
    )


ONES = [b"\1"] * len(EVENT_TYPES)
#: A margin that names three excluded items and two times.
UNEVEN = b"\x98\x93\xa1a\xa1b\xa1c\x92\1\2\x92\0\0\x90\x90\x90\x90\x90"
#: As its name says: what the definition reads, and `layout` would not have written.
UNUSUAL = {
    "an id that nobody names": a_body([b"a", b"b"], [(1, 0, 1)], []),
    "ids in another order": a_body([b"a", b"b"], [(1, 1, 1), (2, 0, 1)], []),
    "an id twice": a_body([b"a", b"a"], [(1, 0, 1), (2, 1, 1)], []),
    "an item with two tallies": a_body([b"a", b"a"], [], [(b"\0", b"\1", ONES), (b"\1", b"\2", ONES)]),
    "a place with two tallies": a_body([b"a"], [], [(b"\0", b"\1", ONES), (b"\0", b"\2", ONES)]),
    "a varint of many bytes": a_body([b"a"], [], [(b"\x80\x80\x80\x80\x80\x80\x80\0", b"\1", ONES)]),
    "a margin with nothing in it": a_body([], [], [], codec.encode_margin({}, (0, 0), [(1, 2)], {})[:-1] + b"\x90"),
}
#: What the definition refuses.
NO_STATES = {
    "an id that is no text": a_body([b"\xff"], [(1, 0, 1)], []),
    "an id that is cut": a_body([b"a"], [], [])[:-1],
    "a place behind the ids": a_body([b"a"], [(1, 1, 1)], []),
    "an unknown type": a_body([b"a"], [(1, 0, len(EVENT_TYPES))], []),
    "too many interactions": a_body([b"a"], [(1, 0, 1)] * 257, []),
    "a time beyond 64 bits": a_body([b"a"], [], [(b"\0", b"\xff" * 9 + b"\1", ONES)]),
    "a count beyond 32 bits": a_body([b"a"], [], [(b"\0", b"\1", [*ONES[1:], b"\xff\xff\xff\xff\x08"])]),
    "a margin cut short": a_body([b"a"], [(1, 0, 1)], [], UNEVEN[:-1]),
    "a margin that does not fit": a_body([b"a"], [(1, 0, 1)], [], UNEVEN),
    "no body": b"",
}


def told(state: UserState | None) -> list[str]:
    """Return what a state holds, but for the mark of an erasure, which the slab keeps elsewhere; NaN is NaN."""
    return [repr(getattr(state, name)) for name in UserState.__slots__ if name != "erased_at_ms"]


def assert_read_as_defined(head: bytes, body: bytes) -> None:
    """Met with others, the user of this record has the state that the definition tells, or is refused."""
    users = ["u", "v", "w"]
    source, slab = new_slab(Catalogue(2)), new_slab(Catalogue(2))
    source.fold(batch_of([event_of("clicks", user_id, "i", START_MS, "e") for user_id in users]))
    record = codec.seal(head, body, pending=True, erased=False)
    for user_id in users:
        slab.restore(user_id.encode(), record if user_id == "v" else source.encode(user_id))
    try:
        expected = codec.decode(record)
    except RecordFormatError as error:
        with pytest.raises(RecordFormatError, match=re.escape(str(error))):
            slab._rows(users)
        assert (0, 3) == (slab.budget.hot_users, len(slab))
        return
    rows = slab._rows(users)
    assert [slab.row(user_id) for user_id in users] == rows.tolist()
    assert told(expected) == told(slab.get("v"))
    assert [source.encode(user_id) for user_id in "uw"] == [slab.encode(user_id) for user_id in "uw"]


@pytest.mark.parametrize("body", UNUSUAL.values(), ids=UNUSUAL)
def test_what_nobody_wrote_is_read_by_the_definition(body: bytes) -> None:
    """A body that compiled code refuses still has the state that plain Python reads."""
    codec.decode(codec.seal(codec.NO_HEAD, body, pending=False, erased=False))
    assert_read_as_defined(codec.NO_HEAD, body)


@pytest.mark.parametrize("body", NO_STATES.values(), ids=NO_STATES)
def test_no_states_are_refused(body: bytes) -> None:
    """Behind a right checksum there may be no state: that is told, and nobody of the run gets a row."""
    with pytest.raises(RecordFormatError, match="does not hold a state"):
        codec.decode(codec.seal(codec.NO_HEAD, body, pending=False, erased=False))
    assert_read_as_defined(codec.NO_HEAD, body)


@pytest.mark.parametrize("head", [b"", b"\xc1", b"\x94\1\1\x91\xa1a\x90", codec.NO_HEAD + b"\0"])
def test_heads_that_are_none_are_refused(head: bytes) -> None:
    """Nothing, nonsense, an item without its time, and more than a head are no head."""
    assert_read_as_defined(head, body_of(UserState()))


@settings(max_examples=150, deadline=None)
@given(logs(120), st.data())
def test_changed_bytes_are_read_as_defined(log: Log, data: st.DataObject) -> None:
    """A body with bytes changed, cut or added behind a right checksum is what the definition says, or refused."""
    source = new_slab(Catalogue(2))
    source.fold(batch_of([replace(event, user_id="u") for event in log.events]))
    head, body = codec.split(source.encode("u"))
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from((len(body), data.draw(st.integers(0, len(body))))))
    assert_read_as_defined(head, bytes(changed[:cut]) + data.draw(st.binary(max_size=9)))
