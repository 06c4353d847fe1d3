"""What is known of the vector spaces in a namespace: which there are, how much they cover, how far they agree."""

from __future__ import annotations

import heapq
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from confluent_kafka import Message

from models.overlap import NEIGHBOURS, neighbour_overlap
from models.ranking import Floats
from models.text import content_hash
from streams.commands.lookup import partition_counts
from streams.encoding.backlog import text_of
from streams.errors import RecordFormatError
from streams.kafka.bulk_read import read_to_end
from streams.kafka.deadline import Deadline
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.items import Item, decode_item
from streams.wire.models import SERVED_KEY, Served, decode_served
from streams.wire.vectors import decode_vector, split_vector_key

#: One item in a thousand may be without a vector: one that the model cannot encode must not hold an upgrade for ever.
MIN_COVERAGE = 0.999
#: Items whose vectors are compared: 20,000 x 384 floats are 31 MB a space, whatever the catalogue's size.
SAMPLE_ITEMS = 20_000
#: Of these are asked for their neighbours: the mean of 1,000 shares is within 0.03 of that of all, 19 times in 20.
SAMPLE_QUERIES = 1_000
#: Instead of a content hash: any vector of the item counts.
_ANY = b""
#: Longest reading of a topic. Two spaces of a million items are 2 GB; a slow network brings 10 MB/s.
_READ_S = 600.0


class Named(NamedTuple):
    """What `models` says: the served space, and the models that were ever named, by fingerprint."""

    served: Served | None
    models: dict[str, Served]


@dataclass(frozen=True, slots=True)
class Space:
    """
    One vector space.

    Attributes
    ----------
    covered
        Items of the catalogue that have a text, and a vector of that text in this space.
    outdated
        Items that have a vector of an older text, and are not covered.
    vectors
        Keys on `item-vectors`, also of items that are gone from the catalogue.
    state
        `served`, `previous` (the target of a rollback) or `other`.
    overlap
        With the served space, in 0..1; None for the served space itself and where there is nothing to compare.

    """

    fingerprint: str
    model: str
    dim: int
    covered: int
    outdated: int
    vectors: int
    state: str
    overlap: float | None


@dataclass(frozen=True, slots=True)
class Survey:
    """All vector spaces of a namespace, and how many items of the catalogue have a text."""

    named: Named
    items: int
    spaces: dict[str, Space]

    def coverage(self, space: Space) -> float:
        """Share of the items with a text that have its vector; 0 for an empty catalogue, which says nothing."""
        return space.covered / self.items if self.items else 0.0

    def refusal(self, space: Space, min_overlap: float) -> str | None:
        """Say why a space should not be served yet; None when it may."""
        served = self.named.served
        coverage = self.coverage(space)
        if coverage < MIN_COVERAGE:
            outdated = f", {space.outdated} more by an older text" if space.outdated else ""
            return (
                f"{space.fingerprint} covers {space.covered} of {self.items} items with a text ({coverage:.2%})"
                f"{outdated}; {MIN_COVERAGE:.1%} are needed: is its encoder running, and are items refused in "
                "dead-letters?"
            )
        if served is None:
            return None
        if space.overlap is None:
            return f"{space.fingerprint} has no two items in common with {served.fingerprint}, which is served"
        if space.overlap < min_overlap:
            return (
                f"{space.fingerprint} and {served.fingerprint}, which is served, agree on {space.overlap:.1%} of an "
                f"item's {NEIGHBOURS} nearest neighbours; {min_overlap:.1%} are needed (--min-overlap)"
            )
        return None


@dataclass(slots=True)
class _Vectors:
    """The vectors of one fingerprint: the hash of what each item's was made from, and the sample's."""

    dim: int = 0
    items: dict[str, bytes] = field(default_factory=dict)
    sample: dict[str, Floats] = field(default_factory=dict)


def survey(settings: Settings, told: Callable[[str], None] = lambda _: None) -> Survey:
    """
    Read the catalogue and every vector; memory is some 200 bytes an item and space, and the sample.

    Parameters
    ----------
    told
        Called with what is being read.

    Raises
    ------
    FreshetError
        When a topic is missing or Kafka does not answer.

    """
    told("models")
    named = read_models(settings)
    told("items")
    with_text = _texts_of_items(settings)
    sample = frozenset(heapq.nsmallest(SAMPLE_ITEMS, with_text, key=_order))
    told("item-vectors")
    found = _read_vectors(settings, sample)
    previous = named.served.previous if named.served else None
    served = found.get(named.served.fingerprint) if named.served else None
    spaces = {}
    for fingerprint in sorted(found.keys() | named.models.keys()):
        vectors = found.get(fingerprint, _Vectors())
        model = named.models.get(fingerprint)
        covered, outdated = count_covered(with_text, vectors.items)
        state = "other"
        if named.served and named.served.fingerprint == fingerprint:
            state = "served"
        elif previous and previous.fingerprint == fingerprint:
            state = "previous"
        spaces[fingerprint] = Space(
            fingerprint,
            model.model if model else "",
            vectors.dim or (model.dim if model else 0),
            covered,
            outdated,
            len(vectors.items),
            state,
            _overlap(served, vectors) if served is not None and state != "served" else None,
        )
    return Survey(named, len(with_text), spaces)


