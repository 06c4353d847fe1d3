"""The Redis users of the README: enough for the worker, not more."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from streams.local.redis import LocalRedis
from streams.refresh.cache import CacheEntry, ListCache, connect
from streams.settings import Settings
from streams.wire.items import Item

pytestmark = pytest.mark.integration

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """A Redis whose users are made by the README's lines; the default user is off."""
    local = LocalRedis(tmp_path_factory.mktemp("redis"))
    local.start()
    try:
        (block,) = re.findall(r"^```redis\n(.*?)^```$", README.read_text(), flags=re.DOTALL | re.MULTILINE)
        with redis.Redis.from_url(local.url) as admin:
            for line in block.splitlines():
                admin.execute_command(*line.replace(">PASSWORD", ">s3cret").split())
            admin.execute_command("ACL", "SETUSER", "default", "off")
        yield local
    finally:
        local.kill()  # an ordered stop would need the default user


def settings_of(server: LocalRedis, user: str) -> Settings:
    """Settings of a process that is this user."""
    return Settings.from_env(redis_url=server.url, redis_username=user, redis_password="s3cret", redis_timeout_s=2)  # noqa: S106  # not a real one


def test_worker_can_do_its_work(server: LocalRedis) -> None:
    """Under the worker's user every kind of write and read of the cache works."""
    cache = ListCache(settings_of(server, "freshet"), time.monotonic)
    value = b'{"version":7,"items":[]}'

    written = cache.write([CacheEntry("42", "home", 7, value, {"freshness": "control"})])

    assert (written.written, written.failed) == (1, 0)
    assert cache.write_defaults({"home": (7, value)}).failed == 0
    assert cache.write_cards([Item("318", title="Mug")]).failed == 0
    assert cache.write_all_blocked({"318": "recall"}, 7).failed == 0
    assert cache.write_blocked({"318": "", "50": "recall"}, 8).failed == 0
    assert cache.blocked() == {"50": "recall"}
    assert cache.get("42", "home") == value
    assert cache.get_default("home") == value
    assert cache.buckets("42") == {"freshness": "control"}
    assert cache.ping()
    cache.close()


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "other:1"),
        ("SET", "other:1", "x"),
        ("KEYS", "*"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("user", ["freshet", "shop"])
def test_nobody_can_do_more(server: LocalRedis, user: str, command: tuple[str, ...]) -> None:
    """Other keys, listing, flushing and configuring are refused to both users."""
    with connect(settings_of(server, user)) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)


def test_shop_only_reads(server: LocalRedis) -> None:
    """The shop's user reads lists and writes none."""
    with connect(settings_of(server, "shop")) as client:
        assert client.get("freshet:rec:nobody") is None
        assert client.hmget("freshet:blocked", ["318"]) == [None]
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.set("freshet:rec:42", "forged")


def test_wrong_password_is_refused(server: LocalRedis) -> None:
    """Without the password nobody gets in, and the cache says so instead of raising on the write path."""
    settings = Settings.from_env(redis_url=server.url, redis_username="freshet", redis_password="guess")  # noqa: S106  # not a real one
    cache = ListCache(settings, time.monotonic)

    assert not cache.ping()
    assert cache.write([CacheEntry("42", "home", 9, b'{"version":9}', {})]).failed == 1
    cache.close()
