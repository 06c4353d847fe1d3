"""
Any schedule of deliveries, copies, crashes, rebalances, zombies and failed commits leaves what plain loops say.

Three workers fight for one partition in a simulation: which of them acts, which waits in the middle of taking or
committing, which dies and which is fenced is drawn by hypothesis, which also shrinks a schedule that fails.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import ClassVar
from unittest.mock import patch

import orjson
import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from streams.kafka.work import CONTROL_KEY
from streams.wire.dead_letters import DeadLetter
from streams.wire.signals import decode_item_events
from tests.support.kafka_model import FATES, Entry, Fate, ModelKafka
from tests.support.oracle import Oracle
from tests.support.simulation import (
    READ_AT,
    READ_NAME,
    SETTINGS,
    TOPICS,
    TRANSACTIONAL_ID,
    Shop,
    SimulatedWorker,
    restored_from,
)
from tests.support.states import decoded, plain

_WORKERS = 3


class Judge:
    """Follows the logs as read-committed readers do and holds every commit against the oracle."""

    def __init__(self, kafka: ModelKafka, shop: Shop) -> None:
        self.versions: dict[bytes, int] = {}
        self.seen: dict[bytes, dict[str, int]] = {}
        self.oracle = Oracle()
        self._kafka = kafka
        self._shop = shop
        self._read = Counter[str]()
        self._states: dict[str, bytes] = {}
        self._changed: set[str] = set()
        self._epoch = 0
        self._dead: list[tuple[str, int]] = []
        self._bad: list[tuple[str, int]] = []
        self._told = 0
        self._offsets = dict.fromkeys(TOPICS, 0)

    def look(self) -> None:
        """Read what has become visible and check it."""
        for topic in ("user-state", "recommendations", "dead-letters", "item-events"):
            end = self._kafka.stable_end(topic)
            for entry in self._kafka.read(topic, self._read[topic]):
                self._take(topic, entry)
            self._read[topic] = end
        if self._offsets != {**self._offsets, **self._kafka.committed}:
            self._committed()

    def _take(self, topic: str, entry: Entry) -> None:
        key, value = entry.key(), entry.value()
        assert value is not None
        if topic == "user-state":
            assert key is not None
            if key == CONTROL_KEY:
                epoch = orjson.loads(value)["epoch"]
                assert epoch > self._epoch, "an epoch was used twice"
                self._epoch = epoch
            else:
                self._states[key.decode()] = value
                self._changed.add(key.decode())
        elif topic == "recommendations":
            assert key is not None
            found = orjson.loads(value)
            assert found["version"] > self.versions.get(key, -1), "a list was seen twice or fell back"
            self.versions[key] = found["version"]
            self.seen[key] = found["seen"]
        elif topic == "dead-letters":
            letter = DeadLetter.from_record(list(entry.headers), value)
            self._dead.append((letter.topic, letter.offset))
        else:
            self._told += len(decode_item_events(value).item)

    def _committed(self) -> None:
        """Hold what a commit made visible against plain loops over everything below its offsets."""
        for topic, before in self._offsets.items():
            now = self._kafka.committed.get(topic, before)
            assert before <= now <= len(self._shop.sent[topic]), "an offset went back, or ran ahead of its log"
            for offset in range(before, now):
                event = self._shop.sent[topic][offset]
                if event is None:
                    self._bad.append((topic, offset))
                    continue
                self.oracle.add(topic, event)
                self._changed.add(event["user_id"])
            self._offsets[topic] = now
        for user_id in self._changed:
            assert plain(SETTINGS, self.oracle, user_id) == decoded(self._states[user_id])
        self._changed.clear()
        told = sum(sum(self.oracle.events_applied(user_id).values()) for user_id in self.oracle.users())

        assert sorted(self._bad) == sorted(self._dead)
        assert told == self._told


def has_owner(worker: SimulatedWorker) -> bool:
    """Whether it believes that it owns the partition."""
    return worker.owner is not None


def is_live(worker: SimulatedWorker) -> bool:
    """Whether it may publish."""
    return worker.owner is not None and worker.owner.state == "live"


def is_busy(worker: SimulatedWorker) -> bool:
    """Whether something waits in its threads."""
    return worker.busy


def is_free(worker: SimulatedWorker) -> bool:
    """Whether it can be given the partition."""
    return worker.owner is None and not worker.busy


def nothing() -> None:
    """Let a call go by."""


def run_all(worker: SimulatedWorker) -> None:
    """Let everything that waits in its threads happen."""
    while worker.busy:
        worker.step()


class Schedule(RuleBasedStateMachine):
    """Everything that may happen to workers of one partition."""

    loop: ClassVar[asyncio.AbstractEventLoop]
    workers: tuple[SimulatedWorker, ...] = ()

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        """Open the shop; the first worker has the partition."""
        self.kafka = ModelKafka()
        self.shop = Shop(self.kafka, seed)
        self.judge = Judge(self.kafka, self.shop)
        self.workers = tuple(self.new_worker() for _ in range(_WORKERS))
        self.patch = patch.object(READ_AT, READ_NAME, restored_from(self.kafka))
        self.patch.start()
        self.shop.produce(30)
        self.workers[0].take()
        run_all(self.workers[0])

    def new_worker(self) -> SimulatedWorker:
        """A process that owns nothing yet."""
        return SimulatedWorker(self.kafka, self.loop, lambda: self.shop.now_ms)

    def one(self, data: st.DataObject, which: Callable[[SimulatedWorker], bool]) -> SimulatedWorker:
        """Draw one of the workers that can do it."""
        return data.draw(st.sampled_from([worker for worker in self.workers if which(worker)]))

    @rule(count=st.integers(1, 60), repeated=st.integers(0, 6))
    def produce(self, count: int, repeated: int) -> None:
        """Events come in, out of order within lateness; a producer sends again what it has sent before."""
        self.shop.produce(count)
        self.shop.repeat(repeated)

    @precondition(lambda self: any(is_free(worker) for worker in self.workers))
    @rule(data=st.data(), steps=st.integers(0, 5), calls=st.integers(0, 6), overtaken=st.booleans())
    def take(self, data: st.DataObject, steps: int, calls: int, *, overtaken: bool) -> None:
        """
        The group gives the partition to a worker; who had it may not have heard.

        What a former owner has begun to commit, now or before, ends between two calls of the taking.
        """
        worker = self.one(data, is_free)
        if overtaken and any(has_owner(other) for other in self.workers):
            former = self.one(data, has_owner)
            self.shop.produce(5)
            self.fetch_all(former)
            former.commit("ok")
            self.kafka.meanwhile.extend([nothing] * calls + [former.step])
        worker.take()
        for _ in range(steps):
            worker.step()

    @precondition(lambda self: any(worker.busy for worker in self.workers))
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """What waits in a worker's threads goes on."""
        self.one(data, is_busy).step()

    @precondition(lambda self: any(has_owner(worker) for worker in self.workers))
    @rule(data=st.data(), topic=st.sampled_from(TOPICS), count=st.integers(1, 60))
    def fetch(self, data: st.DataObject, topic: str, count: int) -> None:
        """A worker is handed some records of one topic, zombie or not."""
        self.one(data, has_owner).fetch(topic, count)

    @precondition(lambda self: any(has_owner(worker) for worker in self.workers))
    @rule(
        data=st.data(),
        fate=st.sampled_from(("ok", "ok", "ok", *FATES)),
        during=st.sets(st.sampled_from(("events", "lists"))),
        at_once=st.booleans(),
    )
    def work(self, data: st.DataObject, fate: Fate, during: set[str], *, at_once: bool) -> None:
        """
        A worker is handed everything there is and begins a commit, which meets its fate now or later.

        While it is under way the worker folds and publishes more.
        """
        worker = self.one(data, has_owner)
        self.fetch_all(worker)
        worker.commit(fate)
        if "events" in during:
            self.shop.produce(10)
            self.fetch_all(worker)
        if "lists" in during and is_live(worker):
            worker.lists.begin(worker.partition, 2)
            worker.lists.end(worker.partition)
        if at_once:
            worker.step()

    def fetch_all(self, worker: SimulatedWorker) -> None:
        """Hand everything there is to a worker."""
        for topic in TOPICS:
            worker.fetch(topic, 10_000)

    @precondition(lambda self: any(is_live(worker) for worker in self.workers))
    @rule(data=st.data(), count=st.integers(1, 3), at_once=st.booleans())
    def rank(self, data: st.DataObject, count: int, *, at_once: bool) -> None:
        """Lists are begun, and published now or later."""
        worker = self.one(data, is_live)
        worker.lists.begin(worker.partition, count)
        if at_once:
            worker.lists.end(worker.partition)

    @precondition(lambda self: any(is_live(worker) for worker in self.workers))
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        """Lists that were begun are published."""
        worker = self.one(data, is_live)
        worker.lists.end(worker.partition)

    @precondition(lambda self: any(has_owner(worker) for worker in self.workers))
    @rule(data=st.data(), at_once=st.booleans())
    def leave(self, data: st.DataObject, *, at_once: bool) -> None:
        """The group takes the partition from a worker that listens."""
        worker = self.one(data, has_owner)
        worker.leave()
        if at_once:
            run_all(worker)

    @precondition(lambda self: any(is_live(worker) for worker in self.workers))
    @rule(data=st.data(), during=st.booleans(), between=st.sampled_from(("nothing", "zombie", "heir")))
    def come_back(self, data: st.DataObject, between: str, *, during: bool) -> None:
        """
        The group forms anew and gives the partition back to who had it.

        Lists may end while the last commit is under way. In between a zombie may try its luck, or an heir may have
        the partition for a moment.
        """
        worker = self.one(data, is_live)
        others = [other for other in self.workers if other is not worker]
        self.fetch_all(worker)
        worker.lists.begin(worker.partition, 2)
        worker.leave()
        if during and has_owner(worker):
            worker.lists.end(worker.partition)
        run_all(worker)
        for other in others:
            if between == "zombie" and has_owner(other):
                other.commit("ok")
                run_all(other)
            if between == "heir" and is_free(other):
                other.take()
                run_all(other)
                other.kill()
        if is_free(worker):
            worker.take()
            run_all(worker)

    @precondition(lambda self: any(has_owner(worker) for worker in self.workers))
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        """A process is killed."""
        self.one(data, has_owner).kill()

    @rule()
    def expire(self) -> None:
        """The broker gives up on a transaction that has been open for too long."""
        self.kafka.expire(TRANSACTIONAL_ID)

    @invariant()
    def committed_is_exact(self) -> None:
        """What is committed is what plain loops say of the committed events, at any moment."""
        self.judge.look()

    def teardown(self) -> None:
        """One healthy worker ends everything: nothing is left over, every user has a list that has seen everything."""
        if not self.workers:
            return
        try:
            self.heal()
        finally:
            self.patch.stop()

    def heal(self) -> None:
        """Let one new worker take over from all, and check what is left."""
        self.kafka.meanwhile.clear()
        for worker in self.workers:
            worker.kill()
        heir = self.new_worker()
        heir.take()
        run_all(heir)
        self.judge.look()
        while self.kafka.committed != {topic: len(self.shop.sent[topic]) for topic in TOPICS}:
            for topic in TOPICS:
                heir.fetch(topic, 150)
            heir.commit("ok")
            heir.step()
            self.judge.look()
        heir.lists.begin(heir.partition, 100)
        heir.lists.end(heir.partition)
        heir.commit("ok")
        run_all(heir)
        self.judge.look()
        first: set[tuple[str, str]] = set()
        for topic, sent in self.shop.sent.items():
            for offset, event in enumerate(sent):
                if event is None or (topic, event["event_id"]) in first:
                    continue
                first.add((topic, event["event_id"]))
                assert self.judge.seen[event["user_id"].encode()][topic] > offset, "an event is on no list"
        heir.kill()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One event loop for every schedule; what owners log of themselves is not looked at."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    made = asyncio.new_event_loop()
    yield made
    made.close()
    structlog.reset_defaults()


def test_any_schedule_leaves_what_plain_loops_say(loop: asyncio.AbstractEventLoop) -> None:
    """After every step of every schedule what is committed is exact, and one healthy worker can end all of it."""
    Schedule.loop = loop
    run_state_machine_as_test(
        Schedule,
        settings=settings(
            max_examples=300,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
