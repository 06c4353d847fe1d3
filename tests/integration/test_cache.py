"""The cache against a real Redis: newest wins, everything expires, and a Redis that is away costs little."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import redis

from streams.errors import DependencyError
from streams.local.redis import LocalRedis
from streams.refresh.cache import CacheEntry, CacheResult, ListCache
from streams.settings import Settings
from streams.wire.items import Item
from streams.wire.recommendations import VERSION_EPOCH

pytestmark = pytest.mark.integration


class Clock:
    """A clock set by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        """Return the time, s."""
        return self.now_s


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalRedis]:
    """A Redis of its own, because these tests stop and kill it."""
    local = LocalRedis(tmp_path / "redis")
    local.start()
    yield local
    if local.process is not None:
        local.process.signal(signal.SIGCONT)
    local.stop()


@pytest.fixture
def clock() -> Clock:
    """Time as the breaker sees it."""
    return Clock()


@pytest.fixture
def cache(server: LocalRedis, clock: Clock) -> Iterator[ListCache]:
    """A cache of the namespace `shop` with a list life of one hour."""
    settings = Settings(namespace="shop", redis_url=server.url, redis_ttl_s=3600, surfaces=("home", "cart"))
    made = ListCache(settings, clock)
    yield made
    made.close()


def entry(version: int, user_id: str = "u", surface: str = "home", variant: str | None = None) -> CacheEntry:
    """Return a list whose JSON, and by default whose variant, tell its version."""
    value = orjson.dumps({"version": version, "items": ["x" * 500]})
    return CacheEntry(user_id, surface, version, value, {"e": variant or f"v{version}"})


def many() -> list[CacheEntry]:
    """Return more lists than one pipeline takes."""
    return [entry(9, f"u{number}") for number in range(600)]


def stored_version(cache: ListCache, user_id: str = "u", surface: str = "home") -> int:
    """Return the version of the list in Redis."""
    value = cache.get(user_id, surface)
    assert value is not None
    return int(orjson.loads(value)["version"])


def test_what_was_written_is_read(cache: ListCache) -> None:
    """Lists, buckets and default lists come back as they went in; what was never written is None."""
    assert cache.write([entry(7, variant="long"), entry(8, surface="cart")]) == CacheResult(2, 0, 0)
    assert cache.get("u", "home") == entry(7).value
    assert cache.get("u", "cart") == entry(8).value
    assert cache.get("nobody", "home") is None
    assert cache.buckets("u") == {"e": "v8"}
    assert cache.buckets("nobody") == {}
    assert cache.write_defaults({"home": (3, entry(3).value)}) == CacheResult(1, 0, 0)
    assert cache.get_default("home") == entry(3).value


def test_the_newest_version_wins_in_any_order(cache: ListCache) -> None:
    """Whatever the order and the batches, the greatest version of each user stays, with its buckets."""
    # Neighbours of powers of ten and of epochs: where comparing texts or floats would go wrong.
    versions = [9, 10, 99, 100, VERSION_EPOCH - 1, VERSION_EPOCH, 2**53, 2**53 + 1, 2**53 + 2]
    chance = random.Random(7)
    for round_number in range(20):
        users = [f"u{round_number}-{number}" for number in range(3)]
        entries = [entry(version, user) for version in versions for user in users]
        chance.shuffle(entries)
        while entries:
            batch = [entries.pop() for _ in range(min(len(entries), chance.randint(1, 8)))]
            assert cache.write(batch).failed == 0
        assert [stored_version(cache, user) for user in users] == [2**53 + 2] * 3
        assert [cache.buckets(user) for user in users] == [{"e": f"v{2**53 + 2}"}] * 3


def test_older_and_equal_versions_are_told_apart(cache: ListCache) -> None:
    """An older list is stale; the same one is there already, which is as good as written."""
    cache.write([entry(5)])
    assert cache.write([entry(4)]) == CacheResult(0, 1, 0)
    assert cache.write([entry(5)]) == CacheResult(1, 0, 0)


def test_an_older_list_of_another_surface_is_written(cache: ListCache) -> None:
    """The buckets are of the newest list on any surface, each surface's list stands for itself."""
    cache.write([entry(5, surface="cart")])
    assert cache.write([entry(4, surface="home")]) == CacheResult(1, 0, 0)
    assert cache.buckets("u") == {"e": "v5"}


def test_variants_that_ended_are_gone(cache: ListCache) -> None:
    """A newer list without a part in an experiment takes the old part away."""
    cache.write([entry(5)])
    cache.write([entry(6)._replace(buckets={})])
    assert cache.buckets("u") == {}


