"""
The changelog record of a user on `user-state`.

Layout, little endian: magic `FU`, format version (u8), flags (u8: bit 0 = a list is owed, bit 1 = the user was erased
once), length of the head (u32), length of the body (u32), CRC-32 of all that stands before and after it (u32), head,
body. The head is the MessagePack of the list served last. Where nothing is left of an erased user but the mark of it,
bit 0 says that the cache has still to forget the user.

Body of versions 2 to 4. Fixed part (72 bytes): first_ts, newest_ts, floor_ts (i64), floor_hash (u64), erased_at (i64),
counts by type (6 x u32), number of interactions, of tallies and of ids (u16 each), code of the newest interaction's
device (u16). Then
- ids: length (u8) and UTF-8, in the order in which the parts below first name them;
- interactions, oldest first, column by column: ms since the one before (varints; the first since first_ts), ids
  (varints), types (u8), hashes (u64);
- tallies, in the order in which items first left `recent`: for each its id, its last time since first_ts and its counts
  by type (varints), then all masses (f64);
- if anything follows, the MessagePack of the user's margin: exclusions and impressions.
The same set of events gives the same body. Bodies are written by `layout`, compiled; those of version 1 are read by
`codec_v1`. A head from version 3 on also says as of which events its list was made, and under which prices. Version 4
is that of users whose device is known; others are written as version 3, where the code is 0.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import msgspec

from models.segments import OTHER_DEVICE
from streams.errors import RecordFormatError
from streams.interests import codec_v1
from streams.interests.columns import RECENT_MAX, TALLIES_MAX
from streams.interests.state import Interaction, LastList, Shown, Tally, UserState
from streams.settings import EVENT_TYPES
from streams.wire.limits import MAX_ID_BYTES

FORMAT_VERSION: Final = 3
DEVICE_VERSION: Final = 4
#: What this build reads: its own version and those before, so that a rolling upgrade needs no pause.
READABLE: Final = (1, 2, 3, 4)
#: Versions from this one on have the same body.
SAME_BODY_FROM: Final = 2

MAGIC: Final = b"FU"
_PREFIX = struct.Struct("<2sBBII")
_CRC = struct.Struct("<I")
#: Where the head stands: behind the prefix and the checksum.
START: Final = _PREFIX.size + _CRC.size
FIXED: Final = struct.Struct("<qqqQq6I4H")
#: Where single fields of the fixed part stand.
NEWEST_TS_AT: Final = 8
ERASED_AT_AT: Final = 32
_DEVICE_AT: Final = FIXED.size - 2

_I64 = struct.Struct("<q")
_PENDING = 1
_ERASED = 2


class Head(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """
    The list served last; version 0 stands for none.

    Attributes
    ----------
    since, newest
        ms before `generated_at`; `newest` is 0 for a list of version 2.
    price_marks
        u16 each, little endian; empty where no price was known.
    explored
        Only written for lists that are not certain: rank of the exploration slot, and propensity.

    """

    version: int
    generated_at: int
    ids: list[str]
    since: list[int]
    newest: int = 0
    events: int = 0
    price_marks: bytes = b""
    explored: tuple[int, int] = (0, 0)


class Margin(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Exclusions and impressions as columns, sorted by id; times are ms since the epoch."""

    excluded: list[str]
    excluded_ts: list[int]
    seen_floor: tuple[int, int]
    seen_ts: list[int]
    seen_hash: list[int]
    shown: list[str]
    shown_ts: list[int]
    shown_times: list[int]

    def excluded_items(self) -> dict[str, int]:
        """Return the excluded items and when each was last."""
        return dict(zip(self.excluded, self.excluded_ts, strict=True))

    def seen(self) -> list[tuple[int, int]]:
        """Return time and hash of the newest impressions."""
        return list(zip(self.seen_ts, self.seen_hash, strict=True))

    def impressions(self) -> dict[str, Shown]:
        """Return how often and when last items were rendered."""
        return dict(zip(self.shown, map(Shown, self.shown_times, self.shown_ts), strict=True))


_ENCODER = msgspec.msgpack.Encoder()
_DECODE_HEAD = msgspec.msgpack.Decoder(Head)
_DECODE_MARGIN = msgspec.msgpack.Decoder(Margin)
#: As every version writes it.
NO_HEAD: Final = _ENCODER.encode((0, 0, (), ()))
_NO_LIST: Final = Head(0, 0, [], [])


def seal(head: bytes, body: bytes, *, pending: bool, erased: bool) -> bytes:
    """Return the record: prefix, checksum, head and body."""
    flags = (_PENDING if pending else 0) | (_ERASED if erased else 0)
    version = DEVICE_VERSION if any(body[_DEVICE_AT : FIXED.size]) else FORMAT_VERSION
    prefix = _PREFIX.pack(MAGIC, version, flags, len(head), len(body))
    crc = zlib.crc32(body, zlib.crc32(head, zlib.crc32(prefix)))
    return b"".join((prefix, _CRC.pack(crc), head, body))


