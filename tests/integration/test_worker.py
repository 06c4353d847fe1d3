"""The interest worker against a real Kafka and Redis: events in, lists out, bad records aside."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import orjson
import pytest
import redis
from confluent_kafka import Producer

from streams.kafka.clients import librdkafka_config
from streams.kafka.partitioner import LIBRDKAFKA_PARTITIONER, partition_of
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.dead_letters import DeadLetter
from streams.wire.vectors import encode_vector, vector_key
from tests.support.bad_records import BAD_RECORDS, RECORD_TS_MS
from tests.support.oracle import Oracle
from tests.support.roles import RoleProcess
from tests.support.shop import DIM, FINGERPRINT, Sent, events, producer, send, stock
from tests.support.verifier import check_everything, read_topic, wait_until_consumed

pytestmark = pytest.mark.integration

T = TypeVar("T")


@pytest.fixture(scope="module")
def settings(settings_for: Callable[..., Settings]) -> Settings:
    """One namespace for the module, with a stocked shop and an experiment."""
    made = settings_for(partitions=4, accept_items_from_events=True)
    stock(made)
    return made


def click(user_id: str, item_id: str, **fields: object) -> Sent:
    """A click now."""
    now = time.time_ns()
    return Sent(
        "clicks", {"event_id": f"t{now}", "user_id": user_id, "item_id": item_id, "ts": now // 1_000_000, **fields}
    )


def wait_for(ask: Callable[[], T | None], timeout_s: float = 15.0) -> T:
    """Return the first answer that is not None."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if (found := ask()) is not None:
            return found
        time.sleep(0.02)
    raise AssertionError(f"nothing after {timeout_s} s")


def letters_of(settings: Settings, topic: str) -> list[DeadLetter]:
    """Return the dead letters from a topic."""
    letters = [DeadLetter.from_record(read.headers, read.value) for read in read_topic(settings, "dead-letters")]
    return [letter for letter in letters if letter.topic == full_name(settings, topic)]


def list_of(cache: redis.Redis, settings: Settings, user_id: str, after_version: int = 0) -> dict[str, object]:
    """Return a user's list from Redis once it is newer than a version."""

    def newer() -> dict[str, object] | None:
        value = cache.get(f"{settings.redis_prefix}rec:{user_id}")
        found: dict[str, object] | None = orjson.loads(value) if value else None
        return found if found and int(str(found["version"])) > after_version else None

    return wait_for(newer)


def test_a_click_makes_a_list(settings: Settings, worker: RoleProcess, cache: redis.Redis) -> None:
    """A first click puts a full list with a true reason into Redis, without the clicked item."""
    del worker
    out = producer(settings)
    send(out, settings, click("first", "i5"))
    out.flush()
    found = list_of(cache, settings, "first")
    items: list[dict[str, object]] = found["items"]  # type: ignore[assignment]  # checked below

    assert 20 == len(items)
    assert "i5" not in {item["item_id"] for item in items}
    assert {"clicks": 1} == found["events_applied"]
    assert [{"item_id": "i5", "type": "clicks", "share": 1.0}] == items[0]["because"]
    assert "event" == found["trigger"]["kind"]  # type: ignore[index]  # a JSON object
    assert FINGERPRINT == found["model"]


def test_topic_and_redis_hold_the_oracles_lists(settings: Settings, worker: RoleProcess) -> None:
    """After a seeded stream every user's list is what the plain-loop oracle says, in the topic and in Redis."""
    oracle = Oracle()
    out = producer(settings)
    for sent in events(3_000, users=80, seed=11):
        send(out, settings, sent)
        oracle.add(sent.type_name, sent.event)
    assert out.flush(30) == 0
    wait_until_consumed(settings)
    wait_for(lambda: True if worker.metric("freshet_dirty_users") == 0 else None)
    time.sleep(1)

    check_everything(settings, oracle)


def test_bad_records_become_dead_letters(settings: Settings, worker: RoleProcess, cache: redis.Redis) -> None:
    """Every kind of bad record is kept with its reason, once, and the partition goes on."""
    del worker
    out = producer(settings)
    before = len(read_topic(settings, "dead-letters"))
    for bad in BAD_RECORDS:
        partition = partition_of(bad.key, settings.partitions) if bad.key is not None else 0
        out.produce(full_name(settings, bad.type_name), bad.value, bad.key, partition, timestamp=RECORD_TS_MS)
    good = click("after-the-bad", "i1")
    misplaced = (partition_of(b"after-the-bad", settings.partitions) + 1) % settings.partitions
    stranger = orjson.dumps({**good.event, "user_id": "stranger"})
    strange = (partition_of(b"stranger", settings.partitions) + 1) % settings.partitions
    out.produce(full_name(settings, "clicks"), stranger, b"stranger", strange)
    for partition in range(settings.partitions):
        out.produce(full_name(settings, "views"), b"\xff", b"u", partition)
    send(out, settings, good)
    assert out.flush(30) == 0
    wait_until_consumed(settings)
    letters = [
        DeadLetter.from_record(read.headers, read.value) for read in read_topic(settings, "dead-letters")[before:]
    ]

    assert misplaced != partition_of(b"after-the-bad", settings.partitions)
    assert len(BAD_RECORDS) + 1 + settings.partitions == len(letters)
    assert "wrong_partition" in {letter.reason for letter in letters}
    for bad in BAD_RECORDS:
        topic = full_name(settings, bad.type_name)
        kept = [letter for letter in letters if (letter.topic, letter.key, letter.value) == (topic, bad.key, bad.value)]
        assert bad.reason in {letter.reason for letter in kept}, bad.name
    assert {"clicks": 1} == list_of(cache, settings, "after-the-bad")["events_applied"]


