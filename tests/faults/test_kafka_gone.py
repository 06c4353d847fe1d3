"""F7 without traffic: a worker that has nothing to commit hears by itself that Kafka has gone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from streams.errors import DependencyError
from streams.kafka.admin import create_topics
from streams.settings import Settings
from tests.support.roles import RoleProcess
from tests.support.services import running_kafka

pytestmark = [pytest.mark.integration, pytest.mark.faults]

#: Asking Kafka whether it is there (every 2 s, for 5 s), stopping the consumer (20 s), and a loaded machine.
_SLACK_S = 50.0


def test_kafka_away_for_longer_than_the_limit_ends_an_idle_worker(tmp_path: Path) -> None:
    """Beyond `kafka_timeout_s`, and not before, the process ends with code 4 and a sentence."""
    with running_kafka(tmp_path / "kafka") as kafka:
        settings = Settings(kafka_bootstrap=kafka.bootstrap, kafka_timeout_s=12, partitions=2)
        create_topics(settings)
        # The signals role: without item events it commits nothing, and it follows no catalogue.
        with RoleProcess("signals", settings, tmp_path) as worker:
            worker.ready()
            time.sleep(5)
            kafka.kill()
            started = time.monotonic()

            assert DependencyError.exit_code == worker.wait(12 + _SLACK_S)
            assert 7 < time.monotonic() - started
            assert "did not answer for 12 s" in worker.tail()
