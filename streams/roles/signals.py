"""The signals worker: item events in, what is known of items out. Wiring only."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from models.prebuilt import take_prebuilt
from streams.kafka.admin import require_topics, topic_partitions
from streams.kafka.runtime import Runtime, run_role
from streams.settings import Settings
from streams.signals.fitting import Fitter
from streams.signals.partition import SignalsPartition
from streams.signals.warm import warm
from streams.topics import full_name

#: How often it is looked whether a partition has yet to take the newest fit.
_WATCH_S = 0.5
#: Share of the interval at which signals are published that their events may wait to be fetched together.
_FETCH_PAUSE_SHARE = 0.1
#: Where roles share a machine, lists go before signals, which are published in a burst each second.
_NICE = 10


class Signals:
    """The `Role` of the signals worker."""

    name = "signals"

    def __init__(self, settings: Settings) -> None:
        self.topics: Sequence[str] = (full_name(settings, "item-events"),)
        self.commit_interval_s = settings.signals_publish_interval_s
        self.fetch_pause_s = settings.signals_publish_interval_s * _FETCH_PAUSE_SHARE
        self._settings = settings
        self._partitions = 0
        self._fitter: Fitter | None = None

    def work(self, partition: int) -> SignalsPartition:
        """Make the state of one partition, empty."""
        return SignalsPartition(self._settings, partition, self._partitions)

    async def start(self, runtime: Runtime) -> None:
        """
        Check the topics and begin to fit.

        Raises
        ------
        TopicMismatchError
            When a topic is missing or not as it must be; nothing was consumed.

        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, require_topics, self._settings)
        counts = await loop.run_in_executor(None, topic_partitions, self._settings)
        self._partitions = counts[self.topics[0]]
        await loop.run_in_executor(None, take_prebuilt)
        await loop.run_in_executor(None, warm)
        if self._settings.neighbours_refit_interval_s:
            self._fitter = fitter = Fitter(self._settings, self._partitions)
            fitter.start()
            runtime.spawn(_hand_over(fitter, runtime))

    async def stop(self) -> None:
        """End the fitter."""
        if self._fitter is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._fitter.stop)

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Ready whenever the partitions are."""
        return True, {}


async def _hand_over(fitter: Fitter, runtime: Runtime) -> None:
    """Give the newest fit to every partition, also to those taken later."""
    while True:
        await asyncio.sleep(_WATCH_S)
        if fitter.error is not None:
            raise fitter.error
        if (fit := fitter.latest) is None:
            continue
        for owner in runtime.owners.values():
            work = owner.work
            if owner.state == "live" and isinstance(work, SignalsPartition) and work.fit is not fit:
                work.take_fit(fit)


def run(settings: Settings) -> None:
    """
    Run a signals worker until SIGTERM.

    Raises
    ------
    FreshetError
        With the reason it ended.

    """
    os.nice(_NICE)
    run_role(settings, Signals(settings))