def test_an_event_from_the_future_is_clamped(settings: Settings, worker: RoleProcess, cache: redis.Redis) -> None:
    """A clock that runs ahead costs the event nothing but its lead beyond two minutes."""
    clamped = worker.metric("freshet_events_clamped_total")
    out = producer(settings)
    now_ms = round(time.time() * 1000)
    send(out, settings, click("ahead", "i2", ts=now_ms + 3_600_000))
    out.flush()
    found = list_of(cache, settings, "ahead")

    assert abs(int(str(found["event_ts"])) - now_ms - 120_000) < 5_000
    assert clamped + 1 == worker.metric("freshet_events_clamped_total")


def test_a_vector_that_comes_late_counts(settings: Settings, worker: RoleProcess, cache: redis.Redis) -> None:
    """An event with an item that nobody knows lists it from its snapshot; when its vector comes, the list changes."""
    del worker
    out = producer(settings)
    send(out, settings, click("early", "new-item", item={"title": "Brand new"}))
    out.flush()
    first = list_of(cache, settings, "early")

    assert {"popular", "catalogue"} >= {item["source"] for item in first["items"]}  # type: ignore[attr-defined]  # a list

    wait_for(lambda: b"new-item" in {read.key for read in read_topic(settings, "item-sightings")} or None)

    vector = np.zeros(DIM, np.float32)
    vector[0] = 1
    out.produce(
        full_name(settings, "item-vectors"), encode_vector(bytes(16), vector), vector_key(FINGERPRINT, "new-item"),
        partition_of(b"new-item", settings.partitions),
    )  # fmt: skip
    out.flush()
    second = list_of(cache, settings, "early", int(str(first["version"])))

    assert "catalogue" == second["trigger"]["kind"]  # type: ignore[index]  # a JSON object
    assert "interest" in {item["source"] for item in second["items"]}  # type: ignore[attr-defined]  # a list


def test_items_leave_lists_when_the_shop_says_so(settings: Settings, worker: RoleProcess, cache: redis.Redis) -> None:
    """An item that is out of stock or deleted is on no list made afterwards."""
    del worker
    out = producer(settings)
    send(out, settings, click("stock", "i3"))
    out.flush()
    first = list_of(cache, settings, "stock")
    gone = [str(item["item_id"]) for item in first["items"]][:2]  # type: ignore[attr-defined]  # a list
    out.produce(full_name(settings, "items"), b'{"title": "x", "in_stock": false}', gone[0].encode())
    out.produce(full_name(settings, "items"), None, gone[1].encode())
    out.flush()
    time.sleep(1)
    send(out, settings, click("stock", "i4"))
    out.flush()
    second = list_of(cache, settings, "stock", int(str(first["version"])))

    assert not {item["item_id"] for item in second["items"]} & set(gone)  # type: ignore[attr-defined]  # a list


def test_rules_of_the_shop_hold_in_lists(settings: Settings, worker: RoleProcess, cache: redis.Redis) -> None:
    """A blocked item leaves, a pinned one comes, a rule begins without a record; a bad one is a dead letter."""
    del worker
    out = producer(settings)
    send(out, settings, click("ruled", "i3"))
    out.flush()
    first = list_of(cache, settings, "ruled")
    blocked, pinned, later, *_ = [str(item["item_id"]) for item in first["items"]][::-1]  # type: ignore[attr-defined]  # a list
    soon = orjson.dumps({"block": {"from": round(time.time() * 1000) + 500}})
    rules = {blocked: b'{"block": {}}', pinned: b'{"pin": {"slot": 1}}', later: soon}
    for item_id, rule in (rules | {"x": b"{"}).items():
        out.produce(full_name(settings, "item-rules"), rule, item_id.encode())
    out.flush()
    newest = first

    def ruled() -> list[str] | None:
        """Return the list after another click, once the item is pinned; until then what is blocked may be struck."""
        nonlocal newest
        send(out, settings, click("ruled", "i4"))
        out.flush()
        newest = list_of(cache, settings, "ruled", int(str(newest["version"])))
        items = [str(item["item_id"]) for item in newest["items"]]  # type: ignore[attr-defined]  # a list
        return items if items[0] == pinned and not set(items) & {blocked, later} else None

    items = wait_for(ruled, 60)
    letters = wait_for(lambda: letters_of(settings, "item-rules") or None)
    for item_id in rules:
        out.produce(full_name(settings, "item-rules"), None, item_id.encode())
    out.flush()

    assert (pinned, set()) == (items[0], set(items) & {blocked, later})
    assert first["as_of"]["rules"] < newest["as_of"]["rules"]  # type: ignore[index]  # a JSON object
    assert [(b"x", b"{", "not_json")] == [(letter.key, letter.value, letter.reason) for letter in letters]


