"""What the signals workers say of which items go together (`item-neighbours`), in JSON for people and other readers."""

from __future__ import annotations

import math

import msgspec

from streams.errors import RecordFormatError

#: Neighbours told of an item, in each of its families.
MAX_NEIGHBOURS = 64

Neighbour = tuple[str, float]


class ItemNeighbours(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """
    Items that go with an item.

    They are told apart from its demand: that changes with each event, and is 50 times smaller.

    Attributes
    ----------
    followers
        (item id, share) of what went with the item in sessions, heaviest first: the share, 0 < share <= 1, of all its
        decayed sequential rules.
    neighbours
        (item id, weight) by the fitted item-to-item weights, the farthest from 0 first: above it for what the item
        speaks for, below it for what it speaks against.

    """

    item_id: str
    followers: tuple[Neighbour, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ItemNeighbours)


def encode_item_neighbours(neighbours: ItemNeighbours) -> bytes:
    """
    Return the JSON value of a record on `item-neighbours`; its key is the item id.

    >>> encode_item_neighbours(ItemNeighbours("a", followers=(("b", 0.5),)))
    b'{"item_id":"a","followers":[["b",0.5]]}'
    """
    return _encoder.encode(neighbours)


def decode_item_neighbours(record: bytes) -> ItemNeighbours:
    """
    Read a record of `item-neighbours`.

    Raises
    ------
    RecordFormatError
        When it is not JSON of this shape, a weight is 0 or not finite, a share is not positive, or there are too many.

    """
    try:
        told = _decoder.decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordFormatError(f"item neighbours cannot be read: {error}") from error
    for family, least in ((told.followers, 0.0), (told.neighbours, -math.inf)):
        known = all(least < weight < math.inf and weight and item_id for item_id, weight in family)
        if len(family) > MAX_NEIGHBOURS or not known:
            raise RecordFormatError(f"an item has at most {MAX_NEIGHBOURS} neighbours of a kind, each with its weight")
    return told