def test_every_key_expires_and_has_the_namespace(cache: ListCache, server: LocalRedis) -> None:
    """No key without a life, none outside the prefix."""
    cache.write([entry(5), entry(6, surface="cart")])
    cache.write_defaults({"home": (1, entry(1).value)})
    cache.write_all_blocked({"i1": "recall"}, 1)
    assert cache.write_cards([Item("i1", title="Mug", price=3.5)]) == CacheResult(1, 0, 0)
    with redis.Redis.from_url(server.url) as client:
        keys = sorted(key.decode() for key in client.scan_iter())
        expected = ["ab:u", "blocked", "item:i1", "rec-default:home", "rec:u", "rec@cart:u"]
        assert [f"shop:freshet:{name}" for name in expected] == keys
        assert all(3590 <= client.ttl(key) <= 3600 for key in keys)
        card = orjson.loads(client.get("shop:freshet:item:i1") or b"")
        assert card == {"item_id": "i1", "title": "Mug", "price": 3.5, "in_stock": True}


def test_what_is_blocked_is_told(cache: ListCache) -> None:
    """All of it takes the place of what was told before, changes come and go, and any id is told as it is."""
    many = {f"i{number}": "recall" for number in range(1_200)} | {"_version": "recall", 'a "b"': "out_of_stock"}
    assert cache.write_all_blocked({"old": "recall", "i1": "another"}, 1).failed == 0
    assert cache.write_all_blocked(many, 2).failed == 0
    assert many == cache.blocked()
    assert cache.write_blocked({"i1": "", "new": "recall"}, 3).failed == 0
    expected = many | {"new": "recall"}
    del expected["i1"]
    assert expected == cache.blocked()


def test_an_older_owner_blocks_and_releases_nothing(cache: ListCache) -> None:
    """Who was fenced and does not know it changes nothing any more, not even where nothing is blocked."""
    cache.write_all_blocked({"i1": "recall"}, 7)
    for version in (5, 6):
        assert cache.write_blocked({"i1": "", "i2": "recall"}, version) == CacheResult(0, 1, 0)
        assert cache.write_all_blocked({}, version) == CacheResult(0, 1, 0)
    assert {"i1": "recall"} == cache.blocked()
    cache.write_all_blocked({}, 8)
    assert cache.write_blocked({"i1": "recall"}, 7) == CacheResult(0, 1, 0)
    assert {} == cache.blocked()


def test_what_is_blocked_lives_on(cache: ListCache, server: LocalRedis) -> None:
    """Each write gives the key its whole life again while something is blocked; after that a short one."""
    with redis.Redis.from_url(server.url) as client:
        cache.write_blocked({"i1": "recall"}, 1)
        client.expire(cache.blocked_key, 5)
        cache.write_all_blocked({"i1": "recall"}, 2)
        assert client.ttl(cache.blocked_key) > 3_000
        cache.write_blocked({"i1": ""}, 3)
        assert 0 < client.ttl(cache.blocked_key) <= 3_600


def test_flushed_scripts_are_loaded_again(cache: ListCache, server: LocalRedis) -> None:
    """After SCRIPT FLUSH, or a restart of Redis, the next write just works."""
    cache.write([entry(5)])
    with redis.Redis.from_url(server.url) as client:
        client.script_flush()
    assert cache.write([entry(6)]) == CacheResult(1, 0, 0)
    server.stop()
    server.start()
    assert cache.write([entry(7)]) == CacheResult(1, 0, 0)


def test_a_value_of_another_kind_fails_alone(cache: ListCache, server: LocalRedis) -> None:
    """Somebody else's key of another type costs that entry, not the batch."""
    with redis.Redis.from_url(server.url) as client:
        client.rpush(cache.list_key("broken", "home"), "x")
    assert cache.write([entry(5, "broken"), *many()]) == CacheResult(600, 0, 1)


def test_a_stopped_redis_costs_less_than_a_second(cache: ListCache, server: LocalRedis, clock: Clock) -> None:
    """Writes come back as failed in time; then Redis is left alone, and tried again after a while."""
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    for _ in range(3):
        started = time.monotonic()
        assert cache.write(many()) == CacheResult(0, 0, 600)
        assert time.monotonic() - started < 1.0
    started = time.monotonic()
    assert cache.write(many()) == CacheResult(0, 0, 600)
    assert time.monotonic() - started < 0.05
    os.kill(server.process.pid, signal.SIGCONT)
    clock.now_s += 1.0
    assert cache.write(many()) == CacheResult(600, 0, 0)


def test_a_killed_redis_is_a_failure_not_an_error(cache: ListCache, server: LocalRedis) -> None:
    """Writing never raises; reading says in a sentence that Redis is away."""
    server.kill()
    started = time.monotonic()
    assert cache.write([entry(5)]) == CacheResult(0, 0, 1)
    assert time.monotonic() - started < 1.0
    assert not cache.ping()
    with pytest.raises(DependencyError, match="Redis does not answer"):
        cache.get("u", "home")
