"""The publisher and steady lists: what it notes of a list is what the next one is held to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from models.ranking import RankingParameters
from streams.experiments.assignment import Experiments
from streams.interests.state import LastList
from streams.refresh.cache import CacheEntry, CacheResult
from streams.refresh.dirty import Cause
from streams.refresh.publish import Publisher
from streams.settings import Settings
from streams.wire.items import Item
from streams.wire.signals import ItemSignals
from tests.support.partitions import LoggedPartition
from tests.unit.test_erasures import NOW_MS, click

SETTINGS = Settings()
ITEMS = 100
CAUSE = Cause("event", "clicks", 1, "e1", NOW_MS, NOW_MS)


class Cache:
    """Stands for Redis, which takes everything."""

    def write(self, entries: Sequence[CacheEntry]) -> CacheResult:
        """Take entries."""
        return CacheResult(len(entries), 0, 0)


class Bench:
    """A publisher of steady lists over one partition."""

    def __init__(self, steadiness: float) -> None:
        self.runner = asyncio.Runner()
        self.partition = LoggedPartition(SETTINGS, NOW_MS)
        self.catalogue = self.partition.catalogue
        random = np.random.default_rng(1)
        for number in range(ITEMS):
            vector = random.standard_normal(2).astype(np.float32)
            self.catalogue.upsert_item(Item(f"i{number}", price=float(number + 1)))
            self.catalogue.set_vector(f"i{number}", vector / np.float32(np.linalg.norm(vector)))
        steady = Experiments([], RankingParameters(steadiness=steadiness))
        self.publisher = Publisher(SETTINGS, self.catalogue, steady, Cache(), lambda: NOW_MS / 1000)  # type: ignore[arg-type]  # a double
        self.partition.work._refresh = self.publisher

    def refreshed(self, cause: Cause | None = None) -> LastList:
        """Make the list that is owed, or one for a cause, and return what is noted of it."""
        if cause is not None:
            self.publisher.mark(self.partition.work, "u", cause)
        self.runner.run(self.publisher._refresh_batch())
        state = self.partition.work.slab.get("u")
        assert state is not None
        assert state.last_list is not None
        return state.last_list


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A bench of its own, of the steadiness that the test asks for."""
    made = Bench(getattr(request, "param", 0.5))
    yield made
    made.runner.run(made.publisher.stop())
    made.runner.close()


def ids(made: LastList) -> list[str]:
    """Return the items of a list."""
    return [item_id for item_id, _ in made.items]


def test_what_is_noted_of_a_list(bench: Bench) -> None:
    """The newest event, how many interactions there were, a price mark for each item, and since when it is there."""
    bench.partition.fold(click(1, NOW_MS - 60_000))
    first = bench.refreshed()
    assert (NOW_MS - 60_000, 1, 20) == (first.newest_ms, first.events, len(set(first.price_marks)))
    assert {NOW_MS - 60_000} == {since_ms for _, since_ms in first.items}

    bench.partition.fold(click(2, NOW_MS))
    second = bench.refreshed()
    assert (NOW_MS, 2) == (second.newest_ms, second.events)
    assert dict(second.items) == {
        item_id: NOW_MS - 60_000 if item_id in ids(first) else NOW_MS for item_id in ids(second)
    }
    assert 0 < len(set(ids(second)) - set(ids(first))) <= 6


@pytest.mark.parametrize("bench", [0.0, 0.5], indirect=True)
def test_only_events_and_late_vectors_move_a_list(bench: Bench) -> None:
    """A refresh without either brings the same list; a vector that came late may change it."""
    bench.partition.fold(click(1, NOW_MS))
    first = bench.refreshed()
    for number in range(ITEMS):
        bench.catalogue.set_signals([ItemSignals(f"i{number}", float(ITEMS - number) ** 3, NOW_MS, 0.0, 1)])
    assert ids(first) == ids(bench.refreshed(Cause("restore")))
    bench.partition.commit()
    bench.partition.take()
    assert ids(first) == ids(bench.refreshed(Cause("restore")))
    assert ids(first) != ids(bench.refreshed(Cause("catalogue")))
