"""
From a block record to Redis: how long until the lists that held the item hold another one, and front ends are told.

A real worker with its Kafka and Redis on all cores. Every user's list holds a few pinned items, which are blocked one
after the other; lists are looked at in the order in which they have to change, most recently active user first.
"""

from __future__ import annotations

import time
from typing import Any

import orjson
import redis
from confluent_kafka import Producer

from streams.kafka.partitioner import LIBRDKAFKA_PARTITIONER
from streams.settings import Settings
from streams.topics import full_name
from tests.bench.stream import freshet, job
from tests.bench.stream.broker import services
from tests.support.roles import RoleProcess

USERS = 20_000
#: The lists of these users are waited for first.
FIRST = 5_000
_EVENTS = 5
#: The first block warms the worker and the broker and is not told.
_BLOCKS = 4
_LOOK_S = 0.002
_GIVE_UP_S = 120.0


def measure(users: int) -> list[dict[str, Any]]:
    """
    Return a row for each blocked item.

    Raises
    ------
    RuntimeError
        When lists were not made or still held the item in the end.

    """
    with services() as bench:
        settings = freshet.settings_of(bench, lists=True)
        freshet.stock(settings, job.item_vectors())
        rules = Producer({"bootstrap.servers": settings.kafka_bootstrap, "linger.ms": 0})
        for slot in range(_BLOCKS):
            _rule(rules, settings, slot, {"pin": {"slot": 2 * slot + 1}})
        with RoleProcess("worker", settings, bench.folder) as worker:
            worker.ready()
            _make_lists(settings, worker, users)
            with redis.Redis.from_url(settings.redis_url) as cache:
                rows = [_blocked(rules, settings, cache, item, users) for item in range(_BLOCKS)]
    return rows[1:]


def _rule(out: Producer, settings: Settings, item: int, rule: dict[str, Any]) -> None:
    out.produce(full_name(settings, "item-rules"), orjson.dumps(rule), job.item_id(item).encode())
    out.flush(30)


def _make_lists(settings: Settings, worker: RoleProcess, users: int) -> None:
    """Let every user click some items, one user after the other, and wait until all have their lists."""
    out = Producer({"bootstrap.servers": settings.kafka_bootstrap, "partitioner": LIBRDKAFKA_PARTITIONER})
    start_ms = round(time.time() * 1000) - _EVENTS * users
    for number in range(_EVENTS * users):
        user, item = job.user_id(number % users), job.item_id(_BLOCKS + number * 7919 % (job.ITEMS - _BLOCKS))
        event = {"event_id": f"e{number}", "user_id": user, "item_id": item, "ts": start_ms + number}
        while True:
            try:
                out.produce(full_name(settings, "clicks"), orjson.dumps(event), user.encode())
                break
            except BufferError:
                out.poll(0.1)
    out.flush(60)
    end = time.monotonic() + _GIVE_UP_S
    while not (
        worker.metric("freshet_events_total", type="clicks", outcome="applied") >= _EVENTS * users
        and worker.metric("freshet_dirty_users") == 0
    ):
        if time.monotonic() > end:
            raise RuntimeError(f"the lists were not made within {_GIVE_UP_S:g} s\n{worker.tail()}")
        time.sleep(0.2)
    # What the lists leave behind (commits, Redis) must not be measured with the strikes.
    time.sleep(3)


def _blocked(rules: Producer, settings: Settings, cache: redis.Redis, item: int, users: int) -> dict[str, Any]:
    """Block an item; time when front ends are told, and when the lists of the first and of all users have changed."""
    item_id = job.item_id(item)
    needle = f'"item_id":"{item_id}"'.encode()
    keys = [f"{settings.redis_prefix}rec:{job.user_id(user)}" for user in reversed(range(users))]
    before = sum(needle in value for value in cache.mget(keys) if value)
    started = time.monotonic()
    _rule(rules, settings, item, {"block": {"reason": "bench"}})
    told_s = _wait(lambda: cache.hget(f"{settings.redis_prefix}blocked", item_id)) - started
    first_s = _wait(lambda: needle not in (cache.get(keys[FIRST - 1]) or needle)) - started
    all_s = _wait(lambda: needle not in (cache.get(keys[-1]) or needle)) - started
    # Lists reach Redis in two threads: the last one of the first may be there before another of them.
    left = _wait(lambda: not any(needle in value for value in cache.mget(keys) if value)) - started
    return {
        "lists": before,
        "told_ms": round(told_s * 1000, 1),
        f"first_{FIRST}_s": round(first_s, 3),
        "all_s": round(all_s, 3),
        "then_lists_per_s": round((before - FIRST) / max(all_s - first_s, 1e-9)),
        "none_left_s": round(left, 3),
    }


def _wait(ask: Any) -> float:
    """Return when an answer is first yes."""
    end = time.monotonic() + _GIVE_UP_S
    while not ask():
        if time.monotonic() > end:
            raise RuntimeError(f"a blocked item was still on a list after {_GIVE_UP_S:g} s")
        time.sleep(_LOOK_S)
    return time.monotonic()
