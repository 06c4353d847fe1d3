"""The signals worker against a real Kafka: item events in, popularity and neighbours out, exactly once."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from streams.kafka.clients import librdkafka_config
from streams.kafka.partitioner import partition_of
from streams.settings import Settings
from streams.signals.fitting import fit_histories
from streams.signals.histories import Histories
from streams.signals.routing import item_partitions, routed
from streams.topics import full_name
from streams.wire.dead_letters import DeadLetter
from streams.wire.signals import ItemEvent, decode_item_events, encode_item_events, item_events
from tests.support.plain_signals import PlainSignals
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


def signals(settings: Settings) -> dict[str, dict[str, Any]]:
    """The newest published signals of each item."""
    newest = {read.key: read for read in read_topic(settings, "item-signals")}
    return {(read.key or b"").decode(): orjson.loads(read.value or b"") for read in newest.values()}


def neighbours(settings: Settings) -> dict[str, dict[str, Any]]:
    """What is published to go with each item."""
    newest = {read.key: read for read in read_topic(settings, "item-neighbours")}
    return {(read.key or b"").decode(): orjson.loads(read.value or b"") for read in newest.values()}


def wait_for_events(settings: Settings, item_id: str, events: int, timeout_s: float = 30) -> None:
    """Wait until an item's signals count so many events."""
    end = time.monotonic() + timeout_s
    while signals(settings).get(item_id, {}).get("events") != events:
        assert time.monotonic() < end, signals(settings)
        time.sleep(0.3)


class Shoppers:
    """Users who walk through items, told as an interest worker tells them, in small transactions."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.told = 0
        self._settings = settings
        self._rng = random.Random(seed)
        self._met: defaultdict[int, list[str]] = defaultdict(list)
        self._producer = Producer(librdkafka_config(settings, transactional_id="shoppers"))
        self._producer.init_transactions(30)

    def walk(self, events: int) -> None:
        """Tell so many events: most users go on to the next item of a circle."""
        for begin in range(0, events, 50):
            rows = [self._step(self.told + number) for number in range(min(50, events - begin))]
            self._producer.begin_transaction()
            batch = item_events(rows)
            for partition, value in routed(batch, item_partitions(batch.ids, self._settings.partitions)):
                self._producer.produce(full_name(self._settings, "item-events"), value, None, partition)
            self._producer.commit_transaction(30)
            self.told += len(rows)

    def _step(self, number: int) -> ItemEvent:
        user = self._rng.randrange(40)
        met = self._met[user]
        here = int(met[-1][1:]) if met else self._rng.randrange(25)
        item_id = f"i{(here + self._rng.choice([1, 1, 1, 2, 7])) % 25}"
        previous = tuple(reversed(met[-3:]))
        met.append(item_id)
        kind, device = self._rng.choice([0, 1, 1, 3, 4]), self._rng.choice([0, 1, 2, 255])
        return ItemEvent(user, item_id, kind, _NOW_MS + number * 60_000, previous, device)


def owners_of(settings: Settings) -> list[PlainSignals]:
    """What each partition's owner makes of what is on `item-events`, in plain loops."""
    owners = [PlainSignals(settings, number) for number in range(settings.partitions)]
    for read in read_topic(settings, "item-events"):
        owners[read.partition].fold(read.value or b"")
    return owners


def plain(settings: Settings) -> tuple[dict[str, int], dict[str, list[tuple[str, float]]]]:
    """How often items stand on `item-events`, and the rules learned from it, by each item's owner."""
    owners = owners_of(settings)
    events = {item_id: count for owner in owners for item_id, count in owner.events.items()}
    rules = {str(item_id): owner.followers(str(item_id)) for owner in owners for item_id in owner.hitters.rows}
    return events, rules


def fitted(settings: Settings) -> dict[str, dict[str, float]]:
    """The fit of what is on `item-events`, read again from its beginning."""
    histories = Histories(1_000, settings.neighbours_history)
    for read in reversed(read_topic(settings, "item-events")):
        events = decode_item_events(read.value or b"")
        own = item_partitions(events.ids, settings.partitions)[events.item] == read.partition
        histories.add(events, own & (events.type_code != _DISLIKE))
    fit = fit_histories(histories, settings, settings.partitions)
    return {item_id: dict(fit.neighbours(place)) for place, item_id in enumerate(fit.ids)}


def test_neighbours_are_those_of_what_was_committed(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """
    Killed twice in mid stream, the worker publishes exactly what plain loops make of the topic, by hour and device too.

    The fitted family, whose histories are read again after each start, ends as the fit of all events.
    """
    settings = settings_for(
        partitions=2,
        signals_publish_interval_s=0.2,
        kafka_session_timeout_s=8,
        commit_timeout_s=5,
        neighbours_refit_interval_s=1.0,
        neighbours_regularisation=5.0,
        neighbours_window_s=10 * 365 * 86_400.0,
        day_parts=2,
        user_devices=("phone", "tv"),
    )
    shoppers = Shoppers(settings, 11)
    with RoleProcess("signals", settings, tmp_path) as process:
        process.ready()
        for _ in range(2):
            shoppers.walk(600)
            time.sleep(0.4)
            process.kill()
            shoppers.walk(200)
            process.start().ready()
        shoppers.walk(300)
        events, rules = plain(settings)
        wait_until(lambda: {name: found["events"] for name, found in signals(settings).items()} == events)
        expected = fitted(settings)
        wait_until(
            lambda: (
                {name: dict(found.get("neighbours", ())) for name, found in neighbours(settings).items()}
                == {name: pytest.approx(weights, abs=1e-4) for name, weights in expected.items()}
            )
        )
        wait_until(
            lambda: (
                {name: found.get("followers") for name, found in neighbours(settings).items()}
                == {name: [list(rule) for rule in told] for name, told in rules.items()}
            )
        )
        found, demand = neighbours(settings), signals(settings)

    for owner in owners_of(settings):
        for name in owner.events:
            assert pytest.approx(owner.in_segments(name, demand[name]["ref_ts"])) == demand[name]["in_segments"]
    assert shoppers.told == sum(events.values())
    assert all(told["followers"][0][0] == f"i{(int(name[1:]) + 1) % 25}" for name, told in found.items())


def wait_until(holds: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait until something holds."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end
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