def test_an_experiment_changes_live(settings: Settings, worker: RoleProcess, cache: redis.Redis) -> None:
    """A definition on `experiments` puts users into variants, on the list and in Redis; a tombstone ends it."""
    del worker
    out = producer(settings)
    definition = {
        "key": "pop", "salt": "s", "revision": 3, "coverage": 1.0,
        "variants": [{"name": "a", "weight": 1, "ranking": {"popularity": 5.0}}],
        "overrides": {},
    }  # fmt: skip
    out.produce(full_name(settings, "experiments"), orjson.dumps(definition), b"pop")
    out.flush()
    time.sleep(1)
    send(out, settings, click("tested", "i7"))
    out.flush()
    first = list_of(cache, settings, "tested")

    assert "a" == first["experiments"]["pop"]["variant"]  # type: ignore[index]  # a JSON object
    assert b"a" == cache.hget(f"{settings.redis_prefix}ab:tested", "pop")

    out.produce(full_name(settings, "experiments"), None, b"pop")
    out.flush()
    time.sleep(1)
    send(out, settings, click("tested", "i8"))
    out.flush()

    assert {} == list_of(cache, settings, "tested", int(str(first["version"])))["experiments"]


def test_there_is_a_list_for_visitors(settings: Settings, worker: RoleProcess, cache: redis.Redis) -> None:
    """Visitors without events find a default list of their surface, with a TTL."""
    del worker
    key = f"{settings.redis_prefix}rec-default:home"
    found = bytes(wait_for(lambda: cache.get(key)))  # type: ignore[arg-type]  # a synchronous client

    assert 20 == len(orjson.loads(found)["items"])
    assert 0 < cache.ttl(key)


def test_a_transactional_producer_slows_nobody_down(
    settings: Settings, worker: RoleProcess, cache: redis.Redis
) -> None:
    """A topic that ends in a transaction's marker is at its end: events of other topics do not wait for it."""
    del worker
    tied = Producer(librdkafka_config(settings, transactional_id="shop-1", partitioner=LIBRDKAFKA_PARTITIONER))
    tied.init_transactions(30)
    tied.begin_transaction()
    send(tied, settings, Sent("carts", click("tied", "i1").event))
    tied.commit_transaction(30)
    version = int(str(list_of(cache, settings, "tied")["version"]))
    time.sleep(1.5)
    out = producer(settings)
    took_s = []
    for item in ("i2", "i3", "i4"):
        started = time.monotonic()
        send(out, settings, click("tied", item))
        out.flush()
        version = int(str(list_of(cache, settings, "tied", version)["version"]))
        took_s.append(time.monotonic() - started)

    # Waiting for a silent topic would take two seconds each.
    assert max(took_s) < 1.5


def test_every_key_has_a_ttl(settings: Settings, worker: RoleProcess, cache: redis.Redis) -> None:
    """Nothing stays in Redis for ever."""
    del worker
    keys = list(cache.scan_iter(f"{settings.redis_prefix}*"))

    assert keys
    assert [] == [key for key in keys if cache.ttl(key) < 0]


def test_sigterm_ends_in_time_with_everything_committed(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """SIGTERM under load: exit code 0 in well under the commit deadline, and nothing is read again."""
    settings = settings_for(partitions=2)
    stock(settings)
    with RoleProcess("worker", settings, tmp_path) as process:
        process.ready()
        oracle = Oracle()
        out = producer(settings)
        for sent in events(1_000, users=50, seed=5):
            send(out, settings, sent)
            oracle.add(sent.type_name, sent.event)
        out.flush(30)
        started = time.monotonic()
        process.process.terminate()

        assert 0 == process.wait(30), process.tail()
        assert time.monotonic() - started < 15

        process.start().ready()
        wait_until_consumed(settings)
        wait_for(lambda: True if process.metric("freshet_dirty_users") == 0 else None)
        time.sleep(1)
        check_everything(settings, oracle)


def test_a_missing_topic_ends_the_start_with_a_sentence(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """Without its topics the worker exits with the code of a topic mismatch and says which one is missing."""
    settings = settings_for(partitions=2).model_copy(update={"namespace": "nothing-here"})
    with RoleProcess("worker", settings, tmp_path) as process:
        assert 3 == process.wait(60)
        assert "nothing-here." in process.tail()
