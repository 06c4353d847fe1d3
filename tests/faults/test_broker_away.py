"""F5, F6 and F7: Kafka restarts, Redis goes and comes back, Kafka goes for good."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.kafka.admin import create_topics
from streams.local.kafka import LocalKafka
from streams.local.redis import LocalRedis
from streams.settings import Settings
from tests.faults.test_worker_killed import settle
from tests.support.oracle import Oracle
from tests.support.roles import RoleProcess
from tests.support.services import running_kafka, running_redis
from tests.support.shop import events, producer, send, stock
from tests.support.verifier import check_everything, wait_until_consumed

pytestmark = [pytest.mark.integration, pytest.mark.faults]

_START_MS = round(time.time() * 1000) - 86_400_000


@pytest.fixture
def kafka_of_its_own(tmp_path: Path) -> Iterator[LocalKafka]:
    """A Kafka that a test may kill."""
    with running_kafka(tmp_path / "kafka") as kafka:
        yield kafka


@pytest.fixture
def redis_of_its_own(tmp_path: Path) -> Iterator[LocalRedis]:
    """A Redis that a test may kill."""
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.mark.timeout(400)
def test_a_worker_outlives_its_broker_and_its_cache(
    kafka_of_its_own: LocalKafka, redis_of_its_own: LocalRedis, tmp_path: Path
) -> None:
    """
    Killed and restarted, neither Kafka nor Redis costs an event or a list; Kafka away for good ends the process.

    The exit code says that a dependency is away, within the commit's deadline and some seconds.
    """
    settings = Settings(
        namespace="away", kafka_bootstrap=kafka_of_its_own.bootstrap, redis_url=redis_of_its_own.url, partitions=2,
        kafka_timeout_s=30,
    )  # fmt: skip
    create_topics(settings)
    stock(settings)
    oracle = Oracle()
    with RoleProcess("worker", settings, tmp_path) as worker:
        worker.ready()
        _send_more(settings, oracle, seed=1)
        wait_until_consumed(settings)
        settle(worker)

        kafka_of_its_own.kill()
        time.sleep(5)
        kafka_of_its_own.start()
        _send_more(settings, oracle, seed=2)
        wait_until_consumed(settings)
        settle(worker)
        check_everything(settings, oracle)

        redis_of_its_own.kill()
        _send_more(settings, oracle, seed=3)
        wait_until_consumed(settings)

        assert worker.metric("freshet_cache_owed") > 0

        redis_of_its_own.start()
        settle(worker)

        assert worker.get("/readyz")[0] == 200

        # What Redis lost with its memory comes back with each user's next event.
        _send_more(settings, oracle, seed=4, count=2_000)
        wait_until_consumed(settings)
        settle(worker)
        check_everything(settings, oracle)

        kafka_of_its_own.kill()

        assert worker.wait(90) == 4, worker.tail()
        assert "freshet:" in worker.tail()


def _send_more(settings: Settings, oracle: Oracle, seed: int, count: int = 500) -> None:
    """Send a stream whose event time goes on where that of the seed before ended, so that nothing is late."""
    out = producer(settings)
    start_ms = _START_MS + seed * 3_000_000
    for sent in events(count, users=50, seed=seed, start_ms=start_ms):
        send(out, settings, sent)
        oracle.add(sent.type_name, sent.event)
    assert out.flush(60) == 0
