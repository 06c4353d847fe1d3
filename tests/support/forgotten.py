"""Users who are erased, as seen from outside: what asks for it, and what must be left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson
import redis
from typer.testing import CliRunner, Result

from streams.cli import app
from streams.interests import codec
from streams.settings import ENV_PREFIX, Settings
from tests.support.roles import environment
from tests.support.shop import Sent
from tests.support.verifier import Read, read_topic


def freshet(settings: Settings, *arguments: str) -> Result:
    """Run `freshet` with these settings."""
    env = {name: value for name, value in environment(settings).items() if name.startswith(ENV_PREFIX)}
    return CliRunner().invoke(app, list(arguments), env=env)


def wait_for(ask: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """Return the first answer that is true."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := ask():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not after {timeout_s} s: {what}")


def clicks(user_id: str, count: int, name: str = "e") -> list[Sent]:
    """Clicks now."""
    now_ms = time.time_ns() // 1_000_000
    return [
        Sent("clicks", {"event_id": f"{name}{n}", "user_id": user_id, "item_id": f"i{n}", "ts": now_ms - count + n})
        for n in range(count)
    ]


def newest(settings: Settings, topic: str, key: str) -> Read | None:
    """Return the newest committed record of a key."""
    found = [read for read in read_topic(settings, topic) if read.key == key.encode()]
    return found[-1] if found else None


def cached(cache: redis.Redis, settings: Settings, user_id: str) -> dict[str, Any]:
    """Return what Redis holds under the key of a user's list; empty for nothing."""
    value = cache.get(f"{settings.redis_prefix}rec:{user_id}")
    found: dict[str, Any] = orjson.loads(value) if isinstance(value, bytes) else {}
    return found


def listed(cache: redis.Redis, settings: Settings, user_id: str, count: int) -> dict[str, Any]:
    """Return a user's list in Redis once it has applied so many clicks."""
    found: dict[str, Any] = wait_for(
        lambda: (value := cached(cache, settings, user_id)).get("events_applied") == {"clicks": count} and value,
        f"{count} clicks of {user_id}",
    )
    return found


def check_forgotten(settings: Settings, cache: redis.Redis, user_id: str, erased_at_ms: int) -> None:
    """Nothing is left of the user but the mark, the tombstone and what keeps older lists out of Redis."""
    state, published = newest(settings, "user-state", user_id), newest(settings, "recommendations", user_id)
    key = f"{settings.redis_prefix}rec:{user_id}"

    assert state is not None
    assert codec.mark(erased_at_ms, pending=False) == state.value
    assert published is not None
    assert published.value is None
    assert {"version", "erased"} == cached(cache, settings, user_id).keys()
    assert 0 < cache.ttl(key) <= 3_600
    assert [b"_version"] == list(cache.hgetall(f"{settings.redis_prefix}ab:{user_id}"))
