"""Compiled hashes are the ones that others use, and tables of ids are dictionaries."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.hashing import event_name, murmur2, siphash
from streams.catalogue.ids import ItemIds
from streams.interests.batch import Texts
from streams.interests.index import UserIndex
from streams.kafka.partitioner import partition_of
from streams.wire.events import event_hash

IDS = st.text("ab\u00e9", min_size=1, max_size=3)


def pool(data: bytes) -> np.ndarray:
    """Return bytes as compiled code reads them, with something around."""
    return np.frombuffer(b"#" + data + b"#", np.uint8)


@given(st.binary(max_size=40), st.integers(1, 64))
def test_a_key_belongs_where_kafka_puts_it(key: bytes, partitions: int) -> None:
    """murmur2 is kafka-python's, for keys of any bytes."""
    assert partition_of(key, partitions) == murmur2(pool(key), 1, len(key)) % partitions


@given(st.text(max_size=20), st.integers(0, 5))
def test_an_event_has_the_name_that_the_wire_defines(event_id: str, kind: int) -> None:
    """The compiled name of an event is the definition's."""
    encoded = event_id.encode()

    assert event_hash(kind, event_id) == event_name(kind, pool(encoded), 1, len(encoded))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "a3817f04ba25a8e66df67214c7550293"),
        (1, "da87c1d86b99af44347659119b22fc45"),
        (15, "5493e99933b0a8117e08ec0f97cfc3d9"),
        (16, "6ee2a4ca67b054bbfd3315bf85230577"),
    ],
)
def test_siphash_is_its_authors(size: int, expected: str) -> None:
    """The test vectors of SipHash's reference: key 00..0f, input 00, 01, and so on."""
    key = np.frombuffer(bytes(range(16)), np.uint64)
    low, high = siphash(pool(bytes(range(size))), 1, size, key)

    assert expected == struct.pack("<QQ", int(low), int(high)).hex()


@given(st.lists(st.tuples(st.booleans(), IDS), max_size=60))
def test_an_index_of_users_is_a_dictionary(steps: list[tuple[bool, str]]) -> None:
    """Whatever comes and goes: each id held is found at its row, every other is not."""
    index, held = UserIndex(), dict[str, int]()
    for row, (comes, user_id) in enumerate(steps):
        if comes and user_id not in held:
            index.put(Texts.of([user_id]), np.array([row]))
            held[user_id] = row
        elif not comes and user_id in held:
            index.drop(Texts.of([user_id]))
            del held[user_id]
    asked = [*sorted({user_id for _, user_id in steps}), "never"]

    assert [held.get(user_id, -1) for user_id in asked] == index.find(Texts.of(asked)).tolist()


def test_an_index_of_users_grows_past_those_who_left() -> None:
    """Thousands who came and left do not keep the table from finding the others, nor make it grow."""
    index = UserIndex()
    index.put(Texts.of(["stays"]), np.array([1]))
    for number in range(5_000):
        index.put(Texts.of([f"u{number}"]), np.array([number]))
        index.drop(Texts.of([f"u{number}"]))

    assert [1, -1] == index.find(Texts.of(["stays", "u4999"])).tolist()
    assert len(index._table) == 1_024


@given(st.lists(st.lists(IDS, max_size=8), max_size=6))
def test_items_are_found_in_a_buffer_as_by_their_ids(asked: list[list[str]]) -> None:
    """The row that a buffer's id leads to is the one the id has, -1 before it has any."""
    ids = ItemIds()
    for texts in asked:
        spans = Texts.of(texts)

        assert ids.find(texts).tolist() == ids.look_up(spans.pool, spans.at, spans.size).tolist()
        ids.rows(texts)


def test_many_items_are_found() -> None:
    """Tables grow with the catalogue."""
    ids = ItemIds()
    texts = [f"item-{number}" for number in range(9_000)]
    first, rest = Texts.of(texts[:10]), Texts.of(texts)
    ids.rows(texts[:10])
    ids.look_up(first.pool, first.at, first.size)
    ids.rows(texts)

    assert list(range(9_000)) == ids.look_up(rest.pool, rest.at, rest.size).tolist()
