"""What the followed topics say, decoded: small values for the catalogue, and what it answers to a batch of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np

from streams.errors import RecordFormatError
from streams.wire.dead_letters import DeadLetter
from streams.wire.items import Item, decode_item
from streams.wire.limits import Rejected
from streams.wire.models import Served
from streams.wire.neighbours import ItemNeighbours, decode_item_neighbours
from streams.wire.rules import Rule, decode_rule
from streams.wire.signals import ItemSignals, decode_item_signals
from streams.wire.vectors import decode_vector, split_vector_key

ItemSource = Literal["items", "item-sightings"]

#: The encoder's vectors are units; float16 storage moves their length by less than this.
_UNIT_TOLERANCE = 0.01


class ItemTold(msgspec.Struct, frozen=True):
    """A snapshot of an item, by the shop or from an event."""

    item: Item
    source: ItemSource


class ItemGone(msgspec.Struct, frozen=True):
    """A tombstone of an item."""

    item_id: str
    source: ItemSource


class VectorTold(msgspec.Struct, frozen=True):
    """An item's vector (d,) float32 in the served space, or in the one that is being loaded."""

    item_id: str
    vector: np.ndarray
    staged: bool = False


class VectorGone(msgspec.Struct, frozen=True):
    """A tombstone of an item's vector in the served space, or in the one that is being loaded."""

    item_id: str
    staged: bool = False


class StageSpace(msgspec.Struct, frozen=True):
    """Vectors of another space are going to be told beside the served one; None drops those told so far."""

    space: Served | None


class SwitchSpace(msgspec.Struct, frozen=True):
    """The staged space is complete: it is served from here on, and the old one is void."""


class SignalsTold(msgspec.Struct, frozen=True):
    """Demand for an item."""

    signals: ItemSignals


class SignalsGone(msgspec.Struct, frozen=True):
    """A tombstone of an item's signals."""

    item_id: str


class NeighboursTold(msgspec.Struct, frozen=True):
    """What goes with an item."""

    neighbours: ItemNeighbours


class ExperimentTold(msgspec.Struct, frozen=True):
    """A record of `experiments` as it came; None is a tombstone. `streams.experiments` checks it."""

    key: str
    value: bytes | None


class RuleTold(msgspec.Struct, frozen=True):
    """The rules of an item."""

    rule: Rule


class RuleGone(msgspec.Struct, frozen=True):
    """A tombstone of an item's rules."""

    item_id: str


class RuleRefused(msgspec.Struct, frozen=True):
    """A record of `item-rules` that cannot be used; the item's rules before it stay in force."""

    letter: DeadLetter


CatalogueRecord = (
    ItemTold
    | ItemGone
    | VectorTold
    | VectorGone
    | StageSpace
    | SwitchSpace
    | SignalsTold
    | SignalsGone
    | NeighboursTold
    | ExperimentTold
    | RuleTold
    | RuleGone
    | RuleRefused
)


@dataclass(slots=True)
class Applied:
    """
    What a batch of records changed.

    Attributes
    ----------
    vectors
        Items that got a vector or another one: users who wait for it are due.
    cards
        Items whose card is new or changed.
    experiments
        Experiment records met, in order; the catalogue does not read them.
    closed
        Rows of items that may be listed no more.
    withheld, released
        Items that are withheld now, and why; items that are withheld no more.
    refused
        Rules that cannot be used.

    """

    vectors: list[str] = field(default_factory=list)
    cards: list[Item] = field(default_factory=list)
    experiments: list[ExperimentTold] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    withheld: dict[str, str] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)
    refused: list[DeadLetter] = field(default_factory=list)


def decode_record(
    topic: str, key: bytes | None, value: bytes | None, served: Served | None, staged: Served | None = None
) -> CatalogueRecord | None:
    """
    Read one record of a followed topic.

    Parameters
    ----------
    topic
        Name without the namespace.
    served, staged
        The vector space in use, and the one that is being loaded; None where there is none.

    Returns
    -------
    None for a vector of any other space.

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
        return _decode_vector(key, value, served, staged)
    name = _text(key)
    if topic == "experiments":
        return ExperimentTold(name, value)
    if topic == "item-neighbours":
        neighbours = ItemNeighbours(name) if value is None else decode_item_neighbours(value)
        _check_key(name, neighbours.item_id)
        return NeighboursTold(neighbours)
    if value is None:
        return SignalsGone(name)
    signals = decode_item_signals(value)
    _check_key(name, signals.item_id)
    return SignalsTold(signals)


def decode_rule_record(
    topic: str, partition: int, offset: int, time_ms: int, key: bytes | None, value: bytes | None
) -> RuleTold | RuleGone | RuleRefused:
    """Read one record of `item-rules`; `topic` is its full name."""
    decoded = decode_rule(key, value)
    if isinstance(decoded, Rejected):
        return RuleRefused(DeadLetter.of(decoded, topic, partition, offset, time_ms, key, value))
    return RuleGone(decoded) if isinstance(decoded, str) else RuleTold(decoded)


def _decode_item(source: ItemSource, key: bytes | None, value: bytes | None) -> ItemTold | ItemGone:
    item = decode_item(key, value)
    if isinstance(item, Rejected):
        raise RecordFormatError(f"{item.reason}: {item.error}")
    return ItemGone(item, source) if isinstance(item, str) else ItemTold(item, source)


def _decode_vector(
    key: bytes, value: bytes | None, served: Served | None, staged: Served | None
) -> VectorTold | VectorGone | None:
    fingerprint, item_id = split_vector_key(key)
    for space in (served, staged):
        if space is not None and space.fingerprint == fingerprint:
            break
    else:
        return None
    if value is None:
        return VectorGone(item_id, space is staged)
    vector = decode_vector(value).vector
    if vector.shape[0] != space.dim:
        raise RecordFormatError(f"the vector has dimension {vector.shape[0]}, its model {space.dim}")
    length = float(np.linalg.norm(vector))
    # Written so that a vector with a NaN in it is refused too.
    if not abs(length - 1.0) <= _UNIT_TOLERANCE:
        raise RecordFormatError(f"the vector has length {length:.4g}, not 1")
    return VectorTold(item_id, vector / np.float32(length), space is staged)


def _check_key(key: str, item_id: str) -> None:
    if key != item_id:
        raise RecordFormatError("the key is not the item_id")


def _text(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise RecordFormatError("the key is not UTF-8") from error
