"""
The one place that knows Freshet's topics: name, key, partitions, cleanup, size limits.

`freshet topics create|check` and the Kubernetes resources are made from `TOPICS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from streams.settings import EVENT_TYPES, Settings

_DAY_MS = 86_400_000
_INPUT_RETENTION_MS = 30 * _DAY_MS

#: The mark of an erased user stays for as long as a record from before may still be read, and a week for a topic whose
#: segments go late or that is mirrored behind: without it such a record would bring the user back.
ERASURE_MARK_MS = _INPUT_RETENTION_MS + 7 * _DAY_MS

#: Room for the largest legal event (64 KiB) plus what producers wrap around it; the worker refuses what is
#: above 64 KiB itself, so that a too large event ends in dead-letters with a reason and not in a log of its producer.
_EVENT_BYTES = 1_048_576
#: A dead letter carries up to 1 MiB of original bytes and its headers.
_DEAD_LETTER_BYTES = 1_300_000

Cleanup = Literal["delete", "compact"]


@dataclass(frozen=True, slots=True)
class Topic:
    """
    One topic as it must be.

    Attributes
    ----------
    name
        Without the namespace; `full_name` adds it.
    key
        What the record key means, for people.
    co_partitioned
        True where partition numbers must line up with the event topics.

    """

    name: str
    key: str
    cleanup: Cleanup
    content: str
    co_partitioned: bool = False
    max_message_bytes: int = 1_048_576
    retention_ms: int | None = None
    config: dict[str, str] = field(default_factory=dict)

    def full_name(self, settings: Settings) -> str:
        """Name in Kafka: with the namespace's prefix."""
        return f"{settings.topic_prefix}{self.name}"

    def kafka_config(self) -> dict[str, str]:
        """Topic-level configuration for the broker."""
        config = {
            "cleanup.policy": self.cleanup,
            "max.message.bytes": str(self.max_message_bytes),
            **self.config,
        }
        if self.retention_ms is not None:
            config["retention.ms"] = str(self.retention_ms)
        return config


# A compacted topic keeps its newest records uncompacted for ten minutes, so that a reader that is a little behind
# still sees each version; small dirty ratio and hourly segments keep restore short.
_COMPACT = {
    "min.compaction.lag.ms": "600000",
    "segment.ms": "3600000",
    "min.cleanable.dirty.ratio": "0.3",
    "delete.retention.ms": str(7 * _DAY_MS),
}


def _events(name: str, content: str) -> Topic:
    return Topic(
        name,
        "user_id",
        "delete",
        content,
        co_partitioned=True,
        max_message_bytes=_EVENT_BYTES,
        retention_ms=_INPUT_RETENTION_MS,
    )


def _compacted(name: str, key: str, content: str) -> Topic:
    return Topic(name, key, "compact", content, config=dict(_COMPACT))


def _per_user(name: str, key: str, content: str) -> Topic:
    """Return a compacted topic from which what was overwritten or erased is gone within a day, busy or not."""
    config = _COMPACT | {"max.compaction.lag.ms": str(_DAY_MS)}
    return Topic(name, key, "compact", content, co_partitioned=True, config=config)


_ALL = (
    *(_events(name, f"JSON events: {name}") for name in EVENT_TYPES),
    _events("user-erasures", "JSON requests to forget a user"),
    Topic(
        "erasure-receipts",
        "request_id",
        "delete",
        "JSON receipts of erasures, without user ids",
        # Whoever must show that a user was forgotten has a year to fetch the receipt.
        retention_ms=365 * _DAY_MS,
    ),
    _events("merges", "old user id to new user id"),
    _compacted("items", "item_id", "JSON item snapshots by the shop; a tombstone deletes"),
    _compacted("item-sightings", "item_id", "first snapshot of an item met in an event"),
    _compacted("item-vectors", "fingerprint:item_id, partitioned by item_id", "binary item vectors"),
    Topic(
        "item-events",
        "partitions of the event's items",
        "delete",
        "binary batches, interest to signals",
        retention_ms=7 * _DAY_MS,
    ),
    _compacted("signal-state", "item_id", "the signals worker's changelog"),
    _compacted("item-signals", "item_id", "JSON decayed popularity, trend"),
    _compacted("item-neighbours", "item_id", "JSON items that go with the item"),
    _compacted("item-rules", "item_id", "JSON rules of the shop: block, pin, boost"),
    _per_user("user-state", "user_id", "binary changelog of UserState"),
    _per_user("recommendations", "user_id, or user_id 0x1F surface", "JSON lists"),
    _compacted("experiments", "experiment key", "JSON experiment definitions"),
    _compacted("models", "served, or a fingerprint", "JSON: which encoder fingerprint is served, and its model"),
    Topic(
        "dead-letters",
        "source topic",
        "delete",
        "refused records: original bytes, reason in headers",
        max_message_bytes=_DEAD_LETTER_BYTES,
        retention_ms=7 * _DAY_MS,
    ),
)

#: Every topic by its name without namespace.
TOPICS: dict[str, Topic] = {topic.name: topic for topic in _ALL}

#: The topics the interest worker folds, in the order of their type codes.
EVENT_TOPICS: tuple[str, ...] = EVENT_TYPES
#: All that it consumes.
INTEREST_TOPICS: tuple[str, ...] = (*EVENT_TOPICS, "user-erasures")


def full_name(settings: Settings, name: str) -> str:
    """
    Kafka's name of a topic.

    >>> full_name(Settings(namespace="shop"), "clicks")
    'shop.clicks'
    """
    return TOPICS[name].full_name(settings)
