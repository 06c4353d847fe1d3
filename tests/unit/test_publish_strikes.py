"""The publisher and items that may be listed no more: what stands by takes their place, everywhere and at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import count

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.catalogue.records import CatalogueRecord, ItemGone, ItemTold, RuleGone, RuleTold
from streams.experiments.assignment import Experiments
from streams.kafka.transport import Record
from streams.refresh.cache import CacheEntry, CacheResult
from streams.refresh.publish import Publisher
from streams.settings import Settings
from streams.wire.items import Item
from streams.wire.recommendations import Recommendation
from streams.wire.rules import Block, Rule
from tests.support.partitions import LoggedPartition
from tests.unit.test_erasures import NOW_MS, request

SETTINGS = Settings(list_size=5, spare_items=3)
ITEMS = 40
USERS = 6


class Cache:
    """Stands for Redis: keeps the newest of what it is given."""

    def __init__(self) -> None:
        self.lists: dict[str, tuple[int, bytes]] = {}
        self.order: list[str] = []
        self.defaults: list[dict[str, tuple[int, bytes]]] = []

    def write(self, entries: Sequence[CacheEntry]) -> CacheResult:
        """Keep entries that are newer."""
        for entry in entries:
            self.order.append(entry.user_id)
            if self.lists.get(entry.user_id, (0, b""))[0] < entry.version:
                self.lists[entry.user_id] = entry.version, entry.value
        return CacheResult(len(entries), 0, 0)

    def write_defaults(self, lists: dict[str, tuple[int, bytes]]) -> CacheResult:
        """Keep default lists."""
        self.defaults.append(lists)
        return CacheResult(len(lists), 0, 0)


class Bench:
    """One partition and its publisher; both can die and be made again from what was committed."""

    def __init__(self, asked: Settings = SETTINGS) -> None:
        self.runner = asyncio.Runner()
        self.settings = asked
        self.partition = LoggedPartition(asked, NOW_MS)
        self.catalogue = self.partition.catalogue
        self.cache = Cache()
        self._numbers = count()
        #: What was done since the last commit: a heir is given it again.
        self._done: list[tuple[str, Record]] = []
        random = np.random.default_rng(1)
        for number in range(ITEMS):
            vector = random.standard_normal(2).astype(np.float32)
            self.catalogue.upsert_item(Item(f"i{number}"))
            self.catalogue.set_vector(f"i{number}", vector / np.float32(np.linalg.norm(vector)))
        self.catalogue.pass_time()
        self.begin()

    def begin(self) -> None:
        """Give the partition a publisher that knows nothing yet."""

        async def made() -> Publisher:
            return Publisher(
                self.settings, self.catalogue, Experiments([]), self.cache, lambda: NOW_MS / 1000  # type: ignore[arg-type]  # a double
            )  # fmt: skip

        self.publisher = self.runner.run(made())
        self.partition.work._refresh = self.publisher
        self.partition.work.caught_up()

    def die(self) -> None:
        """Lose what was not committed and all that was only in memory, and begin again."""
        self.runner.run(self.publisher.stop())
        self.partition.take()
        self.begin()
        self.partition.fold(*self._done)

    def commit(self) -> None:
        """Commit all that was done and made."""
        self._done.clear()
        self.partition.commit()

    def act(self, user: int, item: int, topic: str = "clicks") -> None:
        """Let a user do something."""
        number = next(self._numbers)
        event = {"event_id": f"e{number}", "user_id": f"u{user}", "item_id": f"i{item}", "ts": NOW_MS + number}
        self._done.append((topic, Record(number, NOW_MS + number, f"u{user}".encode(), msgspec.json.encode(event))))
        self.partition.fold(self._done[-1])

    def tell(self, *records: CatalogueRecord) -> None:
        """Let the catalogue change."""
        self.runner.run(self.publisher.apply(records))

    def block(self, item_id: str) -> None:
        """Let a rule block an item."""
        self.tell(RuleTold(Rule(item_id, block=Block("recall"))))

    def settle(self) -> None:
        """Let the publisher work until nothing is left to do."""

        async def work() -> None:
            publisher = self.publisher
            tasks = [asyncio.create_task(publisher.run()), asyncio.create_task(publisher.search.run())]
            for _ in range(100_000):
                waits = len(publisher._dirty) + len(publisher._strikes) + len(publisher._in_flight)
                if not (waits or publisher.search.active):
                    break
                await asyncio.sleep(0.001)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*publisher.cache_writes._tasks)

        self.runner.run(asyncio.wait_for(work(), 30))

    def list_of(self, user_id: str) -> Recommendation:
        """Return a user's newest list."""
        return msgspec.json.decode(self.cache.lists[user_id][1], type=Recommendation)

    def ids(self, user_id: str) -> list[str]:
        """Return the items of a user's newest list."""
        return [item.item_id for item in self.list_of(user_id).items]

    def close(self) -> None:
        """Let the threads end."""
        self.runner.run(self.publisher.stop())
        self.runner.close()


