"""
What interest workers tell the signals workers of items (`item-events`), and what these answer (`item-signals`).

`item-events` is binary, a batch a record: magic `FE`, format version (u8), reserved (u8), CRC-32 of the body (u32,
little endian), then the events as MessagePack arrays. `item-signals` is JSON, for people and other readers.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence

import msgspec

from streams.errors import RecordFormatError

_HEAD = struct.Struct("<2sBBI")
_MAGIC = b"FE"
_VERSION = 1


class ItemEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """
    One event seen from its item.

    Attributes
    ----------
    user
        64 bits that stand for the user (or the session): the same user reads the same, the id does not travel.
    previous
        Items the user met just before, newest first.

    """

    user: int
    item_id: str
    type_code: int
    ts_ms: int
    previous: tuple[str, ...] = ()


class ItemSignals(msgspec.Struct, frozen=True, gc=False):
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

    """

    item_id: str
    popularity: float
    ref_ts: int
    trend: float
    events: int


_batch_encoder = msgspec.msgpack.Encoder()
_batch_decoder = msgspec.msgpack.Decoder(list[ItemEvent])
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
    if len(record) < _HEAD.size:
        raise RecordFormatError(f"{what} of {len(record)} bytes is cut short")
    found_magic, found_version, _, crc = _HEAD.unpack_from(record)
    if found_magic != magic or found_version != version:
        raise RecordFormatError(f"not {what} of version {version}")
    body = record[_HEAD.size :]
    if zlib.crc32(body) != crc:
        raise RecordFormatError(f"{what} is damaged (checksum)")
    return body


def encode_item_events(events: Sequence[ItemEvent]) -> bytes:
    """
    Return the value of one record on `item-events`.

    >>> event = ItemEvent(user=1, item_id="i", type_code=1, ts_ms=1_700_000_000_000, previous=("h",))
    >>> decode_item_events(encode_item_events([event])) == [event]
    True
    """
    return seal(_MAGIC, _VERSION, _batch_encoder.encode(events))


def decode_item_events(record: bytes) -> list[ItemEvent]:
    """
    Read a record of `item-events`.

    Raises
    ------
    RecordFormatError
        When the record is cut, altered or of another version.

    """
    try:
        return _batch_decoder.decode(unseal(record, _MAGIC, _VERSION, "an item-events batch"))
    except msgspec.DecodeError as error:
        raise RecordFormatError(f"an item-events batch cannot be read: {error}") from error


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
    if not (0 <= signals.popularity < math.inf and 0 <= signals.trend < math.inf):
        raise RecordFormatError("item signals must be finite and not negative")
    return signals
