"""
What interest workers tell the signals workers of items (`item-events`), and what these answer (`item-signals`).

`item-events` is binary, a batch a record: magic `FE`, format version (u8), reserved (u8), CRC-32 of the body (u32),
then the body. Version 3 is columns, all little endian: events n (u32), ids m (u32), user (n u64), time (n i64),
item (n i32), previous (n x 3 i32), type (n u8), device (n u8), and the m ids in UTF-8, joined by line feeds, which no
id can hold. A batch of which no device is known is of version 2, which has no such column. Version 1, MessagePack
arrays of events, is still read. `item-signals` is JSON, for people and other readers.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from streams.errors import RecordFormatError
from streams.settings import EVENT_TYPES
from streams.wire.limits import MAX_EPOCH_MS, MAX_ID_BYTES

#: Half-life of the demand of late that a trend compares with that of the long run.
TREND_HALF_LIFE_S: Final = 86_400.0

_HEAD = struct.Struct("<2sBBI")
_MAGIC = b"FE"
_COUNTS = struct.Struct("<II")

#: Versions of `item-events` that are written: with devices, and where none is known.
ITEM_EVENTS_VERSION = 3
ITEM_EVENTS_WITHOUT_DEVICES = 2
#: Events of one record: 560 kB of columns.
MAX_ITEM_EVENTS = 16_384
#: Bytes of one record, below the topic's limit of 1 MiB whatever the compression does.
MAX_ITEM_EVENTS_BYTES = 1_000_000
#: Items met just before an event that travel with it: sequence rules beyond three steps are noise.
PREVIOUS = 3

_USER = np.dtype("<u8")
_TIME = np.dtype("<i8")
_INDEX = np.dtype("<i4")
_TYPE = np.dtype("u1")
_DEVICE = np.dtype("u1")
#: Most bytes of one event, and those of what stands before the events, in a record.
EVENT_BYTES = _USER.itemsize + _TIME.itemsize + (1 + PREVIOUS) * _INDEX.itemsize + _TYPE.itemsize + _DEVICE.itemsize
ITEM_EVENTS_HEAD_BYTES = _HEAD.size + _COUNTS.size


class ItemEvent(msgspec.Struct, frozen=True, gc=False):
    """
    One event seen from its item, as a row; batches travel as the columns of `ItemEvents`.

    Attributes
    ----------
    user
        64 bits that stand for the user (or the session): the same user reads the same, the id does not travel.
    previous
        Items the user met just before, newest first.
    device
        Code of the device it came from, see `models.segments.device_code`.

    """

    user: int
    item_id: str
    type_code: int
    ts_ms: int
    previous: tuple[str, ...] = ()
    device: int = 0


class _Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event in a record of version 1: what `ItemEvent` says, but for the device."""

    user: int
    item_id: str
    type_code: int
    ts_ms: int
    previous: tuple[str, ...] = ()


class ItemEvents(NamedTuple):
    """
    A batch of n events seen from their items, as columns.

    Attributes
    ----------
    ids
        Every item id the columns mean, in any order.
    user
        (n,) uint64 that stand for the users (or the sessions): the same user reads the same, the id does not travel.
    item
        (n,) int32, the event's item as an index into `ids`.
    type_code
        (n,) uint8, index into `EVENT_TYPES`.
    ts_ms
        (n,) int64, event time, ms since the epoch.
    previous
        (n, 3) int32, items the user met just before, newest first, as indices into `ids`; -1 where there is none.
    device
        (n,) uint8, code of the device each came from, see `models.segments.device_code`.

    """

    ids: list[str]
    user: npt.NDArray[np.uint64]
    item: npt.NDArray[np.int32]
    type_code: npt.NDArray[np.uint8]
    ts_ms: npt.NDArray[np.int64]
    previous: npt.NDArray[np.int32]
    device: npt.NDArray[np.uint8]


