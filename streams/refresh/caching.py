"""Writing to Redis beside everything else: never waited for, tried again where Redis refused, newest version only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import structlog

from streams import metrics
from streams.refresh.cache import CacheEntry, ListCache
from streams.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

_LOG = structlog.get_logger(__name__)

#: Redis is tried again for refused lists this often; the cache's own breaker keeps a dead Redis from costing time.
_RETRY_S = 0.5
#: Lists kept for a Redis that is away. Above, the oldest is given up: the user's next list, or a replay of
#: `recommendations`, brings the key back.
_MAX_OWED = 50_000
#: Batches of Redis writes under way beside ranking.
_CACHE_WRITES = 2


class CacheWrites:
    """
    Writes lists in threads; used from the loop.

    Parameters
    ----------
    clock
        Seconds since the epoch, for freshness.
    on_written
        Called with entries that Redis has, or has newer ones of.

    """

    def __init__(
        self,
        settings: Settings,
        cache: ListCache,
        clock: Callable[[], float],
        on_written: Callable[[Sequence[CacheEntry]], None],
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._clock = clock
        self._on_written = on_written
        self._threads = ThreadPoolExecutor(_CACHE_WRITES, thread_name_prefix="cache")
        self._slots = asyncio.Semaphore(_CACHE_WRITES)
        self._tasks: set[asyncio.Task[None]] = set()
        self._owed: dict[tuple[str, str], CacheEntry] = {}

    async def write(self, entries: Sequence[CacheEntry], oldest_ms: Sequence[int] = ()) -> None:
        """
        Start a write; wait only while the allowed number of them is under way.

        Parameters
        ----------
        oldest_ms
            Record timestamps of the oldest events not yet on a list: how fresh the lists are.

        """
        if not entries:
            return
        await self._slots.acquire()
        task = asyncio.get_running_loop().create_task(self._write(entries, oldest_ms))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def owe(self, entries: Sequence[CacheEntry]) -> None:
        """Keep entries to be written at the next try."""
        for entry in entries:
            key = (entry.user_id, entry.surface)
            known = self._owed.pop(key, None)
            self._owed[key] = entry if known is None or entry.version > known.version else known
        while len(self._owed) > _MAX_OWED:
            self._owed.pop(next(iter(self._owed)))
        metrics.CACHE_OWED.set(len(self._owed))

    async def retry(self) -> None:
        """Offer refused lists to Redis again, for ever."""
        while True:
            await asyncio.sleep(_RETRY_S)
            if self._owed:
                batch = list(self._owed.items())[: self._settings.rank_batch]
                for key, _ in batch:
                    del self._owed[key]
                await self.write([entry for _, entry in batch])
            metrics.CACHE_OWED.set(len(self._owed))

    async def call(self, write: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Have a thread call something of the cache."""
        assert not kwargs
        return await asyncio.get_running_loop().run_in_executor(self._threads, write, *args)

    async def stop(self) -> None:
        """Let writes under way end, and the threads with them."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.redis_timeout_s * 4)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("cache_write_failed", error=str(error))

    async def _write(self, entries: Sequence[CacheEntry], oldest_ms: Sequence[int]) -> None:
        result = await self.call(self._cache.write, entries)
        if result.failed:
            self.owe(entries)
            return
        self._on_written(entries)
        now_ms = self._clock() * 1000
        for oldest in oldest_ms:
            metrics.FRESHNESS.observe(max(0.0, now_ms - oldest) / 1000)
