"""Erasing users with a real Kafka and Redis: nothing is left, nothing comes back, and somebody has the receipt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from typer.testing import CliRunner, Result

from streams.cli import app
from streams.interests import codec
from streams.kafka.partitioner import partition_of
from streams.settings import ENV_PREFIX, Settings
from streams.topics import full_name
from streams.wire.erasures import Receipt, decode_receipt
from tests.support.roles import RoleProcess, environment
from tests.support.shop import Sent, producer, send, stock
from tests.support.verifier import Read, read_topic, wait_until_consumed

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def settings(settings_for: Callable[..., Settings]) -> Settings:
    """One namespace for the module, with a stocked shop."""
    made = settings_for(partitions=2, kafka_session_timeout_s=8, commit_timeout_s=5)
    stock(made)
    return made


@pytest.fixture(scope="module")
def worker(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoleProcess]:
    """One running worker for the module."""
    with RoleProcess("worker", settings, tmp_path_factory.mktemp("worker")) as process:
        yield process.ready()


@pytest.fixture
def cache(settings: Settings) -> Iterator[redis.Redis]:
    """A look into Redis."""
    client = redis.Redis.from_url(settings.redis_url)
    yield client
    client.close()


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


def test_an_erased_user_is_gone_and_a_replay_brings_nobody_back(
    settings: Settings, worker: RoleProcess, cache: redis.Redis
) -> None:
    """Erased with a receipt; the same bytes at their old times change nothing; new events begin a new user."""
    out = producer(settings)
    sent = clicks("ann", 5)
    began_ms = round(time.time() * 1000)
    for one in sent:
        send(out, settings, one)
    out.flush(30)
    before = listed(cache, settings, "ann", 5)
    told = freshet(settings, "erase", "ann", "--wait", "--request-id", "r-ann", "--json")

    assert 0 == told.exit_code, told.output
    receipt = Receipt(**orjson.loads(told.stdout)["receipt"])
    kept = newest(settings, "erasure-receipts", "r-ann")
    assert kept is not None
    assert receipt == decode_receipt(kept.value or b"")
    assert b"ann" not in (kept.value or b"").replace(b"r-ann", b"")
    assert receipt.partition == partition_of(b"ann", settings.partitions)

    wait_for(lambda: cached(cache, settings, "ann").get("erased"), "Redis forgets")
    mark = codec.mark(receipt.erased_at, pending=False)
    wait_for(lambda: (found := newest(settings, "user-state", "ann")) and found.value == mark, "the mark is settled")
    check_forgotten(settings, cache, "ann", receipt.erased_at)
    assert cached(cache, settings, "ann")["version"] > before["version"]

    shown = freshet(settings, "inspect", "ann", "--json")
    assert 0 == shown.exit_code, shown.output
    assert receipt.erased_at == orjson.loads(shown.stdout)["state"]["erased_at"]

    dropped = worker.metric("freshet_events_total", outcome="erased")
    for one in sent:
        out.produce(full_name(settings, "clicks"), orjson.dumps(one.event), b"ann", timestamp=began_ms)
    out.flush(30)
    wait_until_consumed(settings)

    check_forgotten(settings, cache, "ann", receipt.erased_at)
    assert dropped + 5 == worker.metric("freshet_events_total", outcome="erased")

    for one in clicks("ann", 2, "new"):
        send(out, settings, one)
    out.flush(30)
    fresh = listed(cache, settings, "ann", 2)

    assert {"new0", "new1"} >= {fresh["trigger"]["event_id"]}
    assert {"i0", "i1"} >= {reason["item_id"] for item in fresh["items"] for reason in item["because"]}


def test_a_request_that_is_none_is_a_dead_letter(settings: Settings, worker: RoleProcess) -> None:
    """A request of a foreign shape is kept with its reason, its partition goes on."""
    del worker
    out = producer(settings)
    out.produce(full_name(settings, "user-erasures"), b'{"user":"bob"}', b"bob")
    out.flush(30)
    told = freshet(settings, "erase", "bob", "--wait", "--json")

    assert 0 == told.exit_code, told.output
    letters = [dict(read.headers) for read in read_topic(settings, "dead-letters")]
    assert [(full_name(settings, "user-erasures").encode(), b"missing_field")] == [
        (one["topic"], one["reason"]) for one in letters
    ]


def test_without_a_worker_the_request_stands(settings_for: Callable[..., Settings]) -> None:
    """Nobody serves it: exit code 4 and a sentence that says so; not waited for it is sent and that is that."""
    lonely = settings_for(partitions=2)
    told = freshet(lonely, "erase", "ann", "--wait", "--timeout", "1")

    assert 4 == told.exit_code
    assert "the request stands" in " ".join(told.output.split())
    assert 0 == freshet(lonely, "erase", "ann").exit_code
    assert 2 == len(read_topic(lonely, "user-erasures"))
    assert 1 == freshet(lonely, "erase", "a\x00b").exit_code


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_f27_killed_right_after_the_request(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """
    F27: killed while a request is on its way, before, in or behind its transaction: the user is gone, once.

    Redis held a list when the worker died, and forgets it whoever has to tell it.
    """
    settings = settings_for(partitions=2, kafka_session_timeout_s=8, commit_timeout_s=5)
    stock(settings)
    cache = redis.Redis.from_url(settings.redis_url)
    out = producer(settings)
    with RoleProcess("worker", settings, tmp_path) as worker:
        worker.ready()
        for number, pause_s in enumerate((0.0, 0.15, 0.4)):
            user_id = f"gone{number}"
            for one in clicks(user_id, 4):
                send(out, settings, one)
            out.flush(30)
            listed(cache, settings, user_id, 4)
            # A commit may be late; the list before it is what Redis shows.
            assert 0 == freshet(settings, "erase", user_id, "--request-id", f"r{number}").exit_code
            time.sleep(pause_s)
            worker.kill()
            worker.start().ready()
            wait_for(lambda key=f"r{number}": newest(settings, "erasure-receipts", key), "a receipt")  # type: ignore[misc]  # bound now
            wait_for(lambda user=user_id: cached(cache, settings, user).get("erased"), "Redis forgets")  # type: ignore[misc]  # bound now
        time.sleep(1)
        receipts = [decode_receipt(read.value or b"") for read in read_topic(settings, "erasure-receipts")]

        assert ["r0", "r1", "r2"] == sorted(receipt.request_id for receipt in receipts)
        for receipt in receipts:
            check_forgotten(settings, cache, f"gone{receipt.request_id[1:]}", receipt.erased_at)
    cache.close()
