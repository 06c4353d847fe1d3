"""The signals worker against a real Kafka: item events in, decayed popularity out, exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer

from streams.kafka.clients import librdkafka_config
from streams.kafka.partitioner import partition_of
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.dead_letters import DeadLetter
from streams.wire.signals import ItemEvent, encode_item_events, item_events
from tests.support.roles import RoleProcess
from tests.support.verifier import Read, read_topic

pytestmark = pytest.mark.integration

_NOW_MS = 1_767_225_600_000
_CLICK = 1
_DISLIKE = 4


def tell(settings: Settings, events: dict[str, int], transactional_id: str) -> None:
    """Send so many clicks of each item as an interest worker does: in batches, in one transaction."""
    producer = Producer(librdkafka_config(settings, transactional_id=transactional_id))
    producer.init_transactions(30)
    producer.begin_transaction()
    for item_id, count in events.items():
        batch = [ItemEvent(user, item_id, _CLICK, _NOW_MS) for user in range(count)]
        batch.append(ItemEvent(0, item_id, _DISLIKE, _NOW_MS))
        partition = partition_of(item_id.encode(), settings.partitions)
        producer.produce(full_name(settings, "item-events"), encode_item_events(item_events(batch)), None, partition)
    producer.commit_transaction(30)


def signals(settings: Settings) -> dict[str, dict[str, float]]:
    """The newest published signals of each item."""
    newest = {read.key: read for read in read_topic(settings, "item-signals")}
    return {(read.key or b"").decode(): orjson.loads(read.value or b"") for read in newest.values()}


def wait_for_events(settings: Settings, item_id: str, events: int, timeout_s: float = 30) -> None:
    """Wait until an item's signals count so many events."""
    end = time.monotonic() + timeout_s
    while signals(settings).get(item_id, {}).get("events") != events:
        assert time.monotonic() < end, signals(settings)
        time.sleep(0.3)


def dead_letters(settings: Settings) -> list[DeadLetter]:
    """All dead letters."""

    def letter(read: Read) -> DeadLetter:
        return DeadLetter.from_record(read.headers, read.value)

    return [letter(read) for read in read_topic(settings, "dead-letters")]


def test_popularity_is_exact_across_a_kill(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """
    Counts are those of the events, killed and restarted in between, and a restarted worker becomes ready.

    Item events end in a transaction's marker, an offset without a record: waiting for it would be waiting for ever.
    """
    settings = settings_for(partitions=2, signals_publish_interval_s=0.2, kafka_session_timeout_s=8, commit_timeout_s=5)
    with RoleProcess("signals", settings, tmp_path) as process:
        process.ready()
        tell(settings, {"a": 3, "b": 1}, "t-1")
        wait_for_events(settings, "a", 4)
        process.kill()
        tell(settings, {"a": 2}, "t-1")
        process.start().ready()
        wait_for_events(settings, "a", 7)
        found = signals(settings)

    assert 2 == found["b"]["events"]
    assert pytest.approx(5.0) == found["a"]["popularity"]
    assert pytest.approx(1.0) == found["b"]["popularity"]


def test_a_batch_that_cannot_be_read_is_kept(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """A damaged batch becomes a dead letter with its bytes; the partition goes on."""
    settings = settings_for(partitions=1, signals_publish_interval_s=0.2)
    producer = Producer(librdkafka_config(settings))
    damaged = encode_item_events(item_events([ItemEvent(1, "a", _CLICK, _NOW_MS)]))[:-1] + b"\x00"
    producer.produce(full_name(settings, "item-events"), damaged, None, 0)
    assert producer.flush(30) == 0
    with RoleProcess("signals", settings, tmp_path) as process:
        process.ready()
        tell(settings, {"a": 1}, "t-2")
        wait_for_events(settings, "a", 2)
        (letter,) = dead_letters(settings)

    assert damaged == letter.value
    assert full_name(settings, "item-events") == letter.topic
    assert "checksum" in letter.error
