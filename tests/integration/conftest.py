"""What several integration modules share; each gives `settings` of its own, for the module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from streams.settings import Settings
from tests.support.roles import RoleProcess


@pytest.fixture(scope="module")
def worker(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoleProcess]:
    """One running worker for the module."""
    with RoleProcess("worker", settings, tmp_path_factory.mktemp("worker")) as process:
        yield process.ready()


@pytest.fixture
def cache(settings: Settings) -> Iterator[redis.Redis]:
    """A look into Redis."""
    client = redis.Redis.from_url(settings.redis_url)
    yield client
    client.close()