@pytest.fixture
def benches() -> Iterator[Callable[..., Bench]]:
    """Makes benches that end with the test."""
    made: list[Bench] = []

    def make(asked: Settings = SETTINGS) -> Bench:
        made.append(Bench(asked))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def test_a_blocked_item_leaves_and_a_spare_takes_its_place(benches: Callable[..., Bench]) -> None:
    """All others stay where they are, and the list says of what it was made as before, but for the rules."""
    bench = benches()
    bench.act(0, 3)
    bench.settle()
    first = bench.list_of("u0")
    bench.block(first.items[1].item_id)
    bench.settle()
    second = bench.list_of("u0")

    assert first.version < second.version
    assert ("rules", 0) == (second.trigger.kind, second.ingested_at)
    assert [1, 2, 3, 4, 5] == [item.rank for item in second.items]
    assert first.items[:1] + first.items[2:] == second.items[:1] + second.items[2:]
    assert second.items[1].item_id not in {item.item_id for item in first.items}
    assert first.as_of.rules < second.as_of.rules
    unchanged = ("event_ts", "events_applied", "model", "experiments", "surface")
    assert [getattr(first, name) for name in unchanged] == [getattr(second, name) for name in unchanged]
    assert msgspec.structs.replace(first.as_of, rules=0) == msgspec.structs.replace(second.as_of, rules=0)


def test_who_was_active_last_comes_first(benches: Callable[..., Bench]) -> None:
    """Lists are struck in the order of their users' newest events, newest first."""
    bench = benches()
    for user in (2, 0, 3, 1):
        bench.act(user, 3)
    bench.settle()
    shared = set.intersection(*[set(bench.ids(f"u{user}")) for user in range(4)])
    bench.cache.order.clear()
    bench.block(min(shared))
    bench.settle()

    assert ["u1", "u3", "u0", "u2"] == bench.cache.order


def test_a_list_without_spares_is_ranked_again(benches: Callable[..., Bench]) -> None:
    """Where nothing stands by any more the list is short for a moment, then full."""
    bench = benches()
    bench.act(0, 3)
    bench.settle()
    for _ in range(3):
        for item_id in bench.ids("u0")[:3]:
            bench.block(item_id)
        bench.settle()

    assert 5 == len(set(bench.ids("u0")))
    assert not set(bench.ids("u0")) & set(bench.catalogue.withheld())


def test_a_purchase_is_not_promoted(benches: Callable[..., Bench]) -> None:
    """Who buys what stands by, and is owed a list, gets that list alone: a struck one would not know of it."""
    bench = benches()
    bench.act(0, 3)
    bench.settle()
    shelved = bench.publisher._shelf.get(["u0"])
    spare = shelved.places.items[0, SETTINGS.list_size]
    first = bench.ids("u0")
    bench.cache.order.clear()
    bench.act(0, int(bench.catalogue.item_id(spare)[1:]), "purchases")
    bench.block(first[0])
    bench.settle()

    assert ["u0"] == bench.cache.order
    assert not {bench.catalogue.item_id(spare), first[0]} & set(bench.ids("u0"))
    assert "event" == bench.list_of("u0").trigger.kind


def test_an_erased_user_gets_nothing(benches: Callable[..., Bench]) -> None:
    """A list that waits for its strike goes with its user."""
    bench = benches()
    bench.act(0, 3)
    bench.act(1, 3)
    bench.settle()
    shared = set(bench.ids("u0")) & set(bench.ids("u1"))
    bench.block(min(shared))
    bench.partition.fold(request(1, NOW_MS + 5_000, "u0"))
    bench.cache.order.clear()
    bench.settle()

    assert ["u1"] == bench.cache.order


def test_lists_that_left_the_shelf_are_found(benches: Callable[..., Bench]) -> None:
    """A shelf of three, six users: those who are not on it are ranked again, and none holds what is blocked."""
    bench = benches(SETTINGS.model_copy(update={"max_shelved_lists": 3}))
    for user in range(USERS):
        bench.act(user, 3)
        bench.settle()
    shared = min(set.intersection(*[set(bench.ids(f"u{user}")) for user in range(USERS)]))
    assert 3 == len(bench.publisher._shelf)
    bench.cache.order.clear()
    bench.block(shared)
    bench.settle()

    assert ["u5", "u4", "u3", "u2", "u1", "u0"] == bench.cache.order
    assert not [user for user in range(USERS) if shared in bench.ids(f"u{user}")]


