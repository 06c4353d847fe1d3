"""Telling front ends what must not be shown: one hash in Redis, written by whoever owns one certain partition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from streams.refresh.cache import CacheResult, ListCache
from streams.refresh.caching import CacheWrites
from streams.refresh.partition import InterestPartition
from streams.settings import Settings

#: How often is tried again what Redis refused, and looked whether this worker has the partition by now.
_RETRY_S: Final = 0.5


class BlockedItems:
    """
    Writes what is withheld as it changes, and all of it when the partition is taken and once in a while.

    Used from the loop; the writes go one after the other, each under a greater version than the one before, so that an
    owner who was fenced takes nothing back.

    Parameters
    ----------
    withheld
        Tells why each item that is withheld is.

    """

    def __init__(
        self, settings: Settings, cache: ListCache, writes: CacheWrites, withheld: Callable[[], Mapping[str, str]]
    ) -> None:
        self._interval_s = settings.default_list_interval_s
        self._cache = cache
        self._writes = writes
        self._withheld = withheld
        self._changes: dict[str, str] = {}
        self._owner: object = None
        self._whole_at_s = 0.0
        self._wake = asyncio.Event()

    def tell(self, withheld: Mapping[str, str], released: list[str]) -> None:
        """Take in what is withheld now, and why, and what is no more."""
        self._changes |= dict.fromkeys(released, "") | dict(withheld)
        if self._changes:
            self._wake.set()

    async def run(self, find_partition: Callable[[], InterestPartition | None]) -> None:
        """Write for ever, while this worker has the partition."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _RETRY_S)
            self._wake.clear()
            await self.write(find_partition())

    async def write(self, partition: InterestPartition | None) -> None:
        """Write what is due: all of it to a new owner's Redis, and after a failure or an interval; else the changes."""
        changes, self._changes = self._changes, {}
        if partition is None:
            self._owner = None
            return
        now_s = asyncio.get_running_loop().time()
        if partition.owner is not self._owner or now_s >= self._whole_at_s:
            result: CacheResult = await self._writes.call(
                self._cache.write_all_blocked, self._withheld(), partition.next_version()
            )
            self._owner, self._whole_at_s = partition.owner, now_s + self._interval_s
        elif changes:
            result = await self._writes.call(self._cache.write_blocked, changes, partition.next_version())
        else:
            return
        if result.failed:
            self._owner = None
