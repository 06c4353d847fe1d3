"""The interest worker: events in, states and lists out. Wiring only."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import structlog

from models.prebuilt import take_prebuilt
from models.segments import Split
from streams.catalogue.follower import Follower
from streams.catalogue.matrix import Catalogue
from streams.catalogue.records import Applied, CatalogueRecord
from streams.errors import ConfigurationError, DependencyError
from streams.experiments.assignment import Experiments
from streams.experiments.definitions import load_file, load_ranking
from streams.interests.budget import Budget
from streams.kafka.admin import require_topics
from streams.kafka.outgoing import OutRecord
from streams.kafka.owner import Owner
from streams.kafka.runtime import Runtime, run_role
from streams.refresh.cache import ListCache
from streams.refresh.partition import InterestPartition
from streams.refresh.publish import Publisher
from streams.refresh.warm import warm
from streams.settings import Settings
from streams.topics import INTEREST_TOPICS, full_name
from streams.wire.dead_letters import DeadLetter

_LOG = structlog.get_logger(__name__)

#: How often the follower's thread is looked at.
_WATCH_S = 0.5
#: How often the files of ranking parameters and of the scorer are looked at.
_RANKING_WATCH_S = 5.0
#: A part of what a list may take, and long enough to bring a handful of records together at a thousand a second.
_FETCH_PAUSE_S = 0.007
#: How late a rule of the shop may begin or end where nothing else is told of items.
_RULES_WATCH_S = 1.0
#: Cards written to Redis in one go.
_CARDS = 500
#: The worker that owns this partition makes what there is once: default lists, item cards, dead letters of rules, and
#: what front ends are told of blocked items.
_SINGLE = 0


class Worker:
    """The `Role` of the interest worker."""

    name = "interest"

    def __init__(self, settings: Settings) -> None:
        self.topics: Sequence[str] = tuple(full_name(settings, name) for name in INTEREST_TOPICS)
        self.commit_interval_s = settings.commit_interval_s
        self.fetch_pause_s = _FETCH_PAUSE_S
        self._settings = settings
        self._catalogue = Catalogue(
            half_life_popularity_s=settings.half_life_popularity_s,
            split=Split(settings.day_parts, settings.user_devices),
        )
        definitions = load_file(settings.experiments_file) if settings.experiments_file else []
        experiments = Experiments(definitions, load_ranking(settings.ranking_file))
        self._publisher = Publisher(
            settings, self._catalogue, experiments, ListCache(settings), more_comes=lambda: self._runtime.arriving
        )
        self._budget = Budget(settings.max_hot_users, settings.max_state_bytes)
        self._follower: Follower | None = None
        self._partitions: dict[str, int] = {}
        self._dead_letters_topic = full_name(settings, "dead-letters")
        self._runtime: Runtime

    def work(self, partition: int) -> InterestPartition:
        """Make the state of one partition, empty."""
        return InterestPartition(
            self._settings, partition, self._partitions, self._catalogue, self._publisher, self._budget
        )

    async def start(self, runtime: Runtime) -> None:
        """
        Check the topics, load the catalogue, begin to rank.

        Raises
        ------
        TopicMismatchError
            When a topic is missing or not as it must be; nothing was consumed.

        """
        self._runtime = runtime
        loop = asyncio.get_running_loop()
        counts = await loop.run_in_executor(None, require_topics, self._settings)
        self._partitions = {name: counts[full_name(self._settings, name)] for name in ("clicks", "item-events")}

        def on_batch(records: list[CatalogueRecord]) -> Future[Any]:
            return asyncio.run_coroutine_threadsafe(self._apply(records), loop)

        self._follower = follower = Follower(self._settings, on_batch)
        follower.start()
        # Beside the catalogue's load; a fold that compiles on the loop would look like a stuck one.
        await loop.run_in_executor(None, take_prebuilt)
        await loop.run_in_executor(None, warm)
        while not follower.loaded.is_set():
            _check(follower)
            await asyncio.sleep(0.02)
        runtime.spawn(_watch(follower))
        runtime.spawn(self._publisher.run())
        runtime.spawn(self._publisher.search.run())
        runtime.spawn(self._publisher.blocked.run(self._single))
        runtime.spawn(self._publisher.cache_writes.retry())
        runtime.spawn(self._do_single_things())
        runtime.spawn(self._pass_time())
        if self._settings.ranking_file is not None:
            runtime.spawn(_follow(self._settings.ranking_file, self._read_ranking))
        if self._settings.scorer_file is not None:
            runtime.spawn(_follow(self._settings.scorer_file, self._publisher.scoring.read))

    async def stop(self) -> None:
        """End the threads."""
        if self._follower is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._follower.stop)
        await self._publisher.stop()

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Ready once the catalogue is loaded and followed."""
        loaded = self._follower is not None and self._follower.loaded.is_set() and self._follower.alive
        served = self._catalogue.served
        model = served.fingerprint if served else ""
        return loaded, {"catalogue_loaded": loaded, "items": len(self._catalogue), "model": model}

    async def _apply(self, records: list[CatalogueRecord]) -> None:
        """Change the catalogue; users whose items got their vector are ranked again."""
        applied: Applied = await self._publisher.apply(records)
        self._publisher.blocked.tell(applied.withheld, applied.released)
        for told in applied.experiments:
            self._publisher.experiments = self._publisher.experiments.told(told.key, told.value)
        if applied.vectors:
            for partition in self._work():
                partition.vectors_came(applied.vectors)
        single = self._single()
        if single is None:
            return
        if self._publisher.defaults_hold(applied.closed):
            await self._publisher.publish_defaults(single)
        if applied.refused:
            single.owner.send([self._dead_letter(letter) for letter in applied.refused])
        if applied.cards:
            await self._publisher.write_cards(applied.cards)

    def _dead_letter(self, letter: DeadLetter) -> OutRecord:
        return OutRecord(self._dead_letters_topic, letter.topic.encode(), letter.value, headers=letter.headers())

    async def _pass_time(self) -> None:
        """Let rules of the shop begin and end while nothing is told of items."""
        while True:
            await asyncio.sleep(_RULES_WATCH_S)
            await self._apply([])

    def _read_ranking(self) -> None:
        """Rank by what the file of ranking parameters says, from the next list on."""
        base = load_ranking(self._settings.ranking_file)
        self._publisher.experiments = self._publisher.experiments.rebased(base)
        _LOG.info("ranking_changed", **dataclasses.asdict(base))

    def _work(self) -> list[InterestPartition]:
        return [
            owner.work
            for owner in self._runtime.owners.values()
            if owner.state == "live" and isinstance(owner.work, InterestPartition)
        ]

    def _single(self) -> InterestPartition | None:
        """Return the partition whose owner makes what there is once, if it is here."""
        return next((partition for partition in self._work() if partition.partition == _SINGLE), None)

    async def _do_single_things(self) -> None:
        """Whoever owns partition 0 keeps the default lists fresh and, when it takes the partition, writes all cards."""
        carded: Owner | None = None
        while True:
            if (partition := self._single()) is not None:
                if partition.owner is not carded:
                    carded = partition.owner
                    await self._write_all_cards()
                await self._publisher.publish_defaults(partition)
            # A partition that has just been taken should not wait a whole interval for its first default list.
            await asyncio.sleep(self._settings.default_list_interval_s if carded else _WATCH_S)

    async def _write_all_cards(self) -> None:
        cards = self._catalogue.cards()
        for start in range(0, len(cards), _CARDS):
            await self._publisher.write_cards(cards[start : start + _CARDS])


async def _follow(path: Path, read: Callable[[], None]) -> None:
    """Read a file whenever it changed; one that cannot be used is told and changes nothing."""
    # Read once more than needed, rather than miss a change since the start.
    read_ns = 0
    while True:
        await asyncio.sleep(_RANKING_WATCH_S)
        if (changed_ns := _changed_ns(path)) == read_ns:
            continue
        read_ns = changed_ns
        try:
            read()
        except ConfigurationError as error:
            _LOG.error("file_refused", file=str(path), error=str(error))


def _changed_ns(path: Path) -> int:
    """Return when a file last changed, 0 where it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _check(follower: Follower) -> None:
    if follower.error is not None:
        raise follower.error
    if not follower.alive:
        raise DependencyError("the catalogue follower ended")


async def _watch(follower: Follower) -> None:
    while True:
        _check(follower)
        await asyncio.sleep(_WATCH_S)


def run(settings: Settings) -> None:
    """
    Run an interest worker until SIGTERM.

    Raises
    ------
    FreshetError
        With the reason it ended.

    """
    run_role(settings, Worker(settings))
