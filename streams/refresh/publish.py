"""
The refresh loop: takes users who are owed a list, ranks them together, publishes to the topic and to Redis.

There is no timer: a batch begins when the one before is ranked and what was fetched is folded, and events that arrive
meanwhile coalesce. Large batches are ranked in a thread; the catalogue changes only between two batches. Lists on which
something stands that may be listed no more are not ranked again: what stands by takes its place, in batches that take
turns with those that are ranked.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from models.users import Users, joined
from streams import metrics
from streams.catalogue.matrix import Catalogue
from streams.catalogue.records import Applied, CatalogueRecord
from streams.catalogue.view import View
from streams.experiments.assignment import Experiments
from streams.interests.state import LastList
from streams.kafka.outgoing import OutRecord
from streams.refresh.blocked import BlockedItems
from streams.refresh.cache import CacheEntry, ListCache
from streams.refresh.caching import CacheWrites
from streams.refresh.dirty import Cause, DirtyUsers
from streams.refresh.jobs import Job, Jobs, Made
from streams.refresh.partition import InterestPartition
from streams.refresh.rank import Ranker, Ranking
from streams.refresh.search import Search
from streams.refresh.shelf import Shelf, Shelved
from streams.refresh.strikes import Strikes
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.items import Item
from streams.wire.recommendations import default_key, topic_key

#: Users times items up to which a batch is ranked on the loop, in some 20 ms of a core: to wake a thread and to share
#: the interpreter with it costs more. At 1,000 events a second on two busy cores the median list came after 68 to 72 ms
#: with 1 to 3 million, after 145 ms with 0.2 million, in turns within one run. Beyond it events are folded meanwhile.
_ON_LOOP = 1_500_000
#: How many users the part of a batch costs that is the same for any number of them.
_FIXED_USERS = 4
#: Longest wait for what is about to be folded, many times what handing over takes: an agent that hangs delays no list.
_GATHER_S = 0.005
#: Lists from which something is struck at once: some 50 ms, much as a batch that is ranked.
_STRUCK_AT_ONCE = 512


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
    more_comes
        Whether more events are about to be folded, within milliseconds.

    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        experiments: Experiments,
        cache: ListCache,
        clock: Callable[[], float] = time.time,
        more_comes: Callable[[], bool] = lambda: False,
    ) -> None:
        self.experiments = experiments
        self._settings = settings
        self._catalogue = catalogue
        self._cache = cache
        self._more_comes = more_comes
        self.cache_writes = CacheWrites(settings, cache, clock, self._settle)
        self._ranker = Ranker(catalogue, settings, settings.spare_items)
        self.scoring = self._ranker.scoring
        self._shelf: Shelf[InterestPartition] = Shelf(
            settings.list_size, settings.spare_items, settings.max_shelved_lists
        )
        self._strikes = Strikes(self._shelf)
        self._jobs = Jobs(settings, catalogue, clock)
        self._clock = clock
        self.blocked = BlockedItems(settings, cache, self.cache_writes, catalogue.withheld)
        self.search = Search(catalogue, self._owe_for_rules, self._is_waited_for, self._room)
        self._dirty: DirtyUsers[InterestPartition] = DirtyUsers()
        self._in_flight: set[str] = set()
        self._erased_in_flight: set[str] = set()
        self._erasures: dict[str, _Erasure] = {}
        self._wake = asyncio.Event()
        self._turned = asyncio.Event()
        self._still = asyncio.Lock()
        #: What stands on the default lists.
        self._defaults: frozenset[str] = frozenset()
        self._partitions: set[InterestPartition] = set()
        self._rank_thread = ThreadPoolExecutor(1, thread_name_prefix="rank")
        self._main_surface = settings.surfaces[0]
        self._topic = full_name(settings, "recommendations")

    # What partitions tell

    def took(self, partition: InterestPartition) -> None:
        """Look through the lists of a partition for what may be listed no more: they were made elsewhere."""
        self._partitions.add(partition)
        self.search.add(partition)

    def mark(self, partition: InterestPartition, user_id: str, cause: Cause) -> None:
        """Owe a list to a user."""
        self._dirty.mark(partition, user_id, cause)
        self._wake.set()

    def forget(self, partition: InterestPartition) -> None:
        """Drop all that is owed in a partition that was given up, and its lists."""
        self._partitions.discard(partition)
        self._dirty.forget(partition)
        self._shelf.forget(partition)
        self._strikes.forget(partition)
        self.search.forget(partition)
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
        self._shelf.drop(user_id)
        if user_id in self._in_flight:
            self._erased_in_flight.add(user_id)
        surfaces = self._settings.surfaces
        self._erasures[user_id] = _Erasure(partition, version, set(surfaces))
        self.cache_writes.owe([CacheEntry.erasure(user_id, surface, version) for surface in surfaces])

    async def apply(self, records: Iterable[CatalogueRecord] = ()) -> Applied:
        """Change the catalogue, between two ranking calls; without records, let rules begin and end."""
        async with self._still:
            applied = self._catalogue.apply(records) if records else self._catalogue.pass_time()
            if applied.closed:
                self._close(applied.closed)
        return applied

    def _close(self, rows: Sequence[int]) -> None:
        """Have every list changed on which one of these items stands."""
        self._strikes.add(rows, len(self._catalogue))
        self._wake.set()
        closed = list(map(self._catalogue.item_id, rows))
        for partition in self._partitions:
            self.search.add(partition, closed)

    def _owe_for_rules(self, partition: InterestPartition, user_id: str) -> None:
        self.mark(partition, user_id, Cause("rules"))

    def _is_waited_for(self, user_id: str) -> bool:
        """Whether a user gets another list anyway."""
        return user_id in self._dirty or user_id in self._in_flight or user_id in self._strikes

    async def _room(self) -> None:
        """Wait until all that is owed fits into the next batch; what can be struck goes first."""
        while len(self._strikes) or len(self._dirty) >= self._settings.rank_batch:
            self._turned.clear()
            await self._turned.wait()

    # Ranking

    async def run(self) -> None:
        """Rank for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while len(self._dirty) or len(self._strikes):
                if len(self._strikes):
                    await self._strike_batch()
                if len(self._dirty):
                    await self._gather()
                    await self._refresh_batch()
                # A batch that was ranked on the loop has waited for nothing.
                await asyncio.sleep(0)
                metrics.DIRTY.set(len(self._dirty))
                metrics.STRIKES.set(len(self._strikes))
                self._turned.set()

    async def _gather(self) -> None:
        """Let the other runs of a fetch be folded: one batch costs much less than one for each partition."""
        end_s = time.monotonic() + _GATHER_S
        # A few turns of the loop: an event would have to be set by whoever comes last, whom nobody knows.
        while self._more_comes():
            if len(self._dirty) >= self._settings.rank_batch or time.monotonic() >= end_s:
                break
            await asyncio.sleep(0)

    async def _refresh_batch(self) -> None:
        """
        Make one batch of lists.

        1. On the loop: take the users, copy what their lists are decided from, give each list its version.
        2. Rank, compose, encode: on the loop, a large batch in the ranking thread.
        3. On the loop: produce to the partitions' transactions and note the lists in the states.
        4. Beside: write to Redis.
        """
        async with self._still:
            # Step 1.
            taken = self._dirty.take(self._settings.rank_batch)
            with self._flight(user_id for _, user_id, _ in taken) as erased:
                jobs, users = self._jobs.ranked(taken, self.experiments)
                # Step 2.
                made, ranking = await self._ranked(jobs, users)
            # Step 3. Before the catalogue changes: what may be listed no more is looked for among published lists.
            served = self._publish(made, ranking, erased, "user")
        # Step 4.
        await self.cache_writes.write(
            [self._cache_entry(one) for one in served],
            [one.job.cause.oldest_ms for one in served if one.job.cause.oldest_ms],
        )

    async def _strike_batch(self) -> None:
        """Make one batch of lists out of those on the shelf; the steps are those of `_refresh_batch`."""
        async with self._still:
            # Step 1.
            user_ids, shelved, lost = self._strikes.take(_STRUCK_AT_ONCE, self._catalogue.offer.open, self._dirty)
            for partition, user_id in lost:
                self._owe_for_rules(partition, user_id)
            with self._flight(user_ids) as erased:
                jobs, shelved = self._struck_jobs(user_ids, shelved)
                # Step 2.
                made, ranking = await asyncio.get_running_loop().run_in_executor(
                    self._rank_thread, self._strike, jobs, shelved, self._catalogue.view()
                )
            # Step 3.
            made = [one for one in made if one.job.user_id not in self._dirty]
            served = self._publish(made, ranking, erased, "struck")
            before = (shelved.places.items[:, : self._shelf.size] >= 0).sum(axis=1).tolist()
            for one in served:
                if len(one.item_ids) < before[one.at]:
                    # Nothing stands by any more.
                    self._owe_for_rules(one.job.partition, one.job.user_id)
        # Step 4.
        await self.cache_writes.write([self._cache_entry(one) for one in served])

    @contextmanager
    def _flight(self, user_ids: Iterable[str]) -> Iterator[set[str]]:
        """Say that users' lists are being made; give those who are erased meanwhile."""
        self._in_flight.update(user_ids)
        erased: set[str] = set()
        try:
            yield erased
        finally:
            self._in_flight.clear()
            erased.update(self._erased_in_flight)
            self._erased_in_flight.clear()

    def _struck_jobs(self, user_ids: Sequence[str], shelved: Shelved) -> tuple[list[Job], Shelved]:
        """Return what to make out of lists on the shelf, without those of users who are not known any more."""
        jobs: list[Job] = []
        kept: list[int] = []
        for at, (user_id, origin) in enumerate(zip(user_ids, shelved.origins, strict=True)):
            partition = self._shelf.partition(user_id)
            if partition.slab.row(user_id) is None:
                self._shelf.drop(user_id)
                continue
            kept.append(at)
            jobs.append(self._jobs.struck(partition, user_id, origin))
        return jobs, shelved.only(np.array(kept, np.int64))

    async def _ranked(self, jobs: Sequence[Job], users: Sequence[Users]) -> tuple[list[Made], Ranking | None]:
        view = self._catalogue.view()
        if (len(jobs) + _FIXED_USERS) * len(self._catalogue) <= _ON_LOOP:
            return self._make(jobs, users, view)
        return await asyncio.get_running_loop().run_in_executor(self._rank_thread, self._make, jobs, users, view)

    def _make(self, jobs: Sequence[Job], users: Sequence[Users], view: View) -> tuple[list[Made], Ranking | None]:
        started = time.monotonic()
        ranking = self._ranker.make(joined(users), view) if users else None
        made = self._jobs.composed(jobs, ranking.lists if ranking else [])
        metrics.RANK_SECONDS.observe(time.monotonic() - started)
        metrics.RANK_BATCH.observe(len(jobs))
        return made, ranking

    def _strike(self, jobs: Sequence[Job], shelved: Shelved, view: View) -> tuple[list[Made], Ranking]:
        ranking = self._ranker.strike(shelved.places, shelved.price_marks, view)
        return self._jobs.composed(jobs, ranking.lists), ranking

    def _publish(self, made: Sequence[Made], ranking: Ranking | None, erased: Collection[str], kind: str) -> list[Made]:
        """Publish lists of any partitions and put them on the shelf; return those of users who are still known."""
        by_partition: defaultdict[InterestPartition, list[Made]] = defaultdict(list)
        for one in made:
            if not (one.job.partition.closed or one.job.user_id in erased):
                by_partition[one.job.partition].append(one)
        served = [one for partition, lists in by_partition.items() for one in self._serve(partition, lists)]
        metrics.LISTS.labels(kind).inc(len(served))
        if ranking is not None and served:
            self._shelve(served, ranking)
        return served

    def _shelve(self, served: Sequence[Made], ranking: Ranking) -> None:
        chosen, jobs = [one.at for one in served], [one.job for one in served]
        self._shelf.put(
            [job.partition for job in jobs],
            [job.user_id for job in jobs],
            ranking.places.only(chosen),
            ranking.price_marks[chosen],
            [job.version for job in jobs],
            [job.origin for job in jobs],
        )

    def _serve(self, partition: InterestPartition, lists: Sequence[Made]) -> list[Made]:
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
        if partition.closed:
            # Sending is how the worker heard that it was fenced: the users are gone.
            return []
        for one, row in known:
            last = slab.last_list(row)
            job, before = one.job, dict(last.items) if last else {}
            items = tuple([(item_id, before.get(item_id, job.event_ts_ms)) for item_id in one.item_ids])
            made = (job.version, one.generated_at_ms, items, job.event_ts_ms, job.interactions)
            slab.serve(row, LastList(*made, one.price_marks, one.explored))
        return [one for one, _ in known]

    # Default lists

    async def publish_defaults(self, partition: InterestPartition) -> None:
        """Make the list of each surface for visitors without events, in a partition's transaction."""
        async with self._still:
            jobs = [self._jobs.default(partition, surface) for surface in self._settings.surfaces]
            ranked = await asyncio.get_running_loop().run_in_executor(
                self._rank_thread,
                self._ranker.default,
                self.experiments.parameters({}),
                self._catalogue.view(),
                round(self._clock() * 1000),
            )
            self._defaults = frozenset(ranked.item_ids)
            made = self._jobs.composed(jobs, [ranked] * len(jobs))
            if not partition.closed:
                partition.owner.send(
                    [
                        OutRecord(self._topic, default_key(one.job.surface), one.value, partition.partition)
                        for one in made
                    ]
                )
        if not partition.closed:
            metrics.LISTS.labels("default").inc(len(made))
            lists = {one.job.surface: (one.job.version, one.value) for one in made}
            await self.cache_writes.call(self._cache.write_defaults, lists)

    def defaults_hold(self, rows: Iterable[int]) -> bool:
        """Whether one of these items stood on the default lists when they were made last."""
        return not self._defaults.isdisjoint(map(self._catalogue.item_id, rows))

    # Redis

    def _cache_entry(self, made: Made) -> CacheEntry:
        buckets: Mapping[str, str] = {key: assigned.variant for key, assigned in made.job.experiments.items()}
        return CacheEntry(made.job.user_id, made.job.surface, made.job.version, made.value, dict(buckets))

    def _settle(self, entries: Sequence[CacheEntry]) -> None:
        """Tell the partitions whose erased users Redis holds nothing old of any more: the mark, or a newer list."""
        if not self._erasures:
            return
        for entry in entries:
            erasure = self._erasures.get(entry.user_id)
            if erasure is None or entry.version < erasure.version:
                continue
            erasure.surfaces.discard(entry.surface)
            if not erasure.surfaces:
                del self._erasures[entry.user_id]
                erasure.partition.settled(entry.user_id)

    async def write_cards(self, items: Sequence[Item]) -> None:
        """Write item cards for people who look into Redis; a failure is counted and left."""
        await self.cache_writes.call(self._cache.write_cards, items)

    async def stop(self) -> None:
        """Let writes under way end, and the threads with them."""
        await self.cache_writes.stop()
        self._rank_thread.shutdown(wait=False, cancel_futures=True)
