"""The publisher and users who are erased: a list under way is not published, and Redis is told until it has heard."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from streams.catalogue.matrix import Catalogue
from streams.catalogue.view import View
from streams.experiments.assignment import Experiments
from streams.refresh import publish
from streams.refresh.cache import CacheEntry, CacheResult
from streams.refresh.dirty import Cause
from streams.refresh.publish import Publisher
from streams.settings import Settings
from tests.support.partitions import LoggedPartition
from tests.unit.test_erasures import NOW_MS, click, request

SETTINGS = Settings()
CAUSE = Cause("event", "clicks", 1, "e1", NOW_MS, NOW_MS)


class Cache:
    """Stands for Redis: keeps what it is given, or is away."""

    def __init__(self) -> None:
        self.away = False
        self.written: list[CacheEntry] = []

    def write(self, entries: Sequence[CacheEntry]) -> CacheResult:
        """Keep entries."""
        if self.away:
            return CacheResult(0, 0, len(entries))
        self.written.extend(entries)
        return CacheResult(len(entries), 0, 0)


class Bench:
    """A publisher over one partition, whose ranking can be held."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.ranking, self.go_on = threading.Event(), threading.Event()
        catalogue = Catalogue(dim=2)
        self.publisher = Publisher(SETTINGS, catalogue, Experiments([]), self.cache, lambda: NOW_MS / 1000)  # type: ignore[arg-type]  # a double
        self.partition = LoggedPartition(SETTINGS, NOW_MS)
        self.partition.work._refresh = self.publisher
        make = self.publisher._make

        def held(jobs: Any, users: Any, view: View) -> Any:
            self.ranking.set()
            assert self.go_on.wait(10)
            return make(jobs, users, view)

        self.publisher._make = held  # type: ignore[method-assign]  # the same signature

    def lists(self) -> list[bytes | None]:
        """Return what was sent to `recommendations`."""
        return [record.value for record in self.partition.owner.sent if record.topic == "recommendations"]

    async def written(self, count: int) -> None:
        """Wait until the cache has got so many entries."""
        for _ in range(500):
            if len(self.cache.written) >= count:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{len(self.cache.written)} entries written, not {count}")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench of its own; its few users are ranked in a thread, as many are."""
    monkeypatch.setattr(publish, "_ON_LOOP", -1)
    return Bench()


def test_a_list_that_is_being_ranked_is_not_published(bench: Bench) -> None:
    """An erasure that comes while the list is made stops it on its way to the topic and to Redis; the next one goes."""

    async def scene() -> None:
        bench.partition.fold(click(1, NOW_MS), click(2, NOW_MS, "other"))
        batch = asyncio.create_task(bench.publisher._refresh_batch())
        await asyncio.to_thread(bench.ranking.wait, 10)
        # The new user has a row again when ranking ends: being known is not enough.
        bench.partition.fold(request(1, NOW_MS + 5), click(3, NOW_MS + 6))
        bench.go_on.set()
        await batch
        await bench.written(1)
        tombstone, other = bench.lists()

        assert tombstone is None
        assert b'"other"' in (other or b"")
        assert ["other"] == [entry.user_id for entry in bench.cache.written]

        await bench.publisher._refresh_batch()

        assert b'"events_applied":{"clicks":1}' in (bench.lists()[-1] or b"")
        await bench.publisher.stop()

    asyncio.run(scene())


def test_a_list_that_waits_is_dropped(bench: Bench) -> None:
    """An erased user without later events is owed nothing."""
    bench.partition.fold(click(1, NOW_MS))
    bench.partition.fold(request(1, NOW_MS + 5))

    assert 0 == len(bench.publisher._dirty)
    assert [True] == bench.publisher.owes(["u"])


def test_redis_is_told_until_it_has_heard(bench: Bench) -> None:
    """While Redis is away the mark says so in the state; once it answers, the mark is written again without."""

    async def scene() -> None:
        bench.cache.away = True
        bench.partition.fold(click(1, NOW_MS), request(1, NOW_MS + 5))
        bench.partition.commit()
        retrying = asyncio.create_task(bench.publisher.cache_writes.retry())
        await asyncio.sleep(0.8)

        assert [] == bench.cache.written
        assert [True] == bench.publisher.owes(["u"])

        bench.cache.away = False
        await bench.written(1)
        await asyncio.sleep(0.05)
        retrying.cancel()
        (entry,) = bench.cache.written
        bench.partition.commit()

        assert entry.is_erasure
        assert [False] == bench.publisher.owes(["u"])
        assert [] == bench.partition.work.slab.marks_owed()
        bench.partition.take()
        assert {} == bench.partition.owed.erased
        assert {"u": NOW_MS + 5} == bench.partition.work.slab.erased
        await bench.publisher.stop()

    asyncio.run(scene())


def test_an_older_list_does_not_settle_an_erasure(bench: Bench) -> None:
    """A write that began before the erasure and ends after it says nothing about it; a newer list does."""
    bench.partition.fold(click(1, NOW_MS), request(1, NOW_MS + 5))
    version = bench.publisher._erasures["u"].version
    bench.publisher._settle([CacheEntry("u", "home", version - 1, b"{}", {})])
    owed = bench.publisher.owes(["u"])
    bench.publisher._settle([CacheEntry("u", "home", version + 1, b"{}", {})])

    assert [True] == owed
    assert [False] == bench.publisher.owes(["u"])


def test_a_partition_given_up_takes_its_erasures_along(bench: Bench) -> None:
    """The next owner tells Redis; this one keeps nothing of the user."""
    bench.partition.fold(request(1, NOW_MS + 5))
    bench.publisher.mark(bench.partition.work, "u", CAUSE)
    bench.publisher.forget(bench.partition.work)

    assert [False] == bench.publisher.owes(["u"])
