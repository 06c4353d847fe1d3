"""Items that may be listed no more, against a real worker: they leave Redis and the topic, whoever dies meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
import redis

from streams.refresh.cache import ListCache
from streams.settings import Settings
from streams.topics import full_name
from tests.support.oracle import Oracle
from tests.support.roles import RoleProcess
from tests.support.shop import events, producer, send, stock
from tests.support.verifier import Lists, check_everything, read_topic, wait_until_consumed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

#: So long may a busy machine take; nothing is measured here.
_WAIT_S = 90.0
_USERS = 600


class Shop:
    """A worker, its lists, and what was sent."""

    def __init__(self, settings: Settings, worker: RoleProcess, cache: redis.Redis) -> None:
        self.settings, self.worker, self.cache = settings, worker, cache
        self.oracle = Oracle()
        self._out = producer(settings)

    def send(self, count: int, seed: int) -> None:
        """Let users do something, and wait until their lists are made."""
        for sent in events(count, users=_USERS, seed=seed):
            send(self._out, self.settings, sent)
            self.oracle.add(sent.type_name, sent.event)
        assert self._out.flush(30) == 0
        wait_until_consumed(self.settings)
        self.wait(lambda: len(self.lists()) == len(self.oracle.users()))
        self.rest()

    def rest(self) -> None:
        """Wait until no list is owed."""
        names = ("freshet_dirty_users", "freshet_strikes", "freshet_cache_owed")
        self.wait(lambda: self.worker.alive and not any(self.worker.metric(name) for name in names))

    def rule(self, item_id: str, rule: dict[str, object] | None) -> None:
        """Tell a rule of an item."""
        value = None if rule is None else orjson.dumps(rule)
        self._out.produce(full_name(self.settings, "item-rules"), value, item_id.encode())
        assert self._out.flush(30) == 0

    def values(self) -> dict[str, bytes]:
        """Return every user's list in Redis, as it stands there."""
        prefix = f"{self.settings.redis_prefix}rec:"
        users = self.oracle.users()
        values = self.cache.mget([prefix + user_id for user_id in users])
        return {user_id: bytes(value) for user_id, value in zip(users, values, strict=True) if value}  # type: ignore[arg-type]  # decodes nothing

    def lists(self) -> dict[str, dict[str, object]]:
        """Return every user's list in Redis."""
        return {user_id: orjson.loads(value) for user_id, value in self.values().items()}

    def holders(self, item_id: str) -> set[str]:
        """Return the users on whose lists in Redis an item stands."""
        return {user_id for user_id, made in self.lists().items() if item_id in ids(made)}

    def wait(self, ask: Callable[[], object]) -> None:
        """Wait until an answer is yes."""
        end = time.monotonic() + _WAIT_S
        while not ask():
            assert time.monotonic() < end, self.worker.tail()
            time.sleep(0.01)

    def check(self, item_id: str) -> None:
        """Hold topic and Redis against what was sent; no list holds the item, none an item twice, none is short."""
        self.wait(lambda: not self.holders(item_id))
        self.rest()
        # What was published last is committed within the commit interval.
        self.wait(lambda: self.values() == Lists(read_topic(self.settings, "recommendations")).last)
        check_everything(self.settings, self.oracle)
        made = self.lists()
        assert {20} == {len(set(ids(one))) for one in made.values()} == {len(ids(one)) for one in made.values()}
        assert not self.holders(item_id)


def ids(made: dict[str, object]) -> list[str]:
    """Return the items of a list."""
    return [item["item_id"] for item in made["items"]]  # type: ignore[attr-defined]  # a JSON array


@pytest.fixture
def shop(settings_for: Callable[..., Settings], tmp_path: Path) -> Iterator[Shop]:
    """A stocked shop whose first items stand on every list that may have them."""
    # Short against the default: who was killed loses its partitions soon.
    settings = settings_for(partitions=2, kafka_session_timeout_s=8, commit_timeout_s=5)
    stock(settings)
    with RoleProcess("worker", settings, tmp_path) as worker, redis.Redis.from_url(settings.redis_url) as cache:
        made = Shop(settings, worker.ready(), cache)
        for slot in (1, 7):
            made.rule(f"i{100 + slot}", {"pin": {"slot": slot}})
        made.wait(lambda: worker.metric("freshet_catalogue_records_total", topic="item-rules") == 2)
        yield made


def test_a_blocked_item_is_struck(shop: Shop) -> None:
    """Its place goes to another, the rest of the list stays; front ends are told at once, and when it is over."""
    shop.send(1_500, seed=3)
    before, held = shop.lists(), shop.holders("i101")
    shop.rule("i101", {"block": {"reason": "recall"}})
    blocked = ListCache(shop.settings)
    shop.wait(lambda: blocked.blocked() == {"i101": "recall"})
    shop.check("i101")
    after = shop.lists()
    ttl_s = shop.cache.ttl(blocked.blocked_key)

    assert held
    assert 0 < ttl_s <= shop.settings.redis_ttl_s
    assert {"rules"} == {after[user_id]["trigger"]["kind"] for user_id in held}  # type: ignore[index]  # a JSON object
    for user_id in held:
        old, new = before[user_id], after[user_id]
        assert ids(old)[1:] == ids(new)[1:]
        assert [old["as_of"][name] for name in ("offsets", "catalogue", "signals")] == [  # type: ignore[index]  # the same
            new["as_of"][name]  # type: ignore[index]  # the same
            for name in ("offsets", "catalogue", "signals")
        ]
    assert {user_id: before[user_id] for user_id in before if user_id not in held} == {
        user_id: after[user_id] for user_id in before if user_id not in held
    }
    assert shop.worker.metric("freshet_lists_total", kind="struck") >= len(held)

    shop.rule("i101", None)
    shop.wait(lambda: blocked.blocked() == {})
    blocked.close()


def test_the_list_for_visitors_loses_it(shop: Shop) -> None:
    """Not only once a minute."""
    key = f"{shop.settings.redis_prefix}rec-default:home"

    def items() -> list[str]:
        value = shop.cache.get(key)
        return ids(orjson.loads(value)) if value else []

    shop.wait(items)
    gone = items()[0]
    shop.rule(gone, {"block": {}})
    shop.wait(lambda: gone not in items())
    assert 20 == len(items())


def test_a_worker_that_is_killed_while_it_strikes(shop: Shop) -> None:
    """Whatever was struck, committed or written to Redis by then: the next owner leaves the item on no list."""
    shop.send(3_000, seed=5)
    held = shop.holders("i107")
    shop.rule("i107", {"block": {}})
    shop.wait(lambda: shop.holders("i107") < held)
    shop.worker.kill()
    shop.worker.start().ready()
    shop.check("i107")

    assert len(held) > _USERS // 2


def test_lists_of_before_a_restart_are_found(shop: Shop) -> None:
    """Nothing is on the shelf of a worker that has just begun: it finds the lists in the users' states."""
    shop.send(1_500, seed=9)
    shop.worker.kill()
    shop.worker.start().ready()
    shop.rest()
    held = shop.holders("i107")
    shop.rule("i107", {"block": {}})
    shop.check("i107")
    blocked = ListCache(shop.settings)
    shop.wait(lambda: blocked.blocked() == {"i107": "blocked"})
    blocked.close()

    assert held
    assert 0 == shop.worker.metric("freshet_lists_total", kind="struck")
