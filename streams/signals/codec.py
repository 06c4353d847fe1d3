"""
Records of the signals worker's changelog `signal-state`.

All of them are MessagePack behind the sealed head of `streams.wire.signals`. An item has up to three, so that each is
written only when it changed: its demand (key: the item id, magic `FS`), its followers (magic `FF`) and its fitted
neighbours (magic `FN`), whose keys are the item id behind a prefix that no item id can begin with. Batches of
`item-events` whose items are not written yet lie there as they came (magic `FB`; `streams.signals.journal`).
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from models.decay import KEPT_EPOCHS, MAX_SUM
from models.heavy_hitters import KEPT
from streams.errors import RecordFormatError
from streams.settings import MAX_DAY_PARTS, MAX_DEVICES
from streams.signals.popularity import ItemDemand
from streams.wire.neighbours import MAX_NEIGHBOURS, Neighbour
from streams.wire.signals import seal, unseal, unsealed

FOLLOWERS_PREFIX = b"\x00followers:"
NEIGHBOURS_PREFIX = b"\x00neighbours:"

_DEMAND, _FOLLOWERS, _NEIGHBOURS, _BATCHES = b"FS", b"FF", b"FN", b"FB"
_VERSION = 1
#: Of a demand in parts of the day; one without is of version 1, which workers before them read.
_SEGMENTED = 2
#: Of a demand in segments that tell devices apart, with their names.
_OF_DEVICES = 3
_MAX_SEGMENTS = MAX_DAY_PARTS * (MAX_DEVICES + 2)
#: Half-lives since 1970: more is no time, whatever the half-life.
_MAX_EPOCH = 2**50
_WEIGHT = np.dtype("<f8")

_Sums = list[tuple[int, int]]
_encoder = msgspec.msgpack.Encoder()
_demand_decoder = msgspec.msgpack.Decoder(tuple[int, int, _Sums, _Sums])
_segmented_decoder = msgspec.msgpack.Decoder(tuple[int, int, _Sums, _Sums, list[_Sums]])
_of_devices_decoder = msgspec.msgpack.Decoder(tuple[int, int, _Sums, _Sums, list[_Sums], tuple[str, ...]])
_followers_decoder = msgspec.msgpack.Decoder(tuple[int, float, list[str], bytes, bytes])
_neighbours_decoder = msgspec.msgpack.Decoder(list[Neighbour])
_batches_decoder = msgspec.msgpack.Decoder(list[bytes])


class FollowersState(NamedTuple):
    """`models.heavy_hitters.Counted` with item ids for targets."""

    epoch: int
    total: float
    ids: list[str]
    weights: npt.NDArray[np.float64]
    errors: npt.NDArray[np.float64]


def encode_signal_state(demand: ItemDemand) -> bytes:
    """
    Return the record value of an item's demand. Equal states give equal bytes.

    >>> decode_signal_state(encode_signal_state(ItemDemand({3: 7}, {}, 1_000, 1))).long
    {3: 7}
    """
    fields = [demand.events, demand.newest_ms, sorted(demand.long.items()), sorted(demand.short.items())]
    if not demand.in_segments:
        return seal(_DEMAND, _VERSION, _encoder.encode(fields))
    in_segments = [sorted(part.items()) for part in demand.in_segments]
    if not demand.devices:
        return seal(_DEMAND, _SEGMENTED, _encoder.encode([*fields, in_segments]))
    return seal(_DEMAND, _OF_DEVICES, _encoder.encode([*fields, in_segments, demand.devices]))


def decode_signal_state(record: bytes) -> ItemDemand:
    """
    Read the record value of an item's demand.

    Raises
    ------
    RecordFormatError
        When the record is cut, altered or of another version.

    """
    version, body = unsealed(record, _DEMAND, "a signal state")
    if version not in {_VERSION, _SEGMENTED, _OF_DEVICES}:
        raise RecordFormatError(f"a signal state of version {version}; known are {_VERSION} to {_OF_DEVICES}")
    in_segments: list[_Sums] = []
    devices: tuple[str, ...] = ()
    try:
        if version == _VERSION:
            events, newest_ms, long, short = _demand_decoder.decode(body)
        elif version == _SEGMENTED:
            events, newest_ms, long, short, in_segments = _segmented_decoder.decode(body)
        else:
            events, newest_ms, long, short, in_segments, devices = _of_devices_decoder.decode(body)
    except msgspec.DecodeError as error:
        raise RecordFormatError(f"a signal state cannot be read: {error}") from error
    if len(in_segments) > _MAX_SEGMENTS:
        raise RecordFormatError(f"a signal state has {len(in_segments)} segments, more than {_MAX_SEGMENTS}")
    for sums in (long, short, *in_segments):
        epochs = [epoch for epoch, _ in sums]
        spans = not epochs or max(epochs) - min(epochs) < KEPT_EPOCHS
        if not spans or not all(abs(epoch) < _MAX_EPOCH and 0 <= share <= MAX_SUM for epoch, share in sums):
            raise RecordFormatError("a signal state has sums that cannot be")
    return ItemDemand(dict(long), dict(short), newest_ms, events, tuple(map(dict, in_segments)), devices)


def encode_followers(state: FollowersState) -> bytes:
    """
    Return the record value of an item's followers; errors are left out while all of them are 0.

    >>> state = FollowersState(1_405, 1.5, ["b"], np.array([1.5]), np.array([0.0]))
    >>> decode_followers(encode_followers(state)).weights.tolist()
    [1.5]
    """
    weights = state.weights.astype(_WEIGHT, copy=False).tobytes()
    errors = state.errors.astype(_WEIGHT, copy=False).tobytes() if state.errors.any() else b""
    return seal(_FOLLOWERS, _VERSION, _encoder.encode((state.epoch, state.total, state.ids, weights, errors)))


def decode_followers(record: bytes) -> FollowersState:
    """
    Read the record value of an item's followers.

    Raises
    ------
    RecordFormatError
        When the record is cut, altered, of another version, or its numbers cannot be.

    """
    body = unseal(record, _FOLLOWERS, _VERSION, "an item's followers")
    try:
        epoch, total, ids, weight_bytes, error_bytes = _followers_decoder.decode(body)
        weights = np.frombuffer(weight_bytes, _WEIGHT).astype(np.float64)
        errors = np.frombuffer(error_bytes, _WEIGHT).astype(np.float64) if error_bytes else np.zeros(len(ids))
    except (msgspec.DecodeError, ValueError) as error:
        raise RecordFormatError(f"an item's followers cannot be read: {error}") from error
    if not len(ids) == len(weights) == len(errors) <= KEPT:
        raise RecordFormatError("an item's followers have columns of different or too great lengths")
    # Written so that a NaN is refused too.
    bounded = np.isfinite(total) and np.isfinite(weights).all() and (errors >= 0).all() and (errors <= weights).all()
    if not (bounded and abs(epoch) < _MAX_EPOCH):
        raise RecordFormatError("an item's followers must have finite weights and errors below them")
    return FollowersState(epoch, total, ids, weights, errors)


def encode_neighbours(neighbours: tuple[Neighbour, ...]) -> bytes:
    """
    Return the record value of an item's fitted neighbours.

    >>> decode_neighbours(encode_neighbours((("b", 0.25),)))
    (('b', 0.25),)
    """
    return seal(_NEIGHBOURS, _VERSION, _encoder.encode(neighbours))


def decode_neighbours(record: bytes) -> tuple[Neighbour, ...]:
    """
    Read the record value of an item's fitted neighbours.

    Raises
    ------
    RecordFormatError
        When the record is cut, altered, of another version, or holds too many.

    """
    try:
        body = unseal(record, _NEIGHBOURS, _VERSION, "an item's neighbours")
        neighbours = tuple(_neighbours_decoder.decode(body))
    except msgspec.DecodeError as error:
        raise RecordFormatError(f"an item's neighbours cannot be read: {error}") from error
    if len(neighbours) > MAX_NEIGHBOURS:
        raise RecordFormatError(f"an item has {len(neighbours)} neighbours, {MAX_NEIGHBOURS} are kept")
    return neighbours


def encode_batches(batches: list[bytes]) -> bytes:
    """
    Return the record value of batches of `item-events`, each as its record there.

    >>> decode_batches(encode_batches([b"one", b"other"]))
    [b'one', b'other']
    """
    return seal(_BATCHES, _VERSION, _encoder.encode(batches))


def decode_batches(record: bytes) -> list[bytes]:
    """
    Read the record value of batches of `item-events`.

    Raises
    ------
    RecordFormatError
        When the record is cut, altered or of another version; the batches themselves are not looked at.

    """
    try:
        return _batches_decoder.decode(unseal(record, _BATCHES, _VERSION, "batches of item events"))
    except msgspec.DecodeError as error:
        raise RecordFormatError(f"batches of item events cannot be read: {error}") from error
