"""Lists on the wire: the JSON of `recommendations` and of the Redis cache, the same bytes in both."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec
import orjson

SCHEMA = 1
#: Separates user id and surface in keys of lists that are not on the main surface; no id can contain it.
UNIT_SEPARATOR = "\x1f"
#: A version counts lists of one partition below this; the epoch, greater at each taking, stands above it.
VERSION_EPOCH = 2**32

Items = TypeVar("Items")


class Because(msgspec.Struct, frozen=True, gc=False):
    """One event behind an item: the share of the item's personal score that it carries, 0..1."""

    item_id: str
    type: str
    share: float


class RankedItem(msgspec.Struct, frozen=True, gc=False):
    """One place of a list; `propensity` is the probability that this item was put there."""

    item_id: str
    rank: int
    score: float
    source: str
    because: tuple[Because, ...] = ()
    propensity: float = 1.0


class Assigned(msgspec.Struct, frozen=True, gc=False):
    """A user's part in one experiment; `bucket` is 0..9999."""

    variant: str
    bucket: int
    revision: int
    forced: bool = False


class Trigger(msgspec.Struct, frozen=True, gc=False):
    """
    What made this list.

    An `event`, a `restore`, a `catalogue` change, the `interval` of a default list, or `rules`: something on the list
    before may be listed no more, by a rule of the shop or for want of stock.
    """

    kind: str
    topic: str = ""
    partition: int = -1
    offset: int = -1
    event_id: str = ""


class AsOf(msgspec.Struct, frozen=True, gc=False):
    """
    What the list has seen: consumed offsets of its partition by topic, and the catalogue's revisions.

    Where something was struck from a list, `offsets`, `catalogue` and `signals` say when it was ranked, and `rules` by
    which rules and stock it stands.
    """

    offsets: dict[str, int]
    catalogue: int = 0
    signals: int = 0
    rules: int = 0


class _List(msgspec.Struct, Generic[Items], frozen=True, kw_only=True):
    """What a list tells; `version` comes first, so that Redis can compare it without decoding."""

    version: int
    schema: int = SCHEMA
    user_id: str
    surface: str
    recommendation_id: str
    generated_at: int
    event_ts: int
    ingested_at: int
    policy: str
    model: str
    as_of: AsOf
    experiments: dict[str, Assigned]
    items: Items
    trigger: Trigger
    events_applied: dict[str, int]
    stale: bool = False

    def encode(self) -> bytes:
        """Return the JSON."""
        return msgspec.json.encode(self)


class Recommendation(_List[tuple[RankedItem, ...]], frozen=True, kw_only=True):
    """One list of one user on one surface, as published; times are ms since the epoch."""


class WrittenRecommendation(_List[msgspec.Raw], frozen=True, kw_only=True):
    """The same with its items as they stand in the JSON: see `streams.wire.ranked_items`."""


def decode_recommendation(value: bytes) -> Recommendation:
    """
    Read a list back.

    Raises
    ------
    msgspec.DecodeError
        When the bytes are not JSON, or not a list of this schema.

    """
    return msgspec.json.decode(value, type=Recommendation)


def topic_key(user_id: str, surface: str, main_surface: str) -> bytes:
    r"""
    Return the record key: the user id on the main surface, else with the surface behind it.

    >>> topic_key("u", "home", "home"), topic_key("u", "cart", "home")
    (b'u', b'u\x1fcart')
    """
    return user_id.encode() if surface == main_surface else f"{user_id}{UNIT_SEPARATOR}{surface}".encode()


def default_key(surface: str) -> bytes:
    """Return the record key of the list for visitors without events; no user id is empty."""
    return f"{UNIT_SEPARATOR}{surface}".encode()


def erased(version: int) -> bytes:
    """Return what the cache holds of a forgotten user: a version, so that no older list comes back."""
    fields: dict[str, Any] = {"version": version, "erased": True}
    return orjson.dumps(fields)
