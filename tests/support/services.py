"""One real Kafka and one real Redis for a whole test session, and a namespace of their own for each test."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streams.kafka.admin import create_topics
from streams.local.kafka import LocalKafka
from streams.local.processes import free_port
from streams.local.redis import LocalRedis
from streams.settings import ENV_PREFIX, Settings
from tests.support.proxy import Proxy

#: What a developer may set for the tests too: where downloads are kept.
_KEPT = {"FRESHET_CACHE_DIR"}


def forget_environment() -> None:
    """Remove Freshet's settings from the environment: a test says itself what it runs with."""
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX) and name not in _KEPT]:
        del os.environ[name]


class ProxiedKafka(LocalKafka):
    """
    A Kafka that clients reach through a proxy only; what it says to itself does not pass there.

    Attributes
    ----------
    proxy
        Breaks what the test wants broken; there once Kafka has started.

    """

    proxy: Proxy

    def _properties(self) -> str:
        direct, internal = free_port(), free_port()
        self.proxy = Proxy(direct, self.port)
        text = re.sub(
            rf"(?m)^listeners=CLIENT://127.0.0.1:{self.port}",
            rf"listeners=CLIENT://127.0.0.1:{direct}",
            super()._properties(),
        )
        if self.security is None:
            text = text.replace("inter.broker.listener.name=CLIENT", "inter.broker.listener.name=INTERNAL")
            text = text.replace("CLIENT:PLAINTEXT", "CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT")
            text = re.sub(r"(?m)^((?:advertised\.)?listeners=.*)$", rf"\1,INTERNAL://127.0.0.1:{internal}", text)
        return text

    def _launch(self, jars: Path) -> None:
        super()._launch(jars)
        self.proxy.__enter__()

    def stop(self, timeout_s: float = 20.0) -> None:
        """End the node and its proxy."""
        super().stop(timeout_s)
        self.proxy.__exit__(None, None, None)


@contextmanager
def running_kafka(folder: Path, *, secure: bool = False, kind: type[LocalKafka] = LocalKafka) -> Iterator[LocalKafka]:
    """A Kafka that is stopped at the end, whatever happens."""
    kafka = kind(folder, Settings().cache_dir, secure=secure)
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

    Attributes
    ----------
    redis
        The shared Redis.

    """

    def __init__(self, kafka: LocalKafka, server: LocalRedis, folder: Path) -> None:
        self.redis = server
        self._kafka = kafka
        self._folder = folder
        self._numbers = itertools.count(1)

    @property
    def secure(self) -> bool:
        """Whether its Kafka takes nothing but TLS and SCRAM."""
        return self._kafka.security is not None

    def __call__(self, **overrides: Any) -> Settings:
        """Return settings of a new namespace after creating its topics."""
        namespace = f"t{next(self._numbers)}"
        shared: dict[str, Any] = {
            "namespace": namespace,
            **self._kafka.settings(),
            "redis_url": self.redis.url,
            "state_dir": self._folder / namespace,
            "partitions": 4,
        }
        settings = Settings(**(shared | overrides))
        create_topics(settings)
        return settings
