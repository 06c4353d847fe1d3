"""F5, F6 and F24: Kafka restarted, unreachable, cut off in one direction, gone for good, or no longer what it was."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable

import pytest
from kafka import KafkaAdminClient, TopicPartition

from streams.errors import AssignmentError, DependencyError, TopicMismatchError
from streams.kafka.admin import create_topics
from streams.kafka.clients import kafka_python_config
from streams.settings import Settings
from streams.topics import EVENT_TOPICS, full_name
from tests.support.proxy import Proxy
from tests.support.roles import RoleProcess
from tests.support.scene import Fault, Need, Scene, rows
from tests.support.states import check_states

pytestmark = [pytest.mark.integration, pytest.mark.faults]


def restarted(scene: Scene) -> None:
    """Killed and started again, twice; the process may end with its reason and is started again."""
    assert scene.kafka is not None
    keeper = scene.kept(scene.worker())
    traffic = scene.traffic(10_000, 500)
    for _ in range(2):
        time.sleep(3)
        scene.kafka.kill()
        time.sleep(5)
        scene.kafka.start()
    traffic.join()

    assert {DependencyError.exit_code} >= set(keeper.exits)


def stopped_cleanly(scene: Scene) -> None:
    """As an operator restarts a broker."""
    assert scene.kafka is not None
    scene.kept(scene.worker())
    traffic = scene.traffic(6_000, 500)
    time.sleep(3)
    scene.kafka.stop()
    scene.kafka.start()
    traffic.join()


def gone_for_good(scene: Scene) -> None:
    """The process ends with the exit code of a dependency, and goes on where it was once Kafka is back."""
    assert scene.kafka is not None
    worker = scene.worker()
    scene.send()
    scene.settle()
    scene.kafka.kill()

    assert DependencyError.exit_code == worker.wait(90), worker.tail()
    assert "freshet:" in worker.tail()

    scene.kafka.start()
    worker.start().ready()
    scene.send()


def proxied(scene: Scene, broken: Callable[[Proxy], None], seconds: float = 20.0) -> None:
    """Break the network under traffic for a while, and heal it."""
    assert scene.kafka_proxy is not None
    worker = scene.worker()
    keeper = scene.kept(worker)
    traffic = scene.traffic(10_000, 400)
    time.sleep(4)
    broken(scene.kafka_proxy)
    time.sleep(seconds)
    scene.kafka_proxy.heal()
    traffic.join()
    worker.ready()

    assert {DependencyError.exit_code} >= set(keeper.exits)


def black_hole(scene: Scene) -> None:
    """Every packet is lost and nobody is told."""
    proxied(scene, Proxy.black_hole)


def deaf(scene: Scene) -> None:
    """Requests arrive and answers do not."""

    def cut(proxy: Proxy) -> None:
        proxy.cut = frozenset({"to_client"})

    proxied(scene, cut)


def resets(scene: Scene) -> None:
    """Every connection is reset once a second."""

    def reset(proxy: Proxy) -> None:
        for _ in range(10):
            proxy.reset()
            time.sleep(1)

    proxied(scene, reset, 0)


def slow(scene: Scene) -> None:
    """Each packet takes 100 ms and a connection carries 1 MB/s."""

    def slow_down(proxy: Proxy) -> None:
        proxy.delay_s, proxy.bytes_per_s = 0.1, 1_000_000

    proxied(scene, slow_down)


_OWN: frozenset[Need] = frozenset({"kafka"})
_PROXY: frozenset[Need] = frozenset({"kafka_proxy"})
_HOLDS = "I1 I2 I3 I4 I5 I7 I9"


@rows(
    Fault("F5", "Kafka killed twice", "SIGKILL, 5 s, start", _HOLDS, restarted, needs=_OWN),
    Fault("F5", "Kafka restarted cleanly", "SIGTERM, start", _HOLDS, stopped_cleanly, needs=_OWN, quick=True),
    Fault(
        "F6", "Kafka gone for good", "SIGKILL", _HOLDS + " I12", gone_for_good, needs=_OWN, quick=True,
        settings={"kafka_timeout_s": 30},
    ),
    Fault("F6", "network a black hole", "proxy passes nothing for 20 s", _HOLDS + " I8 I12", black_hole, needs=_PROXY),
    Fault("F6", "network deaf one way", "proxy holds answers for 20 s", _HOLDS + " I8 I12", deaf, needs=_PROXY),
    Fault("F6", "connections reset", "proxy resets all, ten times", _HOLDS, resets, needs=_PROXY),
    Fault("F6", "network slow", "proxy, 100 ms and 1 MB/s", _HOLDS, slow, needs=_PROXY),
)  # fmt: skip
def test_kafka(fault: Fault, played: Callable[[Fault], None]) -> None:
    """The worker outlives it or ends with its reason; nothing is lost, and it heals by itself."""
    played(fault)


# F24: what Kafka holds is not what was committed against.


def refuses(worker: RoleProcess, *words: str, code: int = TopicMismatchError.exit_code, within_s: float = 60) -> None:
    """Hold that a worker ends with a sentence instead of guessing."""
    assert code == worker.wait(within_s), worker.tail()

    for word in words:
        assert word in worker.tail()


def admin_of(settings: Settings) -> KafkaAdminClient:
    """An admin client."""
    return KafkaAdminClient(**kafka_python_config(settings))


def consumed(scene: Scene) -> RoleProcess:
    """Return a worker that has consumed something, and has stopped."""
    worker = scene.worker()
    scene.send()
    scene.settle()
    worker.process.terminate()
    worker.wait(30)
    return worker


def more_partitions(scene: Scene) -> None:
    """One event topic has more partitions than the others: users would be torn apart."""
    worker = consumed(scene)
    admin = admin_of(scene.settings)
    admin.create_partitions({full_name(scene.settings, "clicks"): 5})
    admin.close()
    time.sleep(1)
    worker.start()
    refuses(worker, "clicks 5")


def more_partitions_while_running(scene: Scene) -> None:
    """The same under a running worker, which hears of it when its client asks for metadata again, every 5 minutes."""
    worker = scene.worker()
    scene.send()
    scene.settle()
    admin = admin_of(scene.settings)
    admin.create_partitions({full_name(scene.settings, "clicks"): 5})
    admin.close()
    refuses(worker, "clicks", code=AssignmentError.exit_code, within_s=400)


def made_anew(scene: Scene) -> None:
    """The event topics were deleted and made again: Kafka forgets their offsets, and states go on with the new logs."""
    worker = consumed(scene)
    admin = admin_of(scene.settings)
    admin.delete_topics([full_name(scene.settings, name) for name in EVENT_TOPICS])
    time.sleep(3)
    create_topics(scene.settings)
    admin.close()
    worker.start().ready()
    scene.send()
    scene.settle()
    check_states(scene.settings, scene.oracle)


def offsets_kept(scene: Scene) -> None:
    """A worker commits a deleted topic's offset once more, and the new one grows past it: told, healed as told."""
    worker = consumed(scene)
    clicks, group = full_name(scene.settings, "clicks"), scene.settings.group("interest")
    admin = admin_of(scene.settings)
    committed = {at: found for at, found in admin.list_group_offsets(group)[group].items() if at.topic == clicks}
    admin.delete_topics([clicks])
    time.sleep(3)
    create_topics(scene.settings)
    admin.alter_group_offsets(group, committed)
    scene.send(3_000)
    worker.start()
    refuses(worker, "clicks was deleted and made anew", "--delete-offsets")
    admin.delete_group_offsets(group, committed)
    admin.close()
    worker.start().ready()
    scene.settle()
    check_states(scene.settings, scene.oracle)