def check(record: bytes) -> tuple[int, int, int]:
    """
    Verify magic, version, lengths and checksum; return the version, and where the head and the body end.

    Raises
    ------
    RecordFormatError
        When the record is cut, altered or of a version this build does not read.

    """
    if len(record) < START:
        raise RecordFormatError(f"a user record of {len(record)} bytes is cut short")
    magic, version, _, head_bytes, body_bytes = _PREFIX.unpack_from(record)
    if magic != MAGIC:
        raise RecordFormatError("not a user record")
    if version not in READABLE:
        raise RecordFormatError(f"a user record of version {version}; this build reads versions {READABLE}")
    head_end = START + head_bytes
    end = head_end + body_bytes
    crc = zlib.crc32(memoryview(record)[START:], zlib.crc32(record[: _PREFIX.size]))
    if len(record) != end or _CRC.unpack_from(record, _PREFIX.size)[0] != crc:
        raise RecordFormatError("a user record is damaged (checksum)")
    return version, head_end, end


def is_pending(record: bytes) -> bool:
    """Whether a checked record says that a list is owed."""
    return bool(record[3] & _PENDING)


def erased_at_ms(record: bytes) -> int:
    """Return when the user of a checked record was erased last, 0 for never."""
    if not record[3] & _ERASED:
        return 0
    erased: int = _I64.unpack_from(record, START + _head_bytes(record) + ERASED_AT_AT)[0]
    return erased


def is_mark(record: bytes) -> bool:
    """Whether a checked record holds nothing but the time of an erasure."""
    return bool(record[3] & _ERASED) and len(record) == START + len(NO_HEAD) + FIXED.size


def mark(erased_at_ms: int, *, pending: bool) -> bytes:
    """Return the record of a user of whom nothing is left but the mark; `pending` while the cache holds more."""
    body = FIXED.pack(0, 0, 0, 0, erased_at_ms, *([0] * len(EVENT_TYPES)), 0, 0, 0, 0)
    return seal(NO_HEAD, body, pending=pending, erased=True)


def newest_ts_ms(record: bytes) -> int:
    """Return the time of the newest interaction in a checked record; 0 where the record does not say."""
    if record[2] < SAME_BODY_FROM:
        return 0
    newest: int = _I64.unpack_from(record, START + _head_bytes(record) + NEWEST_TS_AT)[0]
    return newest


def _head_bytes(record: bytes) -> int:
    head_bytes: int = _PREFIX.unpack_from(record)[3]
    return head_bytes


def decode(record: bytes) -> UserState:
    """
    Read a record of any readable version.

    Raises
    ------
    RecordFormatError
        When the record is cut, altered, of another version, or does not hold a state.

    """
    version, head_end, end = check(record)
    try:
        read = codec_v1.decode_body if version == 1 else decode_body
        state = _within_limits(read(record[head_end:end]))
        state.last_list = decode_head(record[START:head_end])
    except (msgspec.MsgspecError, struct.error, ValueError, IndexError, OverflowError) as error:
        raise RecordFormatError(f"a user record does not hold a state: {error}") from error
    state.pending = is_pending(record)
    return state


def _within_limits(state: UserState) -> UserState:
    """Refuse what no slab ever wrote: compiled code counts on these limits."""
    if len(state.recent) > RECENT_MAX or len(state.items) > TALLIES_MAX:
        raise ValueError(f"{len(state.recent)} interactions and {len(state.items)} tallies")
    ids = [interaction.item_id for interaction in state.recent] + list(state.items)
    if max((len(item_id.encode()) for item_id in ids), default=0) > MAX_ID_BYTES:
        raise ValueError("an id is too long")
    times = [interaction.ts_ms for interaction in state.recent] + [tally.last_ts_ms for tally in state.items.values()]
    struct.pack(f"<qQ{len(times) + 1}q", *state.floor, state.first_ts_ms, *times)
    struct.pack(f"<{len(EVENT_TYPES)}I", *state.counts)
    counts = [count for tally in state.items.values() for count in tally.counts]
    struct.pack(f"<{len(counts)}i", *counts)
    return state


def head_of(record: bytes) -> bytes:
    """Return the head of a checked record."""
    return record[START : START + _head_bytes(record)]


def split(record: bytes) -> tuple[bytes, bytes]:
    """Return head and body of a checked record."""
    head_end = START + _head_bytes(record)
    return record[START:head_end], record[head_end:]


def encode_head(last: LastList | None) -> bytes:
    """Return the head that stands for a list."""
    if last is None:
        return NO_HEAD
    made_ms = last.generated_at_ms
    ids, since = [item_id for item_id, _ in last.items], [made_ms - since_ms for _, since_ms in last.items]
    marks = struct.pack(f"<{len(last.price_marks)}H", *last.price_marks) if any(last.price_marks) else b""
    head = (last.version, made_ms, ids, since, made_ms - last.newest_ms, last.events, marks)
    return _ENCODER.encode((*head, last.explored) if last.explored[0] else head)


