"""What every test may use: a real Kafka and Redis, started when the first test asks, stopped at the end."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import hypothesis
import pytest

from streams.local.kafka import LocalKafka
from streams.local.redis import LocalRedis
from tests.support.fault_table import FaultTable
from tests.support.services import SettingsFactory, forget_environment, running_kafka, running_redis


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--faults` adds the long rows of the fault table; `--secure` lets every shared Kafka take TLS and SCRAM only."""
    parser.addoption("--faults", action="store_true", help="run every row of the fault table and write RESULTS.md")
    parser.addoption("--secure", action="store_true", help="the tests' Kafka takes nothing but TLS and SCRAM")
    parser.addoption("--events", type=int, default=300_000, help="events of the longest row (kill -9 at 20 points)")


def pytest_configure(config: pytest.Config) -> None:
    """
    Keep the developer's own settings and the caller's signal rules out of the tests.

    A shell that starts the tests in the background has them ignore SIGINT, and every process they start as well.
    """
    forget_environment()
    # An example's time tells how busy the machine is, and whether compiled code was loaded before.
    hypothesis.settings.register_profile("freshet", deadline=None)
    hypothesis.settings.load_profile("freshet")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(FaultTable(config), "fault-table")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long rows out of an everyday run."""
    if config.getoption("--faults"):
        return
    long = [item for item in items if item.get_closest_marker("matrix")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[LocalKafka]:
    """One Kafka for the session; a test that stops or pauses Kafka starts its own."""
    secure = bool(pytestconfig.getoption("--secure"))
    with running_kafka(tmp_path_factory.mktemp("kafka"), secure=secure) as running:
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
