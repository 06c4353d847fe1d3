"""The publisher and what is still arriving: users of one fetch are ranked in one batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from streams.experiments.assignment import Experiments
from streams.refresh import publish
from streams.refresh.cache import CacheEntry, CacheResult
from streams.refresh.dirty import Cause
from streams.refresh.publish import Publisher
from streams.settings import Settings
from tests.support.partitions import LoggedPartition
from tests.support.stranger import until
from tests.unit.test_erasures import NOW_MS

SETTINGS = Settings()
CAUSE = Cause("event", "clicks", 1, "e1", NOW_MS, NOW_MS)


class Cache:
    """Stands for Redis, which takes everything."""

    def write(self, entries: Sequence[CacheEntry]) -> CacheResult:
        """Take entries."""
        return CacheResult(len(entries), 0, 0)


async def batches(more_comes: Callable[[Publisher, LoggedPartition], bool], users: int) -> list[int]:
    """Return the sizes of the batches that are taken until so many users were; one is owed a list at the start."""
    partition = LoggedPartition(SETTINGS, NOW_MS)
    made = Publisher(
        SETTINGS, partition.catalogue, Experiments([]), Cache(), lambda: NOW_MS / 1000,  # type: ignore[arg-type]  # a double
        more_comes=lambda: more_comes(made, partition),
    )  # fmt: skip
    taken: list[int] = []
    take = made._dirty.take

    def counted(most: int) -> list[tuple[object, str, Cause]]:
        owed = take(most)
        taken.append(len(owed))
        return list(owed)

    made._dirty.take = counted  # type: ignore[method-assign, assignment]  # watched
    made.mark(partition.work, "u0", CAUSE)
    running = asyncio.ensure_future(made.run())
    await until(lambda: sum(taken) >= users, "all users")
    running.cancel()
    await made.stop()
    return taken


def test_users_of_one_fetch_are_one_batch() -> None:
    """While more that was fetched is about to be folded no batch begins."""
    left = [1, 2, 3]

    def fold_one(made: Publisher, partition: LoggedPartition) -> bool:
        if left:
            made.mark(partition.work, f"u{left.pop()}", CAUSE)
            return True
        return False

    assert [4] == asyncio.run(batches(fold_one, 4))


def test_a_full_batch_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fills a batch is ranked whatever else arrives."""
    monkeypatch.setattr(publish, "_GATHER_S", 60.0)
    number = 0

    def fold_one(made: Publisher, partition: LoggedPartition) -> bool:
        nonlocal number
        if number <= SETTINGS.rank_batch:
            number += 1
            made.mark(partition.work, f"u{number}", CAUSE)
        return True

    assert SETTINGS.rank_batch == asyncio.run(batches(fold_one, SETTINGS.rank_batch))[0]


def test_an_agent_that_hangs_delays_no_list() -> None:
    """What arrives for ever is waited for but for moments."""
    assert [1] == asyncio.run(batches(lambda _made, _partition: True, 1))
