"""The signals worker: item events in, decayed popularity of items out. Wiring only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from streams.kafka.admin import require_topics, topic_partitions
from streams.kafka.runtime import Runtime, run_role
from streams.settings import Settings
from streams.signals.partition import SignalsPartition
from streams.topics import full_name


class Signals:
    """The `Role` of the signals worker."""

    name = "signals"

    def __init__(self, settings: Settings) -> None:
        self.topics: Sequence[str] = (full_name(settings, "item-events"),)
        self.commit_interval_s = settings.signals_publish_interval_s
        self._settings = settings
        self._partitions = 0

    def work(self, partition: int) -> SignalsPartition:
        """Make the state of one partition, empty."""
        return SignalsPartition(self._settings, partition, self._partitions)

    async def start(self, runtime: Runtime) -> None:
        """
        Check the topics.

        Raises
        ------
        TopicMismatchError
            When a topic is missing or not as it must be; nothing was consumed.

        """
        del runtime
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, require_topics, self._settings)
        counts = await loop.run_in_executor(None, topic_partitions, self._settings)
        self._partitions = counts[self.topics[0]]

    async def stop(self) -> None:
        """Nothing runs beside the partitions."""

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Ready whenever the partitions are."""
        return True, {}


def run(settings: Settings) -> None:
    """
    Run a signals worker until SIGTERM.

    Raises
    ------
    FreshetError
        With the reason it ended.

    """
    run_role(settings, Signals(settings))
