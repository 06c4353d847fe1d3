"""How long after an event its user's list in Redis has changed: one event at a time, produced by kcat."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
import uuid
from typing import Any

import orjson
import redis

from streams.local.stack import Stack
from streams.settings import Settings
from streams.topics import full_name

#: A list that has not changed after this long is a failure, not a slow one.
_GIVE_UP_S = 10.0
#: Between two events: what one leaves behind (its commit) must not be measured with the next.
_PAUSE_S = 0.05
_POLL_S = 0.0005


def _kcat(settings: Settings, user_id: str, value: bytes) -> None:
    """Produce one event and wait until the broker has it."""
    subprocess.run(
        [
            str(shutil.which("kcat")), "-P", "-b", settings.kafka_bootstrap, "-t", full_name(settings, "clicks"),
            "-k", user_id, "-X", "topic.partitioner=murmur2_random", "-X", "linger.ms=0",
        ],
        input=value, check=True, capture_output=True,
    )  # fmt: skip


def _change(cache: redis.Redis, key: str, before: object) -> float:
    """Return the wall time at which a key's value was seen to differ."""
    end = time.monotonic() + _GIVE_UP_S
    while time.monotonic() < end:
        if cache.get(key) != before:
            return time.time()
        time.sleep(_POLL_S)
    raise TimeoutError(f"{key} did not change within {_GIVE_UP_S:g} s: is a worker running (freshet status)?")


def _row(name: str, samples_ms: list[float]) -> dict[str, Any]:
    ordered = sorted(samples_ms)
    return {
        "from": name,
        "events": len(ordered),
        "median": statistics.median(ordered),
        "p95": ordered[round(0.95 * (len(ordered) - 1))],
        "max": ordered[-1],
    }


def measure(events: int) -> list[dict[str, Any]]:
    """
    Measure `events` events and return a row for each point the time is counted from, in ms.

    "kcat started" holds the start of the kcat process and its connection to Kafka; "record timestamp" is what
    kcat's library wrote on the record; "kcat ended" is when the broker had acknowledged it.
    """
    if shutil.which("kcat") is None:
        sys.exit("kcat is not on PATH: install it (Debian: apt-get install kcat)")
    settings = Stack(Settings.from_env()).settings
    cache = redis.Redis.from_url(settings.redis_url)
    card = next(iter(cache.scan_iter(f"{settings.redis_prefix}item:*", count=1_000)), None)
    item_id = bytes(card).rpartition(b":")[2].decode() if card is not None else "some-item"
    started: list[float] = []
    recorded: list[float] = []
    acknowledged: list[float] = []
    for number in range(events + 1):
        user_id = f"bench-{number % 10}"
        key = f"{settings.redis_prefix}rec:{user_id}"
        before = cache.get(key)
        at = time.time()
        event = {"event_id": uuid.uuid4().hex, "user_id": user_id, "item_id": item_id, "ts": round(at * 1000)}
        _kcat(settings, user_id, orjson.dumps(event))
        produced = time.time()
        changed = _change(cache, key, before)
        value = cache.get(key)
        ingested_ms = orjson.loads(value)["ingested_at"] if isinstance(value, bytes) else 0
        # The first event warms kcat's binary and the worker's caches.
        if number:
            started.append((changed - at) * 1000)
            recorded.append(changed * 1000 - ingested_ms)
            acknowledged.append(max(0.0, changed - produced) * 1000)
        time.sleep(_PAUSE_S)
    cache.close()
    return [_row("kcat started", started), _row("record timestamp", recorded), _row("kcat ended", acknowledged)]
