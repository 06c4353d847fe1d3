"""The record of `user-state`: golden bytes, and no damage goes unseen."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.errors import RecordFormatError
from streams.interests import codec
from streams.interests.state import Interaction, LastList, Shown, Tally, UserState

GOLDEN = Path(__file__).parent / "golden" / "user-state-v1.bin"
START_MS = 1_700_000_000_000


def golden_state() -> UserState:
    """Return the state whose bytes were written down when the format was made."""
    state = UserState()
    state.recent = [
        Interaction(START_MS + 5_000, 2**64 - 1, "b", 1),
        Interaction(START_MS + 5_000 + 2**40, 7, "\u00e9", 3),
    ]
    state.hashes = {7, 2**64 - 1}
    state.floor = (START_MS + 1_000, 99)
    state.items = {"b": Tally((1, 0, 0, 0, 0, 0), START_MS + 1_000, 0.5), "a": Tally((0, 0, 0, 0, 1, 0), START_MS, 0.0)}
    state.excluded = {"\u00e9": START_MS + 5_000 + 2**40, "a": START_MS - 1}
    state.counts = [1, 1, 0, 1, 1, 2]
    state.impressions = {"c": Shown(2, START_MS + 9)}
    state.seen = [(START_MS + 8, 3), (START_MS + 9, 2**63)]
    state.seen_floor = (START_MS + 7, 5)
    state.first_ts_ms = START_MS
    state.pending = True
    state.last_list = LastList(2**32 + 17, START_MS + 2**41, (("x", START_MS), ("y", START_MS + 2**41)))
    return state


def test_golden_bytes() -> None:
    """A state gives the bytes that were written down; a format change needs a new version."""
    assert GOLDEN.read_bytes() == codec.encode(golden_state())


def test_golden_record_reads_back() -> None:
    """The bytes that were written down give the state, field by field."""
    expected, actual = golden_state(), codec.decode(GOLDEN.read_bytes())
    for name in UserState.__slots__:
        assert getattr(expected, name) == getattr(actual, name), name


def test_body_stands_behind_the_head() -> None:
    """The body is the record's end and does not depend on what is owed or was served."""
    state = golden_state()
    body = codec.encode_body(state)
    assert GOLDEN.read_bytes().endswith(body)
    state.pending, state.last_list = False, None
    assert codec.encode(state).endswith(body)


def test_body_does_not_depend_on_insertion_order() -> None:
    """Maps are written in the order of their keys."""
    state = golden_state()
    for name in ("items", "excluded", "impressions"):
        setattr(state, name, dict(reversed(getattr(state, name).items())))
    assert codec.encode_body(golden_state()) == codec.encode_body(state)


def test_every_changed_byte_is_noticed() -> None:
    """Whichever byte of a record changes, it is refused; so is every cut and anything appended."""
    record = GOLDEN.read_bytes()
    for at in range(len(record)):
        with pytest.raises(RecordFormatError):
            codec.decode(record[:at] + bytes([record[at] ^ 0x55]) + record[at + 1 :])
        with pytest.raises(RecordFormatError):
            codec.decode(record[:at])
    with pytest.raises(RecordFormatError):
        codec.decode(record + b"\0")


def test_unknown_version_is_named() -> None:
    """A record of a later build says which version it is."""
    record = GOLDEN.read_bytes()
    with pytest.raises(RecordFormatError, match="version 2"):
        codec.decode(record[:2] + b"\x02" + record[3:])


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_any_bytes_are_refused(record: bytes) -> None:
    """Bytes that are no record are a RecordFormatError, nothing else."""
    with pytest.raises(RecordFormatError):
        codec.decode(record)


_COLUMN = st.lists(st.integers(-3, 3), max_size=3) | st.binary(max_size=17) | st.integers(0, 9) | st.none()


@settings(deadline=None)
@given(st.lists(_COLUMN | st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=18, max_size=21))
def test_sound_checksum_over_nonsense_is_refused_or_a_state(columns: list[object]) -> None:
    """Behind a right checksum, nonsense is a RecordFormatError and never another exception."""
    head, body = msgspec.msgpack.encode((0, 0, [], [])), msgspec.msgpack.encode(columns)
    prefix = struct.pack("<2sBBII", b"FU", 1, 0, len(head), len(body))
    crc = zlib.crc32(prefix + head + body)
    try:
        codec.decode(prefix + struct.pack("<I", crc) + head + body)
    except RecordFormatError:
        return