def test_what_was_not_struck_when_the_worker_died(benches: Callable[..., Bench]) -> None:
    """The next owner finds every list that holds a closed item, whoever had begun with it."""
    bench = benches()
    for user in range(USERS):
        bench.act(user, 3)
    bench.settle()
    bench.commit()
    shared = min(set.intersection(*[set(bench.ids(f"u{user}")) for user in range(USERS)]))
    others = {user: [item_id for item_id in bench.ids(f"u{user}") if item_id != shared] for user in range(USERS)}
    bench.block(shared)
    bench.die()
    bench.settle()

    for user in range(USERS):
        assert "rules" == bench.list_of(f"u{user}").trigger.kind
        assert others[user] == [item_id for item_id in bench.ids(f"u{user}") if item_id in others[user]]
        assert shared not in bench.ids(f"u{user}")
        assert 5 == len(bench.ids(f"u{user}"))


def test_an_item_that_nobody_tells_of_any_more(benches: Callable[..., Bench]) -> None:
    """A deleted item whose tombstone was compacted away is unknown to the next owner, and leaves lists all the same."""
    bench = benches()
    bench.act(0, 3)
    bench.settle()
    bench.commit()
    before = bench.ids("u0")
    catalogue = type(bench.catalogue)(dim=2)
    for number in range(ITEMS):
        if f"i{number}" != before[2]:
            catalogue.upsert_item(Item(f"i{number}"))
    bench.catalogue = bench.partition.catalogue = catalogue
    bench.die()
    bench.settle()

    assert before[2] not in bench.ids("u0")
    assert 5 == len(bench.ids("u0"))


def test_lists_for_visitors(benches: Callable[..., Bench]) -> None:
    """The publisher knows what stands on the default lists, and makes them without what is closed."""
    bench = benches()
    bench.runner.run(bench.publisher.publish_defaults(bench.partition.work))
    rows = bench.catalogue.find([f"i{number}" for number in range(ITEMS)]).tolist()
    (item_id, *_) = [bench.catalogue.item_id(row) for row in rows if bench.publisher.defaults_hold([row])]
    held = [row for row in rows if bench.publisher.defaults_hold([row])]
    bench.block(item_id)
    bench.runner.run(bench.publisher.publish_defaults(bench.partition.work))
    ((_, value),) = bench.cache.defaults[-1].values()

    assert 5 == len(held)
    assert item_id not in {item.item_id for item in msgspec.json.decode(value, type=Recommendation).items}


ITEM, USER = st.integers(0, ITEMS - 1), st.integers(0, USERS - 1)
OPS = st.one_of(
    st.tuples(st.sampled_from(["clicks", "clicks", "purchases", "dislikes"]), USER, ITEM),
    st.tuples(st.sampled_from(["block", "sell out", "delete", "block one of a list"]), USER, ITEM),
    st.tuples(st.sampled_from(["release", "settle", "commit", "die"]), USER, ITEM),
)


def play(bench: Bench, name: str, user: int, item: int) -> None:
    """Let one thing happen."""
    item_id = f"i{item}"
    if name == "block one of a list" and f"u{user}" in bench.cache.lists:
        listed = bench.ids(f"u{user}")
        item_id = listed[item % len(listed)] if listed else item_id
    match name:
        case "block" | "block one of a list":
            bench.block(item_id)
        case "sell out":
            bench.tell(ItemTold(Item(item_id, in_stock=False), "items"))
        case "delete":
            bench.tell(ItemGone(item_id, "items"))
        case "release":
            # A list in Redis whose transaction was lost, and that nothing asks for again, is nobody's: commit first.
            bench.settle()
            bench.commit()
            bench.tell(RuleGone(item_id), ItemTold(Item(item_id), "items"))
        case "settle":
            bench.settle()
        case "commit":
            bench.commit()
        case "die":
            bench.die()
        case _:
            bench.act(user, item, name)


@settings(max_examples=60, deadline=None)
@given(st.lists(OPS, min_size=1, max_size=30), st.sampled_from([2, 100]))
def test_whatever_happens_lists_are_right(ops: list[tuple[str, int, int]], most: int) -> None:
    """
    At rest no list holds a closed item, an item twice, or one the user bought or dislikes; none is short without need.

    And what is noted in the states is what Redis holds.
    """
    bench = Bench(SETTINGS.model_copy(update={"max_shelved_lists": most}))
    try:
        for user in range(USERS):
            bench.act(user, 3 * user)
        bench.settle()
        bench.commit()
        for name, user, item in ops:
            play(bench, name, user, item)
        bench.settle()
        is_open = {
            f"i{number}" for number in range(ITEMS) if bench.catalogue.offer.open[bench.catalogue.row(f"i{number}")]
        }
        for user_id in bench.cache.lists:
            state, items = bench.partition.work.slab.get(user_id), bench.ids(user_id)
            assert state is not None
            assert state.last_list is not None
            assert items == [item_id for item_id, _ in state.last_list.items]
            free = is_open - set(state.excluded)
            assert set(items) <= free
            assert min(SETTINGS.list_size, len(free)) == len(set(items)) == len(items)
    finally:
        bench.close()