def read_models(settings: Settings) -> Named:
    """
    Read `models`.

    Raises
    ------
    FreshetError
        When the topic is missing, Kafka does not answer, or the served record cannot be read.

    """
    records: dict[bytes, bytes] = {}

    def take(messages: Sequence[Message]) -> None:
        for message in messages:
            if message.value() is None:
                records.pop(message.key() or b"", None)
            else:
                records[message.key() or b""] = message.value()

    _read(settings, "models", take, settings.kafka_timeout_s)
    value = records.pop(SERVED_KEY, None)
    served = decode_served(value) if value is not None else None
    models = {}
    for space in (served.previous, served) if served else ():
        if space is not None:
            models[space.fingerprint] = space
    for value in records.values():
        try:
            space = decode_served(value)
        except RecordFormatError:
            continue  # a name is for people; vectors and `served` are what counts
        models[space.fingerprint] = space
    return Named(served, models)


def vector_keys(settings: Settings, fingerprint: str) -> dict[bytes, int]:
    """
    Return the keys of a space that have a vector, each with its partition.

    Raises
    ------
    FreshetError
        When the topic is missing or Kafka does not answer.

    """
    prefix = fingerprint.encode() + b":"
    keys: dict[bytes, int] = {}

    def take(messages: Sequence[Message]) -> None:
        for message in messages:
            key = message.key()
            if key is None or not key.startswith(prefix):
                continue
            if message.value() is None:
                keys.pop(key, None)
            else:
                keys[key] = message.partition()

    _read(settings, "item-vectors", take)
    return keys


def _texts_of_items(settings: Settings) -> dict[str, bytes]:
    """Return the items that may be listed and have a text, each with the hash that its vector must have."""
    wanted: dict[str, dict[str, bytes | None]] = {"items": {}, "item-sightings": {}}

    def taking(name: str) -> Callable[[Sequence[Message]], None]:
        def take(messages: Sequence[Message]) -> None:
            for message in messages:
                item = decode_item(message.key(), message.value())
                if isinstance(item, str):
                    wanted[name][item] = None
                elif isinstance(item, Item):
                    wanted[name][item.item_id] = _wanted_hash(item)

        return take

    _read(settings, "items", taking("items"))
    if settings.accept_items_from_events:
        _read(settings, "item-sightings", taking("item-sightings"))
    # The shop's word, also that an item is gone, stands over what was seen in events.
    both = wanted["item-sightings"] | wanted["items"]
    return {item_id: digest for item_id, digest in both.items() if digest is not None}


def _wanted_hash(item: Item) -> bytes | None:
    """Return the hash that an item's vector must have, `_ANY` where that cannot be told, None without a text."""
    text = text_of(item)
    if not text:
        return None
    # Where images count, the hash tells which file it was, and only the encoder sees that.
    return _ANY if item.image_url else content_hash(text)


def count_covered(wanted: Mapping[str, bytes], found: Mapping[str, bytes]) -> tuple[int, int]:
    """
    Return how many items have the vector of their text, and how many that of an older one.

    >>> count_covered({"a": b"1", "b": b"2", "c": b"", "d": b"4"}, {"a": b"1", "b": b"0", "c": b"3", "gone": b"5"})
    (2, 1)
    """
    shared = wanted.keys() & found.keys()
    covered = sum(wanted[item_id] in {_ANY, found[item_id]} for item_id in shared)
    return covered, len(shared) - covered


def _read_vectors(settings: Settings, sample: Collection[str]) -> dict[str, _Vectors]:
    """Return every space's items, and the vectors of the sampled ones."""
    found: defaultdict[str, _Vectors] = defaultdict(_Vectors)

    def take(messages: Sequence[Message]) -> None:
        for message in messages:
            try:
                fingerprint, item_id = split_vector_key(message.key() or b"")
                vectors = found[fingerprint]
                value = message.value()
                if value is None:
                    vectors.items.pop(item_id, None)
                    vectors.sample.pop(item_id, None)
                    continue
                record = decode_vector(value)
                vectors.dim = len(record.vector)
                vectors.items[item_id] = record.content_hash
                if item_id in sample:
                    vectors.sample[item_id] = record.vector
            except RecordFormatError:
                continue  # the worker counts such a record; the item counts as not covered

    _read(settings, "item-vectors", take)
    return {fingerprint: vectors for fingerprint, vectors in found.items() if vectors.items}


def _overlap(old: _Vectors, new: _Vectors) -> float | None:
    """Compare two spaces over the sampled items that both cover."""
    shared = sorted(old.sample.keys() & new.sample.keys(), key=_order)
    if not shared:
        return None
    before, after = (np.stack([vectors.sample[item_id] for item_id in shared]) for vectors in (old, new))
    return neighbour_overlap(before, after, SAMPLE_QUERIES)


def _order(item_id: str) -> tuple[int, str]:
    """Return an order of items that has nothing to do with what they are, the same on every machine."""
    return zlib.crc32(item_id.encode()), item_id


def _read(settings: Settings, name: str, take: Callable[[Sequence[Message]], None], limit_s: float = _READ_S) -> None:
    partitions = range(partition_counts(settings, name)[name])
    read_to_end(settings, full_name(settings, name), partitions, take, Deadline(max(limit_s, settings.kafka_timeout_s)))
