"""One real Kafka and one real Redis for a whole test session, and a namespace of their own for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streams.kafka.admin import create_topics
from streams.local.kafka import LocalKafka
from streams.local.redis import LocalRedis
from streams.settings import ENV_PREFIX, Settings

#: What a developer may set for the tests too: where downloads are kept.
_KEPT = {"FRESHET_CACHE_DIR"}


def forget_environment() -> None:
    """Remove Freshet's settings from the environment: a test says itself what it runs with."""
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX) and name not in _KEPT]:
        del os.environ[name]


@contextmanager
def running_kafka(folder: Path) -> Iterator[LocalKafka]:
    """A Kafka that is stopped at the end, whatever happens."""
    kafka = LocalKafka(folder, Settings().cache_dir)
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.stop()


@contextmanager
def running_redis(folder: Path) -> Iterator[LocalRedis]:
    """A Redis that is stopped at the end, whatever happens."""
    server = LocalRedis(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


class SettingsFactory:
    """
    Makes settings on shared services: each call a new namespace, with its topics created.

    Call it with anything of `Settings`; `partitions` is 4 unless given.
    """

    def __init__(self, kafka: LocalKafka, server: LocalRedis, folder: Path) -> None:
        self._kafka = kafka
        self._redis = server
        self._folder = folder
        self._numbers = itertools.count(1)

    def __call__(self, **overrides: Any) -> Settings:
        """Return settings of a new namespace after creating its topics."""
        namespace = f"t{next(self._numbers)}"
        shared: dict[str, Any] = {
            "namespace": namespace,
            "kafka_bootstrap": self._kafka.bootstrap,
            "redis_url": self._redis.url,
            "state_dir": self._folder / namespace,
            "partitions": 4,
        }
        settings = Settings(**(shared | overrides))
        create_topics(settings)
        return settings
