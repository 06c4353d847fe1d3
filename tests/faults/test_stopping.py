"""F2: whatever a worker is doing, SIGTERM ends it in time and loses nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from streams.errors import CommitError
from tests.support.roles import RoleProcess
from tests.support.scene import EXIT_MARGIN_S, Fault, Scene, rows

pytestmark = [pytest.mark.integration, pytest.mark.faults]

_HOLDS = "I1 I2 I3 I4 I5 I13"


def stop(scene: Scene, worker: RoleProcess, *codes: int) -> None:
    """Send SIGTERM and hold the exit against the commit's deadline."""
    started = time.monotonic()
    worker.signal(signal.SIGTERM)
    code = worker.wait(60)
    took_s = time.monotonic() - started

    assert code in codes, worker.tail()
    assert took_s < scene.settings.commit_timeout_s + EXIT_MARGIN_S


def idle(scene: Scene) -> None:
    """Nothing to do but to go."""
    worker = scene.worker()
    scene.send()
    scene.settle()
    stop(scene, worker, 0)
    worker.start().ready()


def loaded(scene: Scene) -> None:
    """In the middle of a backlog that keeps growing."""
    worker = scene.worker()
    traffic = scene.traffic(6_000, 2_000)
    time.sleep(1.5)
    stop(scene, worker, 0)
    worker.start().ready()
    traffic.join()


def recovering(scene: Scene) -> None:
    """While it restores, at several moments of it."""
    worker = scene.worker()
    scene.send(4_000)
    scene.settle()
    worker.kill()
    for after_s in (0.2, 1.0, 2.0, 3.0):
        worker.start()
        time.sleep(after_s)
        # A process told to end before it has set up its signals ends by the signal itself.
        stop(scene, worker, 0, -signal.SIGTERM)
    worker.start().ready()


def redis_hangs(scene: Scene) -> None:
    """While Redis takes connections and says nothing."""
    worker = scene.worker()
    scene.send()
    scene.settle()
    with scene.redis_silent():
        scene.send()
        time.sleep(1)
        stop(scene, worker, 0)
    worker.start().ready()
    # What Redis was owed died with the process; each user's next event brings the list back.
    scene.send(2_000)


def kafka_gone(scene: Scene) -> None:
    """While its broker is gone: the last commit cannot happen, and the process says so."""
    assert scene.kafka is not None
    worker = scene.worker()
    scene.send()
    scene.settle()
    traffic = scene.traffic(4_000, 1_000)
    time.sleep(1)
    scene.kafka.kill()
    stop(scene, worker, 0, CommitError.exit_code)
    scene.kafka.start()
    worker.start().ready()
    traffic.join()


@rows(
    Fault("F2", "SIGTERM while idle", "signal", _HOLDS, idle, quick=True),
    Fault("F2", "SIGTERM under load", "signal, 2,000 events/s", _HOLDS, loaded),
    Fault("F2", "SIGTERM while recovering", "signal 0.2, 1, 2 and 3 s after the start", _HOLDS, recovering),
    Fault(
        "F2", "SIGTERM while Redis hangs", "SIGSTOP of Redis, then signal", _HOLDS, redis_hangs,
        needs=frozenset({"redis"}),
    ),
    Fault(
        "F2", "SIGTERM while Kafka is gone", "SIGKILL of Kafka, then signal", _HOLDS, kafka_gone,
        needs=frozenset({"kafka"}), settings={"kafka_timeout_s": 30},
    ),
)  # fmt: skip
def test_sigterm(fault: Fault, played: Callable[[Fault], None]) -> None:
    """The process is gone within the commit's deadline and a margin, and what it had not committed is read again."""
    played(fault)
