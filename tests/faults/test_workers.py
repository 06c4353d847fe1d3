"""F1, F3 and F4: workers that are killed, that sleep, that come and go change nothing that anyone sees."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest

from tests.support.compaction import compact
from tests.support.roles import RoleProcess
from tests.support.scene import Fault, Scene, rows
from tests.support.shop import delivered

pytestmark = [pytest.mark.integration, pytest.mark.faults]

_HOLDS = "I1 I2 I3 I4 I5 I7 I9 I10"


def killed(scene: Scene) -> None:
    """Three times at random moments of a replay."""
    seed = random.SystemRandom().randrange(10_000)
    print(f"seed {seed}")
    rng = random.Random(seed)
    worker = scene.worker()
    traffic = scene.traffic(12_000, 2_000, users=200)
    for _ in range(3):
        time.sleep(rng.uniform(0.3, 1.5))
        worker.kill()
        worker.start().ready()
    traffic.join()


def asleep(scene: Scene, seconds: float) -> RoleProcess:
    """One worker sleeps while another takes over; what the sleeper does late is void. Returns the heir."""
    sleeper = scene.worker("sleeper")
    traffic = scene.traffic(5_000, 500, users=200)
    time.sleep(3)
    sleeper.signal(signal.SIGSTOP)
    started = time.monotonic()
    heir = scene.worker("heir")
    traffic.join()
    scene.workers.remove(sleeper)
    scene.settle()
    before = scene.check()
    time.sleep(max(0.0, seconds - (time.monotonic() - started)))
    sleeper.signal(signal.SIGCONT)
    # Long enough to wake, try its commit, be fenced, hear from the group and share the partitions again.
    time.sleep(15)
    after = scene.check()

    assert sleeper.alive, sleeper.tail()
    assert {user: before.applied(user) for user in before.last} == {user: after.applied(user) for user in after.last}

    scene.workers.append(sleeper)
    scene.send(500)
    scene.settle()
    return heir


def asleep_a_minute(scene: Scene) -> None:
    """The everyday row."""
    asleep(scene, 60)


def asleep_then_compacted(scene: Scene) -> None:
    """Longer than a transaction may last; then topics are compacted, and whoever restores from them finds the same."""
    asleep(scene, 90)
    scene.check()
    compact(scene.settings, "user-state")
    compact(scene.settings, "recommendations")
    for worker in scene.workers:
        worker.kill()
        worker.start()
    for worker in scene.workers:
        worker.ready()
    scene.send(1_000)


def storm(scene: Scene) -> None:
    """Workers join and leave every few seconds."""
    scene.worker("stays")
    guest = scene.worker("comes and goes")
    traffic = scene.traffic(30_000, 800, users=200)
    for number in range(6):
        time.sleep(2)
        if number % 2:
            guest.kill()
        else:
            guest.signal(signal.SIGTERM)
            guest.wait(60)
        guest.start().ready()
    traffic.join()


@rows(
    Fault("F1", "worker killed", "SIGKILL three times in a replay", _HOLDS, killed, quick=True, timeout_s=420),
    Fault(
        "F3", "worker asleep for 60 s", "SIGSTOP, another takes over, SIGCONT: it goes on", _HOLDS, asleep_a_minute,
        quick=True, timeout_s=420,
    ),
    Fault(
        "F3", "worker asleep for 90 s, then compaction", "SIGSTOP, SIGCONT: it goes on; topics compacted, restarts",
        _HOLDS, asleep_then_compacted, timeout_s=600,
    ),
    Fault(
        "F4", "rebalance storm", "a second worker joins and leaves six times, by SIGTERM and SIGKILL", _HOLDS, storm,
        timeout_s=420,
    ),
    Fault("F1", "worker killed, secured Kafka", "as above over TLS and SCRAM", _HOLDS, killed, secure=True),
)  # fmt: skip
def test_workers(fault: Fault, played: Callable[[Fault], None]) -> None:
    """Whoever dies, sleeps or leaves, the end is what plain loops say."""
    played(fault)


@pytest.mark.matrix
@pytest.mark.timeout(1_500)
@pytest.mark.parametrize("log", ["uniform", "zipf"])
@pytest.mark.row(
    "F1", "two workers, killed at 20 random points", "SIGKILL in turn; each event delivered 1 to 3 times, shuffled",
    "I1 I2 I3 I4 I5 I7 I9 I10",
)  # fmt: skip
def test_killed_at_twenty_points(log: str, pytestconfig: pytest.Config, staged_scene: Callable[[Fault], Scene]) -> None:
    """Nothing lost, nothing double, states as plain loops say, no list seen twice by read-committed readers."""
    count = int(pytestconfig.getoption("--events"))
    scene = staged_scene(Fault("F1", log, "", "", killed))
    seed = random.SystemRandom().randrange(10_000)
    print(f"seed {seed}")
    rng = random.Random(seed)
    workers = [scene.worker("left"), scene.worker("right")]
    stream = delivered(scene.stream(count, users=5_000, zipf=log == "zipf"), seed)
    traffic = scene.traffic_of(stream, rate=4_000)
    # A copy adds one event on average.
    per_kill_s = 2 * count / 4_000 / 20
    for number in range(20):
        time.sleep(rng.uniform(0.5, 1.5) * per_kill_s)
        victim = workers[number % 2]
        victim.kill()
        victim.start()
    for worker in workers:
        worker.ready(180)
    traffic.join()
    scene.settle(600)
    scene.check()
