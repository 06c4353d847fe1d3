"""Records of the followed topics: what is read, what is skipped, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from streams.catalogue.records import (
    ExperimentTold,
    ItemGone,
    ItemTold,
    NeighboursTold,
    SignalsGone,
    SignalsTold,
    VectorGone,
    VectorTold,
    decode_record,
)
from streams.errors import RecordFormatError
from streams.wire.items import Item
from streams.wire.models import Served, decode_served
from streams.wire.neighbours import ItemNeighbours, encode_item_neighbours
from streams.wire.signals import ItemSignals, encode_item_signals
from streams.wire.vectors import encode_vector

SPACE = Served("0123456789abcdef", 2, "m")
KEY = b"0123456789abcdef:i1"
VECTOR = encode_vector(bytes(16), np.array([0.6, 0.8], np.float32))


def test_each_topic_gives_its_kind() -> None:
    """A good record of each topic becomes the value that stands for it."""
    signals = ItemSignals("i1", 2.5, 1_700_000_000_000, 1.0, 3)
    assert decode_record("items", b"i1", b'{"title":"A"}', SPACE) == ItemTold(Item("i1", title="A"), "items")
    assert decode_record("items", b"i1", None, SPACE) == ItemGone("i1", "items")
    assert decode_record("item-sightings", b"i1", None, SPACE) == ItemGone("i1", "item-sightings")
    assert decode_record("item-vectors", KEY, None, SPACE) == VectorGone("i1")
    assert decode_record("item-signals", b"i1", encode_item_signals(signals), SPACE) == SignalsTold(signals)
    assert decode_record("item-signals", b"i1", None, SPACE) == SignalsGone("i1")
    neighbours = ItemNeighbours("i1", (("i2", 0.5),))
    assert decode_record("item-neighbours", b"i1", encode_item_neighbours(neighbours), SPACE) == NeighboursTold(
        neighbours
    )
    assert decode_record("item-neighbours", b"i1", None, SPACE) == NeighboursTold(ItemNeighbours("i1"))
    assert decode_record("experiments", b"e", b"{", SPACE) == ExperimentTold("e", b"{")


def test_vectors_come_out_as_units() -> None:
    """What float16 storage did to the length is undone."""
    told = decode_record("item-vectors", KEY, VECTOR, SPACE)
    assert isinstance(told, VectorTold)
    assert told.item_id == "i1"
    assert float(np.linalg.norm(told.vector)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("served", [None, Served("f" * 16, 2)])
def test_vectors_of_other_spaces_are_skipped(served: Served | None) -> None:
    """A vector of a space that is not served, or while none is known, is no record and no error."""
    assert decode_record("item-vectors", KEY, VECTOR, served) is None


def test_vectors_of_the_staged_space_are_marked() -> None:
    """Those of the served space and of the one being loaded are told apart, each held against its own dimension."""
    staged = Served("e" * 16, 3)
    other = encode_vector(bytes(16), np.array([0, 0, 1], np.float32))
    served_told = decode_record("item-vectors", KEY, VECTOR, SPACE, staged)
    staged_told = decode_record("item-vectors", b"e" * 16 + b":i1", other, SPACE, staged)
    assert isinstance(served_told, VectorTold)
    assert isinstance(staged_told, VectorTold)
    assert (False, True) == (served_told.staged, staged_told.staged)
    assert decode_record("item-vectors", b"e" * 16 + b":i1", None, SPACE, staged) == VectorGone("i1", staged=True)
    with pytest.raises(RecordFormatError, match="its model 3"):
        decode_record("item-vectors", b"e" * 16 + b":i1", VECTOR, SPACE, staged)


@pytest.mark.parametrize(
    ("topic", "key", "value"),
    [
        ("items", b"i1", b"{"),
        ("items", None, b"{}"),
        ("items", b"\xff", b"{}"),
        ("item-sightings", b"i1", b"[]"),
        ("item-vectors", None, VECTOR),
        ("item-vectors", b"i1", VECTOR),
        ("item-vectors", KEY, VECTOR[:-1]),
        ("item-vectors", KEY, b""),
        ("item-vectors", KEY, encode_vector(bytes(16), np.ones(3, np.float32))),
        ("item-vectors", KEY, encode_vector(bytes(16), np.zeros(2, np.float32))),
        ("item-signals", b"i1", b"{}"),
        ("item-signals", b"i1", b"\xff"),
        ("item-signals", b"i2", encode_item_signals(ItemSignals("i1", 1.0, 0, 0.0, 1))),
        ("item-signals", b"i1", b'{"item_id":"i1","popularity":-1,"ref_ts":0,"trend":0,"events":1}'),
        ("item-neighbours", b"i1", b"{}"),
        ("item-neighbours", b"i2", encode_item_neighbours(ItemNeighbours("i1"))),
        ("experiments", b"\xff", b"{}"),
    ],
)
def test_damaged_records_are_refused(topic: str, key: bytes | None, value: bytes) -> None:
    """What cannot be used is a `RecordFormatError`, which the follower counts and skips."""
    with pytest.raises(RecordFormatError):
        decode_record(topic, key, value, SPACE)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b'{"fingerprint":"","dim":2}',
        b'{"fingerprint":"f","dim":0}',
        b'{"fingerprint":"f"}',
        b"\xff",
        b'{"fingerprint":"f","dim":2,"previous":{"fingerprint":"","dim":2}}',
    ],
)
def test_a_bad_served_record_is_refused(value: bytes) -> None:
    """The vector space is never switched to one that cannot be."""
    with pytest.raises(RecordFormatError):
        decode_served(value)


def test_the_served_record_names_the_one_before() -> None:
    """It reads back as written; whether two name the same space does not depend on their history."""
    served = Served("f" * 16, 2, "new", Served("e" * 16, 3, "old"))
    assert decode_served(served.encode()) == served
    assert served.same_space(Served("f" * 16, 2))
    assert not served.same_space(served.previous)
    assert not served.same_space(None)
