"""
The judge from outside: reads topics with kafka-python and Redis with redis-py, knows nothing of the workers.

kafka-python is not what the workers read or write events with, so that one client's mistake cannot hide itself.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import orjson
import redis
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from streams.kafka.clients import kafka_python_config
from streams.settings import Settings
from streams.topics import EVENT_TOPICS, full_name
from tests.support.oracle import Oracle


class Read(NamedTuple):
    """One record read back."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def read_topic(
    settings: Settings, name: str, isolation: Literal["read_committed", "read_uncommitted"] = "read_committed"
) -> list[Read]:
    """Return every record of a topic as it is now, in offset order within a partition."""
    return _read(settings, full_name(settings, name), isolation)


def _read(settings: Settings, topic: str, isolation: Literal["read_committed", "read_uncommitted"]) -> list[Read]:
    consumer = KafkaConsumer(**kafka_python_config(settings, isolation_level=isolation, enable_auto_commit=False))
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        consumer.seek_to_beginning(*partitions)
        records: list[Read] = []
        deadline = time.monotonic() + 60
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            assert time.monotonic() < deadline, f"{topic} was not read to its end in 60 s"
            for batch in consumer.poll(timeout_ms=200, max_records=5_000).values():
                records.extend(
                    Read(record.partition, record.offset, record.key, record.value, list(record.headers))
                    for record in batch
                )
        return records
    finally:
        consumer.close()


def wait_until_consumed(settings: Settings, timeout_s: float = 120.0) -> None:
    """Wait until the interest group has committed every event topic to its end."""
    topics = [full_name(settings, name) for name in EVENT_TOPICS]
    consumer = KafkaConsumer(**kafka_python_config(settings, enable_auto_commit=False))
    admin = KafkaAdminClient(**kafka_python_config(settings))
    try:
        partitions = [
            TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic)
        ]
        ends = consumer.end_offsets(partitions)
        deadline = time.monotonic() + timeout_s
        while True:
            group = settings.group("interest")
            found = admin.list_group_offsets([group])[group]
            behind = {
                partition: end
                for partition, end in ends.items()
                if end and (partition not in found or found[partition].offset < end)
            }
            if not behind:
                return
            assert time.monotonic() < deadline, f"not consumed after {timeout_s} s: {behind}"
            time.sleep(0.2)
    finally:
        admin.close()
        consumer.close()


def committed_history(settings: Settings, role: str = "interest") -> dict[tuple[str, int], list[int]]:
    """
    Return every offset a role's group has committed, by topic and partition, in order.

    Read from Kafka's own log of them, so that no commit is missed; those of aborted transactions are not in it.
    """
    history: dict[tuple[str, int], list[int]] = {}
    group = settings.group(role)
    for read in _read(settings, "__consumer_offsets", "read_committed"):
        key, value = io.BytesIO(read.key or b""), read.value
        # Versions 0 and 1 of the key are offsets, 2 is the group itself; no value forgets an offset.
        if int.from_bytes(key.read(2)) > 1 or value is None or _text(key) != group:
            continue
        place = _text(key), int.from_bytes(key.read(4))
        history.setdefault(place, []).append(int.from_bytes(value[2:10]))
    return history


def _text(data: io.BytesIO) -> str:
    return data.read(int.from_bytes(data.read(2))).decode()


class Lists:
    """What `recommendations` says of every user: the last list, and that versions never fell."""

    def __init__(self, records: Iterable[Read]) -> None:
        self.last: dict[str, bytes] = {}
        self.fallen: list[tuple[str, int, int]] = []
        versions: dict[bytes, int] = {}
        for record in records:
            assert record.key is not None
            if record.key.startswith(b"\x00"):  # no user's: written to roll a segment
                continue
            assert record.value is not None
            version = orjson.loads(record.value)["version"]
            if version <= versions.get(record.key, -1):
                self.fallen.append((record.key.decode(), versions[record.key], version))
            versions[record.key] = version
            if not record.key.startswith(b"\x1f"):
                self.last[record.key.decode()] = record.value

    def applied(self, user_id: str) -> dict[str, int]:
        """Return `events_applied` of a user's last list."""
        found: dict[str, int] = orjson.loads(self.last[user_id])["events_applied"]
        return found

    def items(self, user_id: str) -> set[str]:
        """Return the items of a user's last list."""
        return {item["item_id"] for item in orjson.loads(self.last[user_id])["items"]}


def check_everything(settings: Settings, oracle: Oracle) -> Lists:
    """
    Hold topics and Redis against the oracle, for every user.

    The last list has applied exactly the oracle's events; versions never fell, for committed and uncommitted readers;
    Redis holds the last list byte for byte with a TTL; no disliked or purchased item is on it. Committed offsets
    never went back.
    """
    lists = Lists(read_topic(settings, "recommendations"))
    uncommitted = Lists(read_topic(settings, "recommendations", "read_uncommitted"))
    cache = redis.Redis.from_url(settings.redis_url)
    wrong: list[Any] = []
    for user_id in oracle.users():
        expected = {name: count for name, count in oracle.events_applied(user_id).items() if count}
        if user_id not in lists.last:
            wrong.append((user_id, "has no list"))
            continue
        if expected != lists.applied(user_id):
            wrong.append((user_id, expected, lists.applied(user_id)))
        if barred := lists.items(user_id) & (oracle.disliked(user_id) | oracle.purchased(user_id)):
            wrong.append((user_id, "lists", barred))
        key = f"{settings.redis_prefix}rec:{user_id}"
        if cache.get(key) != lists.last[user_id]:
            wrong.append((user_id, "Redis differs", cache.get(key), lists.last[user_id]))
        if not 0 < cache.ttl(key) <= settings.redis_ttl_s:
            wrong.append((user_id, "TTL", cache.ttl(key)))
    cache.close()

    assert not wrong, f"{len(wrong)} of {len(oracle.users())} users are wrong: {str(wrong[:5])[:4_000]}"
    assert [] == lists.fallen
    assert [] == uncommitted.fallen
    for place, offsets in committed_history(settings).items():
        assert offsets == sorted(offsets), f"offsets of {place} went back"

    return lists