def decode_head(head: bytes) -> LastList | None:
    """Return the list a head stands for; raises msgspec's errors, or ValueError where the columns do not fit."""
    read = read_head(head)
    if not read.version:
        return None
    made_ms = read.generated_at
    items = tuple(zip(read.ids, [made_ms - ago for ago in read.since], strict=True))
    marks = struct.unpack(f"<{len(read.price_marks) // 2}H", read.price_marks)
    return LastList(read.version, made_ms, items, made_ms - read.newest, read.events, marks, read.explored)


def read_head(head: bytes) -> Head:
    """Return the columns of a head; raises what `decode_head` raises, and is much faster."""
    if head == NO_HEAD:
        return _NO_LIST
    read = _DECODE_HEAD.decode(head)
    if read.version and not (len(read.ids) == len(read.since) and len(read.price_marks) in {0, 2 * len(read.ids)}):
        raise ValueError("the columns of the list do not fit")
    return read


def encode_margin(
    excluded: Mapping[str, int],
    seen_floor: tuple[int, int],
    seen: Sequence[tuple[int, int]],
    impressions: Mapping[str, Shown],
) -> bytes:
    """Return a margin's bytes; empty for a user who was never shown anything and excluded nothing."""
    if not (excluded or seen or impressions):
        return b""
    excluded_ids, shown_ids = sorted(excluded), sorted(impressions)
    return _ENCODER.encode(
        Margin(
            excluded=excluded_ids,
            excluded_ts=[excluded[item_id] for item_id in excluded_ids],
            seen_floor=seen_floor,
            seen_ts=[ts_ms for ts_ms, _ in seen],
            seen_hash=[event_hash for _, event_hash in seen],
            shown=shown_ids,
            shown_ts=[impressions[item_id].last_ts_ms for item_id in shown_ids],
            shown_times=[impressions[item_id].times for item_id in shown_ids],
        )
    )


def decode_body(body: bytes) -> UserState:
    """Read a body of version 2 to 4; raises ValueError, IndexError, struct.error or msgspec's errors for others."""
    state = UserState()
    fixed = FIXED.unpack_from(body)
    state.first_ts_ms, _, floor_ts_ms, floor_hash, state.erased_at_ms = fixed[:5]
    state.floor = (floor_ts_ms, floor_hash)
    state.counts = list(fixed[5:11])
    interactions, tallies, names, state.device = fixed[11:]
    if state.device > OTHER_DEVICE:
        raise ValueError("a device of an unknown code")
    reader = _Reader(body, FIXED.size)
    ids = [reader.text() for _ in range(names)]
    steps = [reader.varint() for _ in range(interactions)]
    places = [reader.varint() for _ in range(interactions)]
    types = [reader.byte() for _ in range(interactions)]
    hashes = reader.unpack(f"<{interactions}Q")
    times = list(accumulate(steps, initial=state.first_ts_ms))[1:]
    state.recent = list(map(Interaction, times, hashes, [ids[place] for place in places], types))
    sums = [(ids[reader.varint()], reader.varint(), [reader.varint() for _ in EVENT_TYPES]) for _ in range(tallies)]
    for (item_id, after, counts), mass in zip(sums, reader.unpack(f"<{tallies}d"), strict=True):
        state.items[item_id] = Tally(tuple(counts), state.first_ts_ms + after, mass)
    if any(interaction.type_code >= len(EVENT_TYPES) for interaction in state.recent):
        raise ValueError("an interaction of an unknown type")
    if reader.at < len(body):
        margin = decode_margin(body[reader.at :])
        state.excluded = margin.excluded_items()
        state.seen_floor = margin.seen_floor
        state.seen, state.impressions = margin.seen(), margin.impressions()
    return state


def decode_margin(margin: bytes) -> Margin:
    """Return the columns of a margin; raises msgspec's errors, or ValueError where they do not fit."""
    read = _DECODE_MARGIN.decode(margin)
    if not (
        len(read.excluded) == len(read.excluded_ts)
        and len(read.seen_ts) == len(read.seen_hash)
        and len(read.shown) == len(read.shown_ts) == len(read.shown_times)
    ):
        raise ValueError("the columns of the margin do not fit")
    return read


class _Reader:
    """A place in a body that moves on."""

    __slots__ = ("at", "body")

    def __init__(self, body: bytes, at: int) -> None:
        self.body = body
        self.at = at

    def byte(self) -> int:
        self.at += 1
        return self.body[self.at - 1]

    def varint(self) -> int:
        value = shift = 0
        while (byte := self.byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
        return value | byte << shift

    def text(self) -> str:
        length = self.byte()
        self.at += length
        if self.at > len(self.body):
            raise ValueError("an id is cut short")
        return self.body[self.at - length : self.at].decode()

    def unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self.body, self.at)
        self.at += struct.calcsize(layout)
        return values
