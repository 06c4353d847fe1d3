"""
The changelog record of a user on `user-state`.

Layout, little endian: magic `FU`, format version (u8), flags (u8: bit 0 = a list is owed), length of the head (u32),
length of the body (u32), CRC-32 of all that stands before and after it (u32), head, body. Head and body are MessagePack
arrays in the field order of `_Head` and `_Body`. A body is made of columns and has one table of ids, in the order in
which the columns first name them; what has no order of its own is sorted by id: equal states give equal bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain

import msgspec

from streams.errors import RecordFormatError
from streams.interests.state import Interaction, LastList, Shown, Tally, UserState
from streams.settings import EVENT_TYPES

FORMAT_VERSION = 1
_PREFIX = struct.Struct("<2sBBII")
_CRC = struct.Struct("<I")
_MAGIC = b"FU"
_PENDING = 1
_START = _PREFIX.size + _CRC.size


class _Head(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The list served last; version 0 stands for none. `since` is ms before `generated_at`."""

    version: int
    generated_at: int
    ids: list[str]
    since: list[int]


class _Body(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Columns. `*_at` index the id table; times are ms after `first_ts`, in ordered lists after the one before."""

    first_ts: int
    counts: list[int]
    ids: list[str]
    floor: tuple[int, int]
    recent_ts: list[int]
    recent_hash: bytes
    recent_at: list[int]
    recent_type: bytes
    item_at: list[int]
    item_ts: list[int]
    item_mass: bytes
    item_counts: list[tuple[int, ...]]
    excluded_at: list[int]
    excluded_ts: list[int]
    seen_floor: tuple[int, int]
    seen_ts: list[int]
    seen_hash: bytes
    shown_at: list[int]
    shown_ts: list[int]
    shown_times: list[int]


_ENCODER = msgspec.msgpack.Encoder()
_DECODE_HEAD = msgspec.msgpack.Decoder(_Head)
_DECODE_BODY = msgspec.msgpack.Decoder(_Body)


def encode(state: UserState) -> bytes:
    """Return the record: head and body."""
    head = _encode_head(state.last_list)
    body = encode_body(state)
    flags = _PENDING if state.pending else 0
    prefix = _PREFIX.pack(_MAGIC, FORMAT_VERSION, flags, len(head), len(body))
    return prefix + _CRC.pack(_checksum(prefix, head, body)) + head + body


def encode_body(state: UserState) -> bytes:
    """Return the body alone: the same set of events gives the same bytes."""
    items, excluded, shown = sorted(state.items), sorted(state.excluded), sorted(state.impressions)
    recent_ids = [x.item_id for x in state.recent]
    at: dict[str, int] = {}
    for item_id in chain(recent_ids, items, excluded, shown):
        at.setdefault(item_id, len(at))
    tallies = [state.items[item_id] for item_id in items]
    first = state.first_ts_ms
    return _ENCODER.encode(
        _Body(
            first_ts=first,
            counts=state.counts,
            ids=list(at),
            floor=state.floor,
            recent_ts=_steps(first, [x.ts_ms for x in state.recent]),
            recent_hash=_pack("Q", [x.event_hash for x in state.recent]),
            recent_at=[at[item_id] for item_id in recent_ids],
            recent_type=bytes([x.type_code for x in state.recent]),
            item_at=[at[item_id] for item_id in items],
            item_ts=[tally.last_ts_ms - first for tally in tallies],
            item_mass=_pack("d", [tally.mass for tally in tallies]),
            item_counts=[tally.counts for tally in tallies],
            excluded_at=[at[item_id] for item_id in excluded],
            excluded_ts=[state.excluded[item_id] - first for item_id in excluded],
            seen_floor=state.seen_floor,
            seen_ts=_steps(first, [ts_ms for ts_ms, _ in state.seen]),
            seen_hash=_pack("Q", [event_hash for _, event_hash in state.seen]),
            shown_at=[at[item_id] for item_id in shown],
            shown_ts=[state.impressions[item_id].last_ts_ms - first for item_id in shown],
            shown_times=[state.impressions[item_id].times for item_id in shown],
        )
    )


def decode(record: bytes) -> UserState:
    """
    Read a record back.

    Raises
    ------
    RecordFormatError
        When the record is cut, altered, of another version, or does not hold a state.

    """
    head_end, end = check(record)
    try:
        state = _read_body(_DECODE_BODY.decode(memoryview(record)[head_end:end]))
        state.last_list = _read_head(_DECODE_HEAD.decode(memoryview(record)[_START:head_end]))
    except (msgspec.MsgspecError, struct.error, ValueError, IndexError) as error:
        raise RecordFormatError(f"a user record does not hold a state: {error}") from error
    state.pending = is_pending(record)
    return state


def check(record: bytes) -> tuple[int, int]:
    """
    Verify magic, version, lengths and checksum; return where the head and the body end.

    Raises
    ------
    RecordFormatError
        When the record is cut, altered or of another version.

    """
    if len(record) < _START:
        raise RecordFormatError(f"a user record of {len(record)} bytes is cut short")
    magic, version, _, head_bytes, body_bytes = _PREFIX.unpack_from(record)
    if magic != _MAGIC:
        raise RecordFormatError("not a user record")
    if version != FORMAT_VERSION:
        raise RecordFormatError(f"a user record of version {version}; this build reads version {FORMAT_VERSION}")
    head_end = _START + head_bytes
    end = head_end + body_bytes
    crc = _checksum(record[: _PREFIX.size], record[_START:])
    if len(record) != end or _CRC.unpack_from(record, _PREFIX.size)[0] != crc:
        raise RecordFormatError("a user record is damaged (checksum)")
    return head_end, end


def is_pending(record: bytes) -> bool:
    """Whether a checked record says that a list is owed."""
    return bool(record[3] & _PENDING)


def _checksum(*parts: bytes) -> int:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


def _steps(first: int, times: Sequence[int]) -> list[int]:
    return [now - before for before, now in zip([first, *times], times, strict=False)]


def _pack(kind: str, values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}{kind}", *values)


def _unpack_hashes(column: bytes, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}Q", column)


def _encode_head(last: LastList | None) -> bytes:
    if last is None:
        return _ENCODER.encode(_Head(0, 0, [], []))
    since = [last.generated_at_ms - since_ms for _, since_ms in last.items]
    return _ENCODER.encode(_Head(last.version, last.generated_at_ms, [item_id for item_id, _ in last.items], since))


def _read_head(head: _Head) -> LastList | None:
    if not head.version:
        return None
    since_ms = [head.generated_at - ago for ago in head.since]
    return LastList(head.version, head.generated_at, tuple(zip(head.ids, since_ms, strict=True)))


def _read_body(body: _Body) -> UserState:
    state = UserState()
    first, ids = body.first_ts, body.ids
    state.first_ts_ms = first
    if len(body.counts) != len(EVENT_TYPES):
        raise ValueError(f"{len(body.counts)} event types, {len(EVENT_TYPES)} are known")
    state.counts = body.counts
    state.floor, state.seen_floor = body.floor, body.seen_floor

    hashes = _unpack_hashes(body.recent_hash, len(body.recent_ts))
    recent_ids = _names(ids, body.recent_at)
    if not len(recent_ids) == len(hashes) == len(body.recent_type):
        raise ValueError("the columns of the interactions do not fit")
    state.recent = list(map(Interaction, _times(first, body.recent_ts), hashes, recent_ids, body.recent_type))
    state.hashes = set(hashes)

    item_ids = _names(ids, body.item_at)
    masses = struct.unpack(f"<{len(item_ids)}d", body.item_mass)
    times = [first + after for after in body.item_ts]
    state.items = dict(zip(item_ids, map(Tally, body.item_counts, times, masses), strict=True))
    if {len(counts) for counts in body.item_counts} - {len(EVENT_TYPES)} or len(times) != len(body.item_counts):
        raise ValueError("the columns of the tallies do not fit")

    excluded_ts = [first + after for after in body.excluded_ts]
    state.excluded = dict(zip(_names(ids, body.excluded_at), excluded_ts, strict=True))

    seen_hashes = _unpack_hashes(body.seen_hash, len(body.seen_ts))
    state.seen = list(zip(_times(first, body.seen_ts), seen_hashes, strict=True))
    shown = zip(_names(ids, body.shown_at), body.shown_times, body.shown_ts, strict=True)
    state.impressions = {item_id: Shown(times, first + after) for item_id, times, after in shown}
    return state


def _times(first: int, steps: Iterable[int]) -> list[int]:
    times = list(accumulate(steps, initial=first))
    return times[1:]


def _names(ids: list[str], at: list[int]) -> list[str]:
    return [ids[index] for index in at]
