"""The record of `user-state`: golden bytes, and no damage goes unseen."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.catalogue.matrix import Catalogue
from streams.errors import RecordFormatError
from streams.interests import codec
from streams.interests.slab import Slab
from streams.interests.state import Interaction, LastList, Shown, Tally, UserState
from streams.settings import Settings
from tests.support.reference import body_of, head_of

GOLDEN = Path(__file__).parent / "golden"
VERSION_1, VERSION_2, VERSION_3, VERSION_4 = (GOLDEN / f"user-state-v{version}.bin" for version in (1, 2, 3, 4))
START_MS = 1_700_000_000_000


def golden_state() -> UserState:
    """Return the state whose bytes were written down when each format was made."""
    state = UserState()
    state.recent = [
        Interaction(START_MS + 5_000, 2**64 - 1, "b", 1),
        Interaction(START_MS + 5_000 + 2**40, 7, "\u00e9", 3),
    ]
    state.floor = (START_MS + 1_000, 99)
    state.items = {"b": Tally((1, 0, 0, 0, 0, 0), START_MS + 1_000, 0.5), "a": Tally((0, 0, 0, 0, 1, 0), START_MS, 0.0)}
    state.excluded = {"\u00e9": START_MS + 5_000 + 2**40, "a": START_MS - 1}
    state.counts = [1, 1, 0, 1, 1, 2]
    state.impressions = {"c": Shown(2, START_MS + 9)}
    state.seen = [(START_MS + 8, 3), (START_MS + 9, 2**63)]
    state.seen_floor = (START_MS + 7, 5)
    state.first_ts_ms = START_MS
    state.device = 255
    state.pending = True
    made_ms = START_MS + 2**41
    state.last_list = LastList(2**32 + 17, made_ms, (("x", START_MS), ("y", made_ms)), made_ms - 9, 4, (7, 2**16 - 1))
    return state


def state_before(version: int) -> UserState:
    """Return the same state as a record of an earlier version has it: without device, and what a list was made of."""
    state = golden_state()
    if version < 4:
        state.device = 0
    if version < 3:
        assert state.last_list is not None
        made_ms = state.last_list.generated_at_ms
        state.last_list = state.last_list._replace(newest_ms=made_ms, events=0, price_marks=())
    return state


def rewritten(record: bytes) -> bytes:
    """Return what a slab writes for a record it restored."""
    slab = Slab(Settings(), Catalogue(2))
    slab.restore(b"u", record)
    assert slab.row("u") is not None
    return slab.encode("u")


def test_golden_bytes() -> None:
    """A state gives the bytes that were written down; a format change needs a new version."""
    state = golden_state()
    assert VERSION_4.read_bytes() == codec.seal(head_of(state), body_of(state), pending=True, erased=False)
    assert VERSION_4.read_bytes() == rewritten(VERSION_4.read_bytes())


def test_without_a_device_the_version_before_is_written() -> None:
    """Where no device is known, workers from before there were any read the record."""
    state = state_before(3)
    assert VERSION_3.read_bytes() == codec.seal(head_of(state), body_of(state), pending=True, erased=False)
    assert VERSION_3.read_bytes() == rewritten(VERSION_3.read_bytes())


@pytest.mark.parametrize(("golden", "version"), [(VERSION_1, 1), (VERSION_2, 2), (VERSION_3, 3), (VERSION_4, 4)])
def test_golden_records_read_back(golden: Path, version: int) -> None:
    """The bytes that were written down give the state, field by field: this version's, and those before it."""
    expected, actual = state_before(version), codec.decode(golden.read_bytes())
    for name in UserState.__slots__:
        assert getattr(expected, name) == getattr(actual, name), name


@pytest.mark.parametrize(("golden", "version"), [(VERSION_1, 1), (VERSION_2, 2)])
def test_the_versions_before_are_taken_over(golden: Path, version: int) -> None:
    """A restored record of an earlier version becomes one of this of the same state with the user's next event."""
    written = rewritten(golden.read_bytes())
    again = codec.decode(written)
    assert 3 == written[2]
    for name in UserState.__slots__:
        assert getattr(state_before(version), name) == getattr(again, name), name


def test_body_stands_behind_the_head() -> None:
    """The body is the record's end and does not depend on what is owed or was served."""
    state = state_before(3)
    body = body_of(state)
    assert VERSION_3.read_bytes().endswith(body)
    assert VERSION_2.read_bytes().endswith(body)
    state.pending, state.last_list = False, None
    assert codec.seal(head_of(state), body, pending=False, erased=False).endswith(body)


def test_what_is_read_without_decoding() -> None:
    """The time of the newest event and of an erasure stand where they are looked for."""
    record = VERSION_3.read_bytes()
    assert golden_state().newest_ts_ms == codec.newest_ts_ms(record)
    assert golden_state().newest_ts_ms == codec.newest_ts_ms(VERSION_2.read_bytes())
    assert 0 == codec.newest_ts_ms(VERSION_1.read_bytes())
    state = golden_state()
    state.erased_at_ms = START_MS + 3
    erased = codec.seal(head_of(state), body_of(state), pending=False, erased=True)
    assert (0, START_MS + 3) == (codec.erased_at_ms(record), codec.erased_at_ms(erased))


def test_every_changed_byte_is_noticed() -> None:
    """Whichever byte of a record changes, it is refused; so is every cut and anything appended."""
    record = VERSION_4.read_bytes()
    for at in range(len(record)):
        with pytest.raises(RecordFormatError):
            codec.decode(record[:at] + bytes([record[at] ^ 0x55]) + record[at + 1 :])
        with pytest.raises(RecordFormatError):
            codec.decode(record[:at])
    with pytest.raises(RecordFormatError):
        codec.decode(record + b"\0")


def test_unknown_version_is_named() -> None:
    """A record of a later build says which version it is."""
    record = VERSION_3.read_bytes()
    with pytest.raises(RecordFormatError, match="version 5"):
        codec.decode(record[:2] + b"\x05" + record[3:])


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_any_bytes_are_refused(record: bytes) -> None:
    """Bytes that are no record are a RecordFormatError, nothing else."""
    with pytest.raises(RecordFormatError):
        codec.decode(record)


_COLUMN = st.lists(st.integers(-3, 3), max_size=3) | st.binary(max_size=17) | st.integers(0, 9) | st.none()


def read_both_ways(version: int, body: bytes) -> None:
    """Read a body behind a right checksum, by plain Python and by a slab; only RecordFormatError may come of it."""
    head = codec.NO_HEAD
    prefix = struct.pack("<2sBBII", b"FU", version, 0, len(head), len(body))
    crc = zlib.crc32(prefix + head + body)
    record = prefix + struct.pack("<I", crc) + head + body
    for read in (codec.decode, rewritten):
        try:
            read(record)
        except RecordFormatError:
            continue


@settings(deadline=None)
@given(st.lists(_COLUMN | st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=18, max_size=21))
def test_nonsense_of_version_1_is_refused_or_a_state(columns: list[object]) -> None:
    """Behind a right checksum, nonsense is a RecordFormatError and never another exception."""
    read_both_ways(1, msgspec.msgpack.encode(columns))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_nonsense_of_version_4_is_refused_or_a_state(data: st.DataObject) -> None:
    """A body with bytes changed, cut or added is a RecordFormatError or some state, and never harms the process."""
    body = bytearray(body_of(golden_state()))
    for _ in range(data.draw(st.integers(0, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    read_both_ways(4, bytes(body[:cut]) + data.draw(st.binary(max_size=9)))
