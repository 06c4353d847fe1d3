"""Replay against a real Kafka: everything arrives, nearly in order, where Java's producer would put it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Message

from streams.datasets.log import Entry, Log
from streams.datasets.movielens import movielens
from streams.datasets.replay import IN_FLIGHT, BoundedProducer, load_items, replay
from streams.errors import DependencyError
from streams.kafka.admin import create_topics
from streams.kafka.bulk_read import read_to_end
from streams.kafka.deadline import Deadline
from streams.kafka.partitioner import partition_of
from streams.local.processes import free_port
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.items import Item
from tests.support.services import running_kafka

pytestmark = pytest.mark.integration

_TYPES = ("views", "clicks", "dislikes")


def _log(count: int) -> Log:
    entries = [
        Entry(
            _TYPES[number % 3],
            1_767_225_600_000 + number,
            {"event_id": f"e{number}", "user_id": f"u{number % 50}", "item_id": "i", "number": number},
        )
        for number in range(count)
    ]
    return Log("made", entries, [])


def _read(settings: Settings, topic: str) -> list[Message]:
    messages: list[Message] = []
    read_to_end(settings, full_name(settings, topic), range(4), messages.extend, Deadline(30))
    return messages


def test_everything_arrives_once_and_in_order_within_a_partition(settings_for: Callable[..., Settings]) -> None:
    """No event is lost or doubled, its time is shifted, and a partition keeps the order of the log."""
    settings = settings_for()
    told: list[int] = []

    assert 5_000 == replay(settings, _log(5_000), speed=None, shift_ms=1_000, progress=told.append)

    messages = [message for topic in _TYPES for message in _read(settings, topic)]
    values = [orjson.loads(message.value() or b"") for message in messages]
    assert list(range(5_000)) == sorted(value["number"] for value in values)
    assert all(value["ts"] == 1_767_225_600_000 + value["number"] + 1_000 for value in values)
    assert [0, 5_000] == [told[0], told[-1]]
    for message, value in zip(messages, values, strict=True):
        assert value["user_id"].encode() == message.key()
        assert partition_of(value["user_id"].encode(), 4) == message.partition()
    for topic in _TYPES:
        for partition in range(4):
            numbers = [
                value["number"]
                for message, value in zip(messages, values, strict=True)
                if (message.topic(), message.partition()) == (full_name(settings, topic), partition)
            ]
            assert sorted(numbers) == numbers


def test_at_most_200_events_are_unacknowledged(settings_for: Callable[..., Settings]) -> None:
    """This bounds the disorder on the broker, whatever the speed."""
    settings = settings_for()
    topic = full_name(settings, "views")
    unacknowledged = []

    with BoundedProducer(settings) as producer:
        for number in range(3_000):
            producer.send(topic, b"u", b"%d" % number)
            unacknowledged.append(number + 1 - producer.acknowledged)

    assert max(unacknowledged) <= IN_FLIGHT
    assert 3_000 == producer.acknowledged


def test_speed_is_kept(settings_for: Callable[..., Settings]) -> None:
    """At 1,000 events a second 500 events take half a second, not less."""
    settings = settings_for()
    started = time.monotonic()

    replay(settings, _log(500), speed=1_000)

    assert 0.45 <= time.monotonic() - started


def test_items_are_loaded_as_snapshots(settings_for: Callable[..., Settings]) -> None:
    """Each item is one record on `items`, keyed by its id."""
    settings = settings_for()
    items = [Item(f"i{number}", title=f"Mug {number}") for number in range(10)]

    assert 10 == load_items(settings, items)
    expected = {item.item_id.encode(): item.encode() for item in items}
    assert expected == {message.key(): message.value() for message in _read(settings, "items")}


def test_a_kafka_that_goes_away_ends_the_replay_with_a_sentence(tmp_path: Path) -> None:
    """Unacknowledged events are not taken for sent: the replay fails within its timeout."""
    with running_kafka(tmp_path) as kafka:
        settings = Settings(kafka_bootstrap=kafka.bootstrap, kafka_timeout_s=3, partitions=2)
        create_topics(settings)

        def progress(done: int) -> None:
            if done == 1_000:
                kafka.kill()

        with pytest.raises(DependencyError, match="Kafka did not"):
            replay(settings, _log(20_000), speed=None, progress=progress)


def test_no_kafka_at_all_is_a_sentence() -> None:
    """The same where nothing listens."""
    settings = Settings(kafka_bootstrap=f"127.0.0.1:{free_port()}", kafka_timeout_s=1)

    with pytest.raises(DependencyError, match="Kafka did not"):
        replay(settings, _log(IN_FLIGHT * 2), speed=None)


def test_movielens_is_the_log_the_project_is_measured_with() -> None:
    """943 users, 1,682 films, 100,000 ratings in time order; 4 and 5 are clicks, 3 views, 1 and 2 dislikes."""
    log = movielens(Settings().cache_dir)
    counts = {topic: sum(entry.topic == topic for entry in log.entries) for topic in _TYPES}

    assert {"views": 27_145, "clicks": 55_375, "dislikes": 17_480} == counts
    assert 943 == len({entry.fields["user_id"] for entry in log.entries})
    assert 100_000 == len({entry.fields["event_id"] for entry in log.entries})
    assert log.entries == sorted(log.entries, key=lambda entry: entry.ts_ms)
    assert ["Toy Story", "Animation", (("year", "1995"),)] == [
        log.items[0].title,
        log.items[0].category,
        log.items[0].attributes,
    ]
    assert 1_682 == len({item.item_id for item in log.items})
    assert 1_680 == sum(bool(item.attributes) for item in log.items)