class ItemSignals(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """
    What is known of an item's demand.

    Attributes
    ----------
    popularity
        Decayed mass of the item's events as it was at `ref_ts`; it halves with every half-life after.
    ref_ts
        Time of the newest event counted, ms since the epoch.
    trend
        Rate of the last day over the long-term rate: above 1 demand grows.
    events
        Events counted in all.
    in_segments
        The popularity's parts in each segment of users, see `models.segments`; empty where they are not told apart.
    devices
        Names of the devices that the segments tell apart.

    """

    item_id: str
    popularity: float
    ref_ts: int
    trend: float
    events: int
    in_segments: tuple[float, ...] = ()
    devices: tuple[str, ...] = ()


_rows_decoder = msgspec.msgpack.Decoder(list[_Row])
_signals_encoder = msgspec.json.Encoder()
_signals_decoder = msgspec.json.Decoder(ItemSignals)


def seal(magic: bytes, version: int, body: bytes) -> bytes:
    """Return a record value: head with a checksum, then the body."""
    return _HEAD.pack(magic, version, 0, zlib.crc32(body)) + body


def unseal(record: bytes, magic: bytes, version: int, what: str) -> bytes:
    """
    Return the body of a sealed record.

    Raises
    ------
    RecordFormatError
        When the record is cut, altered or of another kind or version.

    """
    found, body = unsealed(record, magic, what)
    if found != version:
        raise RecordFormatError(f"not {what} of version {version}")
    return body


def unsealed(record: bytes, magic: bytes, what: str) -> tuple[int, bytes]:
    """Return version and body of a sealed record; errors are those of `unseal`, but for the version's."""
    if len(record) < _HEAD.size:
        raise RecordFormatError(f"{what} of {len(record)} bytes is cut short")
    found_magic, version, _, crc = _HEAD.unpack_from(record)
    if found_magic != magic:
        raise RecordFormatError(f"not {what}")
    body = record[_HEAD.size :]
    if zlib.crc32(body) != crc:
        raise RecordFormatError(f"{what} is damaged (checksum)")
    return version, body


def item_events(rows: Sequence[ItemEvent]) -> ItemEvents:
    """
    Return rows as columns; of a row's previous items the newest three count.

    >>> item_events([ItemEvent(7, "b", 1, 1_700_000_000_000, ("a",))]).previous.tolist()
    [[1, -1, -1]]
    """
    place: dict[str, int] = {}
    item = [place.setdefault(row.item_id, len(place)) for row in rows]
    previous = np.full((len(rows), PREVIOUS), -1, np.int32)
    for number, row in enumerate(rows):
        for step, item_id in enumerate(row.previous[:PREVIOUS]):
            previous[number, step] = place.setdefault(item_id, len(place))
    return ItemEvents(
        list(place),
        np.array([row.user for row in rows], np.uint64),
        np.array(item, np.int32),
        np.array([row.type_code for row in rows], np.uint8),
        np.array([row.ts_ms for row in rows], np.int64),
        previous,
        np.array([row.device for row in rows], np.uint8),
    )


def encode_item_events(events: ItemEvents) -> bytes:
    """
    Return the value of one record on `item-events`.

    Raises
    ------
    ValueError
        When the columns do not fit together, mean ids that are not there, or are more than one record may hold
        (`streams.signals.routing` splits).

    >>> events = item_events([ItemEvent(user=1, item_id="i", type_code=1, ts_ms=1_700_000_000_000, previous=("h",))])
    >>> decode_item_events(encode_item_events(events)).ids
    ['i', 'h']
    """
    return encode_named_events(events, len(events.ids), "\n".join(events.ids).encode())


def encode_named_events(events: ItemEvents, ids: int, blob: bytes) -> bytes:
    """
    Do the same for columns that mean ids which are not `events.ids`: so many, as UTF-8 joined by line feeds.

    Raises
    ------
    ValueError
        See `encode_item_events`.

    """
    if len(events.item) > MAX_ITEM_EVENTS:
        raise ValueError(f"{len(events.item)} events, one record holds {MAX_ITEM_EVENTS}")
    if events.previous.shape != (len(events.item), PREVIOUS):
        raise ValueError(f"previous has shape {events.previous.shape}")
    if problem := problem_of_columns(events, ids) or _problem_of_ids(blob, ids):
        raise ValueError(problem)
    columns: list[npt.NDArray[Any]] = [
        events.user.astype(_USER, copy=False),
        events.ts_ms.astype(_TIME, copy=False),
        events.item.astype(_INDEX, copy=False),
        events.previous.astype(_INDEX, copy=False),
        events.type_code.astype(_TYPE, copy=False),
    ]
    version = ITEM_EVENTS_WITHOUT_DEVICES
    if events.device.any():
        version = ITEM_EVENTS_VERSION
        columns.append(events.device.astype(_DEVICE, copy=False))
    counts = _COUNTS.pack(len(events.item), ids)
    record = seal(_MAGIC, version, b"".join((counts, *(column.tobytes() for column in columns), blob)))
    if len(record) > MAX_ITEM_EVENTS_BYTES:
        raise ValueError(f"{len(record)} bytes, one record holds {MAX_ITEM_EVENTS_BYTES}")
    return record


def decode_item_events(record: bytes) -> ItemEvents:
    """
    Read a record of `item-events`; the columns are read-only.

    Raises
    ------
    RecordFormatError
        When the record is cut, altered, of a version not known, or its numbers or ids cannot be.

    """
    version, body = unsealed(record, _MAGIC, "an item-events batch")
    if version == 1:
        events, blob = _rows(body)
    elif version in {ITEM_EVENTS_WITHOUT_DEVICES, ITEM_EVENTS_VERSION}:
        events, blob = _columns(body, with_devices=version == ITEM_EVENTS_VERSION)
    else:
        raise RecordFormatError(f"an item-events batch of version {version}; known are 1 to {ITEM_EVENTS_VERSION}")
    if problem := problem_of_columns(events, len(events.ids)) or _problem_of_ids(blob, len(events.ids)):
        raise RecordFormatError(f"an item-events batch cannot be: {problem}")
    return events


def _rows(body: bytes) -> tuple[ItemEvents, bytes]:
    try:
        rows = _rows_decoder.decode(body)
        events = item_events(
            [ItemEvent(row.user, row.item_id, row.type_code, row.ts_ms, row.previous) for row in rows]
        )  # fmt: skip
        return events, "\n".join(events.ids).encode()
    except (msgspec.DecodeError, OverflowError, UnicodeError) as error:
        raise RecordFormatError(f"an item-events batch cannot be read: {error}") from error


def _columns(body: bytes, *, with_devices: bool) -> tuple[ItemEvents, bytes]:
    event_bytes = EVENT_BYTES if with_devices else EVENT_BYTES - _DEVICE.itemsize
    count, ids = _COUNTS.unpack_from(body) if len(body) >= _COUNTS.size else (MAX_ITEM_EVENTS + 1, 0)
    blob = body[_COUNTS.size + count * event_bytes :]
    if count > MAX_ITEM_EVENTS or len(body) < _COUNTS.size + count * event_bytes:
        raise RecordFormatError("an item-events batch has another length than its counts say")
    try:
        names = blob.decode().split("\n") if blob else []
    except UnicodeDecodeError as error:
        raise RecordFormatError("an item-events batch has ids that are not UTF-8") from error
    if len(names) != ids:
        raise RecordFormatError(f"an item-events batch has {len(names)} ids, not {ids}")
    at = _COUNTS.size

    def column(dtype: np.dtype[Any], width: int = 1) -> npt.NDArray[Any]:
        nonlocal at
        start, at = at, at + count * width * dtype.itemsize
        return np.frombuffer(body, dtype, count * width, start).astype(dtype.newbyteorder("="), copy=False)

    user, ts_ms, item = column(_USER), column(_TIME), column(_INDEX)
    previous, type_code = column(_INDEX, PREVIOUS).reshape(-1, PREVIOUS), column(_TYPE)
    device = column(_DEVICE) if with_devices else np.zeros(count, np.uint8)
    return ItemEvents(names, user, item, type_code, ts_ms, previous, device), blob


def problem_of_columns(events: ItemEvents, ids: int) -> str:
    """Return what is wrong with columns that mean so many ids; empty when nothing is."""
    count = len(events.item)
    columns = (events.user, events.type_code, events.ts_ms, events.previous, events.device)
    if any(len(column) != count for column in columns):
        return "its columns have different lengths"
    if count and not (
        0 <= events.item.min() <= events.item.max() < ids and -1 <= events.previous.min() <= events.previous.max() < ids
    ):
        return "an index means no id"
    if count and events.type_code.max() >= len(EVENT_TYPES):
        return "a type is not known"
    if count and not 0 <= events.ts_ms.min() <= events.ts_ms.max() <= MAX_EPOCH_MS:
        return "a time is out of range"
    return ""


def _problem_of_ids(blob: bytes, ids: int) -> str:
    characters = np.frombuffer(blob, np.uint8)
    controls = characters < 0x20
    ends = np.flatnonzero(np.append(characters == ord("\n"), ids > 0))
    if np.count_nonzero(controls) != len(ends) - (ids > 0) or len(ends) != ids:
        return "an id has a control character"
    lengths = np.diff(ends, prepend=-1) - 1
    if ids and not 1 <= lengths.min() <= lengths.max() <= MAX_ID_BYTES:
        return f"an id has not 1 to {MAX_ID_BYTES} bytes"
    return ""


def encode_item_signals(signals: ItemSignals) -> bytes:
    """Return the JSON value of a record on `item-signals`; its key is the item id."""
    return _signals_encoder.encode(signals)


def decode_item_signals(record: bytes) -> ItemSignals:
    """
    Read a record of `item-signals`.

    Raises
    ------
    RecordFormatError
        When it is not JSON of this shape, or a number is negative or not finite.

    """
    try:
        signals = _signals_decoder.decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordFormatError(f"item signals cannot be read: {error}") from error
    if not all(0 <= value < math.inf for value in (signals.popularity, signals.trend, *signals.in_segments)):
        raise RecordFormatError("item signals must be finite and not negative")
    return signals
