"""What the followed topics say, decoded: the small values that go from the follower's thread to the catalogue."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from streams.errors import RecordFormatError
from streams.wire.items import Item, decode_item
from streams.wire.limits import Rejected
from streams.wire.signals import ItemSignals, decode_item_signals
from streams.wire.vectors import decode_vector, split_vector_key

ItemSource = Literal["items", "item-sightings"]

#: Key on `models` that names the vector space in use.
SERVED_KEY = b"served"
#: The encoder's vectors are units; float16 storage moves their length by less than this.
_UNIT_TOLERANCE = 0.01


class Served(msgspec.Struct, frozen=True):
    """The vector space in use: fingerprint of the encoder, its name and its dimension."""

    fingerprint: str
    dim: int
    model: str = ""


class ItemTold(msgspec.Struct, frozen=True):
    """A snapshot of an item, by the shop or from an event."""

    item: Item
    source: ItemSource


class ItemGone(msgspec.Struct, frozen=True):
    """A tombstone of an item."""

    item_id: str
    source: ItemSource


class VectorTold(msgspec.Struct, frozen=True):
    """An item's vector (d,) float32 in the served space."""

    item_id: str
    vector: np.ndarray


class VectorGone(msgspec.Struct, frozen=True):
    """A tombstone of an item's vector in the served space."""

    item_id: str


class ResetVectors(msgspec.Struct, frozen=True):
    """Another vector space is served from here on: every vector held is void."""

    served: Served


class SignalsTold(msgspec.Struct, frozen=True):
    """Demand for an item."""

    signals: ItemSignals


class SignalsGone(msgspec.Struct, frozen=True):
    """A tombstone of an item's signals."""

    item_id: str


class ExperimentTold(msgspec.Struct, frozen=True):
    """A record of `experiments` as it came; None is a tombstone. `streams.experiments` checks it."""

    key: str
    value: bytes | None


CatalogueRecord = (
    ItemTold | ItemGone | VectorTold | VectorGone | ResetVectors | SignalsTold | SignalsGone | ExperimentTold
)

_served_decoder = msgspec.json.Decoder(Served)


def decode_served(value: bytes) -> Served:
    """
    Read the record `served` of `models`.

    >>> decode_served(b'{"fingerprint": "0123456789abcdef", "model": "m", "dim": 384}').dim
    384

    Raises
    ------
    RecordFormatError
        When it is not JSON of this shape.

    """
    try:
        served = _served_decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordFormatError(f"the served model cannot be read: {error}") from error
    if not 1 <= served.dim <= 65_535 or not served.fingerprint:
        raise RecordFormatError("the served model needs a fingerprint and a dimension")
    return served


def decode_record(topic: str, key: bytes | None, value: bytes | None, served: Served | None) -> CatalogueRecord | None:
    """
    Read one record of a followed topic.

    Parameters
    ----------
    topic
        Name without the namespace.
    served
        The vector space in use; None while unknown.

    Returns
    -------
    None for a vector of a space that is not served.

    Raises
    ------
    RecordFormatError
        When the record cannot be used.

    """
    if topic == "items":
        return _decode_item("items", key, value)
    if topic == "item-sightings":
        return _decode_item("item-sightings", key, value)
    if key is None:
        raise RecordFormatError("the record has no key")
    if topic == "item-vectors":
        return _decode_vector(key, value, served)
    name = _text(key)
    if topic == "experiments":
        return ExperimentTold(name, value)
    if value is None:
        return SignalsGone(name)
    signals = decode_item_signals(value)
    if signals.item_id != name:
        raise RecordFormatError("the key is not the item_id")
    return SignalsTold(signals)


def _decode_item(source: ItemSource, key: bytes | None, value: bytes | None) -> ItemTold | ItemGone:
    item = decode_item(key, value)
    if isinstance(item, Rejected):
        raise RecordFormatError(f"{item.reason}: {item.error}")
    return ItemGone(item, source) if isinstance(item, str) else ItemTold(item, source)


def _decode_vector(key: bytes, value: bytes | None, served: Served | None) -> VectorTold | VectorGone | None:
    fingerprint, item_id = split_vector_key(key)
    if served is None or fingerprint != served.fingerprint:
        return None
    if value is None:
        return VectorGone(item_id)
    vector = decode_vector(value).vector
    if vector.shape[0] != served.dim:
        raise RecordFormatError(f"the vector has dimension {vector.shape[0]}, the served model {served.dim}")
    length = float(np.linalg.norm(vector))
    # Written so that a vector with a NaN in it is refused too.
    if not abs(length - 1.0) <= _UNIT_TOLERANCE:
        raise RecordFormatError(f"the vector has length {length:.4g}, not 1")
    return VectorTold(item_id, vector / np.float32(length))


def _text(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise RecordFormatError("the key is not UTF-8") from error
