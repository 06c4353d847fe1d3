"""
Records of the signals worker: its changelog `signal-state`, and the two formats it shares with the interest worker.

`signal-state` is MessagePack behind the sealed head of `streams.wire.signals`, magic `FS`.
"""

from __future__ import annotations

import msgspec

from streams.errors import RecordFormatError
from streams.signals.popularity import ItemDemand
from streams.wire.signals import (
    ItemSignals,
    decode_item_events,
    decode_item_signals,
    encode_item_signals,
    seal,
    unseal,
)

__all__ = [
    "ItemSignals",
    "decode_item_events",
    "decode_item_signals",
    "decode_signal_state",
    "encode_item_signals",
    "encode_signal_state",
]

_MAGIC = b"FS"
_VERSION = 1

_Sums = list[tuple[int, int]]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[int, int, _Sums, _Sums])


def encode_signal_state(demand: ItemDemand) -> bytes:
    """
    Return the value of a record on `signal-state`; its key is the item id. Equal states give equal bytes.

    >>> decode_signal_state(encode_signal_state(ItemDemand({3: 7}, {}, 1_000, 1))).long
    {3: 7}
    """
    sums = [sorted(part.items()) for part in (demand.long, demand.short)]
    return seal(_MAGIC, _VERSION, _encoder.encode((demand.events, demand.newest_ms, *sums)))


def decode_signal_state(record: bytes) -> ItemDemand:
    """
    Read a record of `signal-state`.

    Raises
    ------
    RecordFormatError
        When the record is cut, altered or of another version.

    """
    try:
        events, newest_ms, long, short = _decoder.decode(unseal(record, _MAGIC, _VERSION, "a signal state"))
    except msgspec.DecodeError as error:
        raise RecordFormatError(f"a signal state cannot be read: {error}") from error
    return ItemDemand(dict(long), dict(short), newest_ms, events)