def expired(scene: Scene) -> None:
    """Records behind the committed offset were deleted before they were read: something is lost, and it is said."""
    worker = consumed(scene)
    scene.send(2_000)
    delete_views(scene)
    worker.start().ready()

    assert worker.metric("freshet_records_expired_total") > 0


def expired_while_running(scene: Scene) -> None:
    """The same under a worker that fell behind: it says so, and reads on where the log begins."""
    worker = scene.worker()
    scene.send()
    scene.settle()
    worker.signal(signal.SIGSTOP)
    scene.send(2_000)
    delete_views(scene)
    worker.signal(signal.SIGCONT)
    scene.send()
    scene.settle()

    assert worker.metric("freshet_records_expired_total") > 0
    assert "records_expired_unread" in worker.log.read_text()


def delete_views(scene: Scene) -> None:
    """As retention does, now."""
    admin = admin_of(scene.settings)
    topic = full_name(scene.settings, "views")
    admin.delete_records({TopicPartition(topic, partition): -1 for partition in range(scene.settings.partitions)})
    admin.close()


def log_lost_while_running(scene: Scene) -> None:
    """A broker comes back with an empty disk: what a worker has read is not what Kafka holds any more."""
    assert scene.kafka is not None
    worker = scene.worker()
    scene.send()
    scene.settle()
    scene.kafka.stop()
    for log in scene.kafka.folder.glob(f"data/{full_name(scene.settings, 'clicks')}-*"):
        shutil.rmtree(log)
    scene.kafka.start()
    refuses(worker, "clicks", "made anew")


@rows(
    Fault("F24", "partitions added", "create_partitions while stopped", "I12", more_partitions, quick=True),
    Fault(
        "F24", "partitions added to a running worker", "create_partitions", "I12", more_partitions_while_running,
        timeout_s=500,
    ),
    Fault("F24", "topics made anew", "delete and create", "I1 I2", made_anew),
    Fault("F24", "a topic made anew, offsets kept", "delete, create, alter_group_offsets", "I1 I2 I12", offsets_kept),
    Fault("F24", "records expired unread", "delete_records", "I12", expired),
    Fault(
        "F24", "records expired under a running worker", "SIGSTOP, delete_records, SIGCONT", "I12",
        expired_while_running, quick=True,
    ),
    Fault(
        "F24", "log lost under a running worker", "Kafka stopped, log removed, started", "I12",
        log_lost_while_running, needs=_OWN,
    ),
)  # fmt: skip
def test_a_changed_log_is_never_silent(fault: Fault, staged_scene: Callable[[Fault], Scene]) -> None:
    """The worker ends with a sentence, says in a metric what is missing, or goes on without loss."""
    fault.inject(staged_scene(fault))
