"""What every test may use: a real Kafka and Redis, started when the first test asks, stopped at the end."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from streams.local.kafka import LocalKafka
from streams.local.redis import LocalRedis
from tests.support.services import SettingsFactory, forget_environment, running_kafka, running_redis


def pytest_configure() -> None:
    """
    Keep the developer's own settings and the caller's signal rules out of the tests.

    A shell that starts the tests in the background has them ignore SIGINT, and every process they start as well.
    """
    forget_environment()
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """One Kafka for the session; a test that stops or pauses Kafka starts its own."""
    with running_kafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """One Redis for the session; a test that stops or fills Redis starts its own."""
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="session")
def settings_for(
    kafka: LocalKafka, redis_server: LocalRedis, tmp_path_factory: pytest.TempPathFactory
) -> SettingsFactory:
    """Settings of a namespace of its own, topics created: `settings_for(partitions=4, lateness_s=60)`."""
    return SettingsFactory(kafka, redis_server, tmp_path_factory.mktemp("state"))
