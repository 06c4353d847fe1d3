"""
Fetches and compiles once what the test processes share; `tests/run` calls it first.

Two test processes that begin on a new machine would otherwise run two Mavens and two apt-gets at the same time, and
neither shares its store with another.
"""

from __future__ import annotations

from streams.encoding.source import model_folder
from streams.local.kafka import kafka_jars
from streams.local.redis import redis_server
from streams.refresh.warm import warm
from streams.settings import Settings
from tests.support.services import forget_environment


def main() -> None:
    """Fetch what is not there yet."""
    forget_environment()
    settings = Settings.from_env()
    kafka_jars(settings.cache_dir)
    redis_server()
    model_folder(settings)
    warm()


if __name__ == "__main__":
    main()
