"""Items on the wire: snapshots and tombstones in, refusals as values."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.wire.items import Item, decode_item
from streams.wire.limits import MAX_ITEM_BYTES, Rejected

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text("aé€", max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=4),
    max_leaves=12,
)
_FIELDS = (
    "item_id",
    "title",
    "description",
    "category",
    "brand",
    "price",
    "attributes",
    "tags",
    "in_stock",
    "image_url",
    "reviews",
)

FULL = Item(
    "i1",
    "Mug",
    "A mug.",
    "kitchen",
    "Acme",
    9.5,
    (("colour", "red"), ("ml", "330")),
    ("new", "sale"),
    in_stock=False,
    image_url="https://x/y",
    reviews="Keeps tea warm.",
)

BAD = [
    ("null key", None, b"{}", "null_key"),
    ("empty key", b"", b"{}", "bad_id"),
    ("key not UTF-8", b"\xff", b"{}", "bad_key"),
    ("key with control character", b"i\x001", b"{}", "bad_id"),
    ("key of 201 bytes", b"i" * 201, None, "bad_id"),
    ("empty value", b"i1", b"", "not_json"),
    ("array", b"i1", b"[]", "not_object"),
    ("other item_id", b"i1", b'{"item_id":"i2"}', "key_mismatch"),
    ("item_id a float", b"i1", b'{"item_id":1.5}', "wrong_type"),
    ("title null bytes", b"i1", b'{"title":\x00}', "not_json"),
    ("title a number", b"i1", b'{"title":1}', "wrong_type"),
    ("price NaN", b"i1", b'{"price":NaN}', "not_json"),
    ("price 1e999", b"i1", b'{"price":1e999}', "not_json"),
    ("price negative", b"i1", b'{"price":-1}', "wrong_type"),
    ("in_stock a string", b"i1", b'{"in_stock":"no"}', "wrong_type"),
    ("tags an object", b"i1", b'{"tags":{}}', "wrong_type"),
    ("attributes nested", b"i1", b'{"attributes":{"a":[]}}', "wrong_type"),
    ("nested 10 deep", b"i1", b'{"x":' + b"[" * 10 + b"]" * 10 + b"}", "too_deep"),
    ("lone surrogate", b"i1", rb'{"title":"\ud800"}', "not_json"),
    ("above 256 KiB", b"i1", b'{"description":"' + b"d" * MAX_ITEM_BYTES + b'"}', "oversize"),
]


@pytest.mark.parametrize(("key", "value", "reason"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_bad_item_is_refused(key: bytes | None, value: bytes | None, reason: str) -> None:
    """A snapshot that cannot be used is a value with its reason."""
    rejected = decode_item(key, value)
    assert isinstance(rejected, Rejected)
    assert reason == rejected.reason


def test_item_round_trip() -> None:
    """What an item writes on `items` reads back equal."""
    assert decode_item(b"i1", FULL.encode()) == FULL


def test_item_golden() -> None:
    """The JSON of an item, byte for byte."""
    expected = (
        b'{"attributes":{"colour":"red","ml":"330"},"brand":"Acme","category":"kitchen","description":"A mug.",'
        b'"image_url":"https://x/y","in_stock":false,"item_id":"i1","price":9.5,'
        b'"reviews":"Keeps tea warm.","tags":["new","sale"],"title":"Mug"}'
    )
    assert expected == FULL.encode()


def test_tombstone_names_the_item() -> None:
    """A record without value deletes: the id alone comes back."""
    assert decode_item("é".encode(), None) == "é"


def test_long_texts_are_cut() -> None:
    """Long texts are cut, not refused."""
    item = decode_item(b"i", orjson.dumps({"title": "t" * 5_000, "reviews": "r" * 5_000, "tags": ["x" * 500] * 100}))
    assert isinstance(item, Item)
    assert (len(item.title), len(item.reviews), len(item.tags), len(item.tags[0])) == (1_000, 2_000, 64, 200)


@settings(deadline=None)
@given(st.binary(max_size=60) | st.none(), st.binary(max_size=200) | st.none())
def test_any_bytes_are_a_value(key: bytes | None, value: bytes | None) -> None:
    """No bytes make the decoder raise."""
    assert isinstance(decode_item(key, value), Item | str | Rejected)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(_FIELDS), _JSON))
def test_any_snapshot_is_a_value_and_writable(fields: dict[str, Any]) -> None:
    """Whatever a snapshot holds, an accepted item can be written and read again."""
    item = decode_item(b"7", orjson.dumps(fields))
    if isinstance(item, Item):
        assert decode_item(b"7", item.encode()) == item
