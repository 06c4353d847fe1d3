"""
The refresh loop: takes users who are owed a list, ranks them together, publishes to the topic and to Redis.

There is no timer: a batch begins when the one before is ranked, and events that arrive meanwhile coalesce. Ranking
runs in a thread; the catalogue changes only between two batches. Redis is written beside the next batch and never
waited for; what it refused is tried again, newest version only.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import structlog

from models.users import Users, joined
from streams import metrics
from streams.catalogue.matrix import Catalogue
from streams.catalogue.records import Applied, CatalogueRecord
from streams.catalogue.view import View
from streams.experiments.assignment import Experiments
from streams.interests.state import LastList
from streams.kafka.outgoing import OutRecord
from streams.refresh.cache import CacheEntry, ListCache
from streams.refresh.compose import compose
from streams.refresh.dirty import Cause, DirtyUsers
from streams.refresh.partition import InterestPartition
from streams.refresh.rank import Ranked, Ranker
from streams.settings import EVENT_TYPES, Settings
from streams.topics import full_name
from streams.wire.events import IMPRESSION
from streams.wire.items import Item
from streams.wire.recommendations import AsOf, Assigned, default_key, topic_key

_LOG = structlog.get_logger(__name__)

#: Redis is tried again for refused lists this often; the cache's own breaker keeps a dead Redis from costing time.
_RETRY_S = 0.5
#: Lists kept for a Redis that is away. Above, the oldest is given up: the user's next list, or a replay of
#: `recommendations`, brings the key back.
_MAX_OWED = 50_000
#: Batches of Redis writes under way beside ranking.
_CACHE_WRITES = 2
_IMPRESSIONS = EVENT_TYPES[IMPRESSION]


class _Job(NamedTuple):
    """One list to be made, with what it tells of how it was made, copied on the loop."""

    partition: InterestPartition
    user_id: str
    surface: str
    cause: Cause
    version: int
    as_of: AsOf
    experiments: dict[str, Assigned]
    events_applied: dict[str, int]
    event_ts_ms: int

    @property
    def interactions(self) -> int:
        """How many interactions the list is made of: impressions change no list."""
        return sum(self.events_applied.values()) - self.events_applied.get(_IMPRESSIONS, 0)


class _Made(NamedTuple):
    """A list, composed and encoded."""

    job: _Job
    generated_at_ms: int
    item_ids: Sequence[str]
    price_marks: tuple[int, ...]
    value: bytes


class _Erasure(NamedTuple):
    """A user whom the cache has still to forget: on which surfaces, and what is older than which version."""

    partition: InterestPartition
    version: int
    surfaces: set[str]


class Publisher:
    """
    Ranks and publishes for all partitions of a worker; implements `streams.refresh.partition.Refresh`.

    Parameters
    ----------
    clock
        Seconds since the epoch; the time written on lists.

    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        experiments: Experiments,
        cache: ListCache,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.experiments = experiments
        self._settings = settings
        self._catalogue = catalogue
        self._cache = cache
        self._clock = clock
        self._ranker = Ranker(catalogue, settings)
        self._dirty: DirtyUsers[InterestPartition] = DirtyUsers()
        self._in_flight: set[str] = set()
        self._erased_in_flight: set[str] = set()
        self._erasures: dict[str, _Erasure] = {}
        self._wake = asyncio.Event()
        self._still = asyncio.Lock()
        self._rank_thread = ThreadPoolExecutor(1, thread_name_prefix="rank")
        self._cache_threads = ThreadPoolExecutor(_CACHE_WRITES, thread_name_prefix="cache")
        self._cache_slots = asyncio.Semaphore(_CACHE_WRITES)
        self._cache_tasks: set[asyncio.Task[None]] = set()
        self._owed: dict[tuple[str, str], CacheEntry] = {}
        self._main_surface = settings.surfaces[0]
        self._topic = full_name(settings, "recommendations")

    # What partitions tell

    def mark(self, partition: InterestPartition, user_id: str, cause: Cause) -> None:
        """Owe a list to a user."""
        self._dirty.mark(partition, user_id, cause)
        self._wake.set()

    def forget(self, partition: InterestPartition) -> None:
        """Drop all that is owed in a partition that was given up."""
        self._dirty.forget(partition)
        for user_id in [user_id for user_id, erasure in self._erasures.items() if erasure.partition is partition]:
            del self._erasures[user_id]

    def owes(self, user_ids: Sequence[str]) -> list[bool]:
        """Return whether a list of each user waits or is being ranked, or the cache has still to forget the user."""
        dirty, in_flight, erasures = self._dirty, self._in_flight, self._erasures
        if not (len(dirty) or in_flight or erasures):
            return [False] * len(user_ids)
        return [user_id in dirty or user_id in in_flight or user_id in erasures for user_id in user_ids]

    def erase(self, partition: InterestPartition, user_id: str, version: int) -> None:
        """Drop a user's lists: the one that waits, the one that is being ranked, and those in Redis."""
        self._dirty.drop(user_id)
        if user_id in self._in_flight:
            self._erased_in_flight.add(user_id)
        surfaces = self._settings.surfaces
        self._erasures[user_id] = _Erasure(partition, version, set(surfaces))
        self._owe_cache([CacheEntry.erasure(user_id, surface, version) for surface in surfaces])

    async def apply(self, records: Iterable[CatalogueRecord]) -> Applied:
        """Change the catalogue, between two ranking calls."""
        async with self._still:
            return self._catalogue.apply(records)

    # Ranking

    async def run(self) -> None:
        """Rank for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while len(self._dirty):
                await self._refresh_batch()
                metrics.DIRTY.set(len(self._dirty))

    async def _refresh_batch(self) -> None:
        """
        Make one batch of lists.

        1. On the loop: take the users, copy what their lists are decided from, give each list its version.
        2. In the ranking thread: rank, compose, encode.
        3. On the loop: produce to the partitions' transactions and note the lists in the states.
        4. Beside: write to Redis.
        """
        async with self._still:
            # Step 1.
            taken = self._dirty.take(self._settings.rank_batch)
            self._in_flight.update(user_id for _, user_id, _ in taken)
            try:
                jobs, users = self._jobs(taken)
                # Step 2.
                made = await asyncio.get_running_loop().run_in_executor(
                    self._rank_thread, self._make, jobs, users, self._catalogue.view()
                )
            finally:
                self._in_flight.clear()
                erased, self._erased_in_flight = self._erased_in_flight, set()
        # Step 3.
        by_partition: defaultdict[InterestPartition, list[_Made]] = defaultdict(list)
        for one in made:
            if not (one.job.partition.closed or one.job.user_id in erased):
                by_partition[one.job.partition].append(one)
        served = [one for partition, lists in by_partition.items() for one in self._serve(partition, lists)]
        # Step 4.
        await self._write_cache(
            [self._cache_entry(one) for one in served],
            [one.job.cause.oldest_ms for one in served if one.job.cause.oldest_ms],
        )

    def _jobs(self, taken: Sequence[tuple[InterestPartition, str, Cause]]) -> tuple[list[_Job], list[Users]]:
        """Return what to make, and from what: the users of each partition, in the order of the jobs."""
        by_partition: defaultdict[InterestPartition, list[tuple[str, Cause]]] = defaultdict(list)
        for partition, user_id, cause in taken:
            if not partition.closed:
                by_partition[partition].append((user_id, cause))
        jobs: list[_Job] = []
        parts: list[Users] = []
        for partition, owed in by_partition.items():
            found = [(user_id, cause, partition.slab.row(user_id)) for user_id, cause in owed]
            known = [(user_id, cause, row) for user_id, cause, row in found if row is not None]
            if known:
                more, users = self._partition_jobs(partition, known)
                jobs.extend(more)
                parts.append(users)
        return jobs, parts

    def _partition_jobs(
        self, partition: InterestPartition, known: Sequence[tuple[str, Cause, int]]
    ) -> tuple[list[_Job], Users]:
        slab, experiments = partition.slab, self.experiments
        rows = np.array([row for _, _, row in known], np.int64)
        assigned = [experiments.assign(user_id) for user_id, _, _ in known]
        users = partition.vectors.users(
            rows,
            [experiments.parameters(parts) for parts in assigned],
            [cause.kind != "event" for _, cause, _ in known],
        )
        # A vector that came late is the effect of an earlier event.
        users.previous.moved[[cause.kind == "catalogue" for _, cause, _ in known]] = True
        as_of = self._as_of(partition)
        jobs = [
            _Job(
                partition, user_id, self._main_surface, cause, partition.next_version(), as_of, parts,
                events_applied, event_ts_ms,
            )
            for (user_id, cause, _), parts, events_applied, event_ts_ms in zip(
                known, assigned, slab.events_applied(rows), users.now_ms.tolist(), strict=True
            )
        ]  # fmt: skip
        return jobs, users

    def _as_of(self, partition: InterestPartition) -> AsOf:
        return AsOf(
            offsets=dict(partition.owner.consumed),
            catalogue=self._catalogue.revision,
            signals=self._catalogue.signals_revision,
            rules=self._catalogue.offer.revision,
        )

    def _make(self, jobs: Sequence[_Job], users: Sequence[Users], view: View) -> list[_Made]:
        started = time.monotonic()
        ranked = self._ranker.rank(joined(users), view) if users else []
        made = [self._compose(job, items, view.fingerprint) for job, items in zip(jobs, ranked, strict=True)]
        metrics.RANK_SECONDS.observe(time.monotonic() - started)
        metrics.RANK_BATCH.observe(len(jobs))
        return made

    def _compose(self, job: _Job, ranked: Ranked, model: str) -> _Made:
        generated_at_ms = round(self._clock() * 1000)
        recommendation = compose(
            ranked,
            user_id=job.user_id,
            surface=job.surface,
            partition=job.partition.partition,
            version=job.version,
            generated_at_ms=generated_at_ms,
            event_ts_ms=job.event_ts_ms,
            ingested_at_ms=job.cause.ingested_ms,
            policy=self._settings.policy,
            model=model,
            as_of=job.as_of,
            experiments=job.experiments,
            trigger=job.cause.trigger(job.partition.partition),
            events_applied=job.events_applied,
        )
        return _Made(job, generated_at_ms, ranked.item_ids, ranked.price_marks, recommendation.encode())

    def _serve(self, partition: InterestPartition, lists: Sequence[_Made]) -> list[_Made]:
        """Publish lists and note them in the states; return those of users who are still known."""
        slab = partition.slab
        known = [(one, row) for one in lists if (row := slab.row(one.job.user_id)) is not None]
        partition.owner.send(
            [
                OutRecord(
                    self._topic,
                    topic_key(one.job.user_id, one.job.surface, self._main_surface),
                    one.value,
                    partition.partition,
                )
                for one, _ in known
            ]
        )
        metrics.LISTS.labels("user").inc(len(known))
        if partition.closed:
            # Sending is how the worker heard that it was fenced: the users are gone.
            return []
        for one, row in known:
            last = slab.last_list(row)
            job, before = one.job, dict(last.items) if last else {}
            items = tuple([(item_id, before.get(item_id, job.event_ts_ms)) for item_id in one.item_ids])
            made = (job.version, one.generated_at_ms, items, job.event_ts_ms, job.interactions, one.price_marks)
            slab.serve(row, LastList(*made))
        return [one for one, _ in known]

    # Default lists

    async def publish_defaults(self, partition: InterestPartition) -> None:
        """Make the list of each surface for visitors without events, in a partition's transaction."""
        async with self._still:
            as_of, view = self._as_of(partition), self._catalogue.view()
            ranked = await asyncio.get_running_loop().run_in_executor(
                self._rank_thread, self._ranker.default, self.experiments.parameters({}), view
            )
        if partition.closed:
            return
        lists: dict[str, tuple[int, bytes]] = {}
        for surface in self._settings.surfaces:
            cause = Cause("interval")
            job = _Job(partition, "", surface, cause, partition.next_version(), as_of, {}, {}, 0)
            made = self._compose(job, ranked, view.fingerprint)
            partition.owner.send([OutRecord(self._topic, default_key(surface), made.value, partition.partition)])
            lists[surface] = (job.version, made.value)
        metrics.LISTS.labels("default").inc(len(lists))
        await asyncio.get_running_loop().run_in_executor(self._cache_threads, self._cache.write_defaults, lists)

    # Redis

    def _cache_entry(self, made: _Made) -> CacheEntry:
        buckets: Mapping[str, str] = {key: assigned.variant for key, assigned in made.job.experiments.items()}
        return CacheEntry(made.job.user_id, made.job.surface, made.job.version, made.value, dict(buckets))

    async def _write_cache(self, entries: Sequence[CacheEntry], oldest_ms: Sequence[int]) -> None:
        """Start a write; wait only while the allowed number of them is under way."""
        if not entries:
            return
        await self._cache_slots.acquire()
        task = asyncio.get_running_loop().create_task(self._write(entries, oldest_ms))
        self._cache_tasks.add(task)
        task.add_done_callback(self._write_ended)

    def _write_ended(self, task: asyncio.Task[None]) -> None:
        self._cache_tasks.discard(task)
        self._cache_slots.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("cache_write_failed", error=str(error))

    async def _write(self, entries: Sequence[CacheEntry], oldest_ms: Sequence[int]) -> None:
        result = await asyncio.get_running_loop().run_in_executor(self._cache_threads, self._cache.write, entries)
        if result.failed:
            self._owe_cache(entries)
            return
        if self._erasures:
            self._settle(entries)
        now_ms = self._clock() * 1000
        for oldest in oldest_ms:
            metrics.FRESHNESS.observe(max(0.0, now_ms - oldest) / 1000)

    def _settle(self, entries: Sequence[CacheEntry]) -> None:
        """Tell the partitions whose erased users Redis holds nothing old of any more: the mark, or a newer list."""
        for entry in entries:
            erasure = self._erasures.get(entry.user_id)
            if erasure is None or entry.version < erasure.version:
                continue
            erasure.surfaces.discard(entry.surface)
            if not erasure.surfaces:
                del self._erasures[entry.user_id]
                erasure.partition.settled(entry.user_id)

    def _owe_cache(self, entries: Sequence[CacheEntry]) -> None:
        for entry in entries:
            key = (entry.user_id, entry.surface)
            known = self._owed.pop(key, None)
            self._owed[key] = entry if known is None or entry.version > known.version else known
        while len(self._owed) > _MAX_OWED:
            self._owed.pop(next(iter(self._owed)))
        metrics.CACHE_OWED.set(len(self._owed))

    async def retry_cache(self) -> None:
        """Offer refused lists to Redis again, for ever."""
        while True:
            await asyncio.sleep(_RETRY_S)
            if self._owed:
                batch = list(self._owed.items())[: self._settings.rank_batch]
                for key, _ in batch:
                    del self._owed[key]
                await self._write_cache([entry for _, entry in batch], [])
            metrics.CACHE_OWED.set(len(self._owed))

    async def write_cards(self, items: Sequence[Item]) -> None:
        """Write item cards for people who look into Redis; a failure is counted and left."""
        await asyncio.get_running_loop().run_in_executor(self._cache_threads, self._cache.write_cards, items)

    async def stop(self) -> None:
        """Let writes under way end, and the threads with them."""
        if self._cache_tasks:
            await asyncio.wait(self._cache_tasks, timeout=self._settings.redis_timeout_s * 4)
        self._rank_thread.shutdown(wait=False, cancel_futures=True)
        self._cache_threads.shutdown(wait=False, cancel_futures=True)
