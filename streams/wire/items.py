"""Items on the wire: the shop's snapshots on `items`, the same snapshot inside an event, on `item-sightings`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import orjson

from streams.wire.limits import (
    MAX_ITEM_BYTES,
    Rejected,
    RejectedError,
    check_depth,
    check_id,
    check_number,
)

T = TypeVar("T")

#: Longer texts are cut, not refused: the encoder reads a few hundred tokens of them anyway.
_MAX_CHARS = {
    "title": 1_000, "description": 20_000, "category": 200, "brand": 200, "image_url": 2_000, "reviews": 2_000,
}  # fmt: skip
_MAX_PAIRS = 64
_MAX_PRICE = 1e12


class Item(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A shop's item as last told; `in_stock` is true unless said otherwise, `reviews` is a digest of all of them."""

    item_id: str
    title: str = ""
    description: str = ""
    category: str = ""
    brand: str = ""
    price: float | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    in_stock: bool = True
    image_url: str = ""
    reviews: str = ""

    def snapshot(self) -> dict[str, Any]:
        """Return the fields that were given, as they stand in JSON."""
        fields = msgspec.structs.asdict(self)
        del fields["item_id"]
        fields["attributes"] = dict(self.attributes)
        fields["tags"] = list(self.tags)
        return {name: value for name, value in fields.items() if value not in ("", {}, [], None)}

    def encode(self) -> bytes:
        """Return the JSON value of a record on `items`; its key is the item id."""
        return orjson.dumps({"item_id": self.item_id, **self.snapshot()}, option=orjson.OPT_SORT_KEYS)


def parse_snapshot(item_id: str, fields: Any) -> Item:
    """
    Check a decoded snapshot and return the item; unknown fields are ignored.

    Raises
    ------
    RejectedError
        When a field has the wrong type or a number is not finite.

    """
    if not isinstance(fields, dict):
        raise RejectedError("wrong_type", f"item must be an object, not {type(fields).__name__}")
    check_depth(fields)
    values: dict[str, Any] = {}
    for name, max_chars in _MAX_CHARS.items():
        if (text := fields.get(name)) is not None:
            if not isinstance(text, str):
                raise RejectedError("wrong_type", f"item.{name} must be a string, not {type(text).__name__}")
            values[name] = text[:max_chars].encode("utf-8", "replace").decode()
    if (price := fields.get("price")) is not None:
        values["price"] = check_number(price, "item.price", 0, _MAX_PRICE)
    if (in_stock := fields.get("in_stock")) is not None:
        if not isinstance(in_stock, bool):
            raise RejectedError("wrong_type", "item.in_stock must be true or false")
        values["in_stock"] = in_stock
    if (tags := fields.get("tags")) is not None:
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise RejectedError("wrong_type", "item.tags must be a list of strings")
        values["tags"] = tuple(tag[:200] for tag in tags[:_MAX_PAIRS])
    if (attributes := fields.get("attributes")) is not None:
        if not isinstance(attributes, dict):
            raise RejectedError("wrong_type", "item.attributes must be an object")
        pairs = sorted((name[:200], _attribute_text(value)) for name, value in attributes.items())
        values["attributes"] = tuple(pairs[:_MAX_PAIRS])
    return Item(item_id, **values)


def _attribute_text(value: Any) -> str:
    if isinstance(value, str):
        return value[:1_000]
    if isinstance(value, bool | int | float) or value is None:
        return orjson.dumps(value).decode()
    raise RejectedError("wrong_type", "item.attributes values must be texts, numbers or booleans")


def decode_item(key: bytes | None, value: bytes | None) -> Item | str | Rejected:
    """
    Read a record of `items` or `item-sightings`.

    Returns
    -------
    Item, or the item id alone for a tombstone (the item is gone), or `Rejected`.

    >>> decode_item(b"i1", b'{"title": "Mug"}').title
    'Mug'
    >>> decode_item(b"i1", None)
    'i1'

    """
    return decode_of_item(key, value, "an item", MAX_ITEM_BYTES, parse_snapshot)


def decode_of_item(
    key: bytes | None, value: bytes | None, what: str, most_bytes: int, parse: Callable[[str, dict[str, Any]], T]
) -> T | str | Rejected:
    """
    Read a record whose key is an item id and whose value is one JSON object.

    Parameters
    ----------
    what
        What the record is, with its article, for the sentence about a bad one.
    parse
        Gets the item id and the fields, which may name the id again; raises `RejectedError`.

    Returns
    -------
    What `parse` returns, or the item id alone for a tombstone, or `Rejected`.

    """
    if key is None:
        return Rejected("null_key", f"{what} needs its item_id as key")
    try:
        item_id = check_id(key.decode(), "key")
        if value is None:
            return item_id
        if len(value) > most_bytes:
            return Rejected("oversize", f"{len(value)} bytes, {most_bytes} are allowed")
        fields = orjson.loads(value)
        if not isinstance(fields, dict):
            return Rejected("not_object", f"{what} is one JSON object")
        if "item_id" in fields and check_id(fields["item_id"], "item_id") != item_id:
            return Rejected("key_mismatch", "the key is not the item_id")
        return parse(item_id, fields)
    except RejectedError as error:
        return error.rejected
    except UnicodeDecodeError:
        return Rejected("bad_key", "the key is not UTF-8")
    except orjson.JSONDecodeError as error:
        return Rejected("not_json", f"not JSON: {error.msg}")
