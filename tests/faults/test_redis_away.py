"""F7 to F10: Redis gone, slow, silent, full, read-only or emptied costs no list on the topic, and heals by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from tests.support.roles import RoleProcess
from tests.support.scene import Fault, Need, Scene, rows
from tests.support.verifier import Lists, read_topic, wait_until_consumed

pytestmark = [pytest.mark.integration, pytest.mark.faults]


def lists_flow(scene: Scene, worker: RoleProcess) -> None:
    """Send more, and hold the topic's lists against the oracle while Redis cannot be."""
    scene.send()
    wait_until_consumed(scene.settings)
    end = time.monotonic() + 60
    while worker.metric("freshet_dirty_users"):
        assert time.monotonic() < end, "lists do not flow without Redis"
        time.sleep(0.1)
    time.sleep(1)
    lists = Lists(read_topic(scene.settings, "recommendations"))

    assert {user: scene.oracle.events_applied(user) for user in scene.oracle.users()} == {
        user: lists.applied(user) for user in scene.oracle.users()
    }
    assert 200 == worker.get("/readyz")[0]


def asked(scene: Scene, *command: str) -> None:
    """Tell Redis something."""
    with redis.Redis.from_url(scene.settings.redis_url) as client:
        client.execute_command(*command)


def gone(scene: Scene) -> None:
    """Nobody listens."""
    assert scene.redis is not None
    worker = scene.worker()
    scene.send()
    scene.redis.kill()
    lists_flow(scene, worker)

    assert worker.metric("freshet_cache_owed") > 0

    scene.redis.start()
    # It comes back empty; each user's next event brings the list back.
    scene.send(2_000)


def slow(scene: Scene) -> None:
    """Each answer takes 0.2 s, then 2 s."""
    assert scene.redis_proxy is not None
    worker = scene.worker()
    for delay_s in (0.2, 2.0):
        scene.redis_proxy.delay_s = delay_s / 2
        lists_flow(scene, worker)
    scene.redis_proxy.heal()


def silent(scene: Scene) -> None:
    """Connections are taken and nothing is said."""
    worker = scene.worker()
    scene.send()
    scene.settle()
    with scene.redis_silent():
        lists_flow(scene, worker)

        assert worker.metric("freshet_cache_owed") > 0


def full(scene: Scene) -> None:
    """Writes are refused for want of memory."""
    worker = scene.worker()
    scene.send()
    scene.settle()
    asked(scene, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    asked(scene, "CONFIG", "SET", "maxmemory", "1")
    lists_flow(scene, worker)

    assert worker.metric("freshet_cache_writes_total", result="failed") > 0

    asked(scene, "CONFIG", "SET", "maxmemory", "512mb")


def read_only(scene: Scene) -> None:
    """It has become a replica of nobody."""
    worker = scene.worker()
    scene.send()
    scene.settle()
    asked(scene, "REPLICAOF", "127.0.0.1", "1")
    lists_flow(scene, worker)

    assert worker.metric("freshet_cache_writes_total", result="failed") > 0

    asked(scene, "REPLICAOF", "NO", "ONE")


def emptied(scene: Scene) -> None:
    """Everything is flushed, scripts as well."""
    scene.worker()
    scene.send()
    scene.settle()
    asked(scene, "FLUSHALL")
    asked(scene, "SCRIPT", "FLUSH")
    scene.send(2_000)


def restarted(scene: Scene) -> None:
    """It comes back empty at once."""
    assert scene.redis is not None
    scene.worker()
    scene.send()
    scene.settle()
    scene.redis.kill()
    scene.redis.start()
    scene.send(2_000)


_OWN: frozenset[Need] = frozenset({"redis"})


@rows(
    Fault("F7", "Redis gone", "SIGKILL, start", "I1 I2 I4 I5 I8 I9 I12", gone, needs=_OWN),
    Fault("F8", "Redis slow", "proxy, 0.2 s and 2 s", "I1 I2 I4 I5 I9", slow, needs=frozenset({"redis_proxy"})),
    Fault("F8", "Redis silent", "SIGSTOP, SIGCONT", "I1 I2 I4 I5 I9 I12", silent, needs=_OWN, quick=True),
    Fault("F9", "Redis full", "maxmemory 1 byte, noeviction", "I1 I2 I4 I5 I9 I12", full, needs=_OWN),
    Fault("F9", "Redis read-only", "REPLICAOF", "I1 I2 I4 I5 I9 I12", read_only, needs=_OWN),
    Fault("F10", "Redis emptied", "FLUSHALL, SCRIPT FLUSH", "I1 I2 I4 I5 I9", emptied, needs=_OWN),
    Fault("F10", "Redis restarted empty", "SIGKILL and start", "I1 I2 I4 I5 I9", restarted, needs=_OWN),
)
def test_redis(fault: Fault, played: Callable[[Fault], None]) -> None:
    """Lists keep flowing to the topic, the worker stays ready, and Redis holds the last lists in the end."""
    played(fault)
