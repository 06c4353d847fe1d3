"""The batched transport's own rules; what it does with a broker is in tests/integration/test_transport_kafka.py."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import faust
import pytest
import uvloop
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.transport.drivers import by_url
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from streams.errors import UnsupportedFaustError
from streams.kafka import transport
from streams.kafka.transport import plugin
from streams.kafka.transport.runs import Ledger
from tests.support.records import run_of

PLACE = TP("clicks", 0)


def app_on(scheme: str = "freshet", **settings: Any) -> faust.App:
    """Return an app that is never started."""
    return faust.App("other", broker=f"{scheme}://127.0.0.1:9092", web_enabled=False, **settings)


@contextmanager
def consumer_of(app: faust.App) -> Iterator[Any]:
    """Return an app's consumer, which is never started."""
    consumer = app.consumer
    try:
        yield consumer
    finally:
        # Made with the consumer; closed by a thread that never ran.
        consumer._thread.thread_loop.close()


def test_faust_finds_the_transport_by_its_scheme() -> None:
    """`freshet://` leads to the batched transport through the entry point."""
    assert transport.Transport is by_url(URL("freshet://127.0.0.1:9092"))


def test_it_stands_alone() -> None:
    """It could be its own package: importing it brings nothing of Freshet but its errors and what compiles."""
    script = "import sys, streams.kafka.transport; print(sorted(sys.modules))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    parts = ("", ".consumer", ".fetching", ".membership", ".pacing", ".plugin", ".records", ".runs", ".thread")
    own = [f"streams.kafka.transport{part}" for part in parts]

    brought = [name for name in ast.literal_eval(said) if name.partition(".")[0] in {"models", "streams"}]

    assert sorted(["models", "models.compiled", "streams", "streams.errors", "streams.kafka", *own]) == brought


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_client_runs_on_a_loop_of_the_apps_kind(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Its thread has a loop of its own, asyncio's for an app on asyncio's, uvloop's for one on uvloop's."""

    async def kinds() -> tuple[type, type]:
        with consumer_of(app_on()) as consumer:
            return type(asyncio.get_running_loop()), type(consumer._thread.thread_loop)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        apps, clients = runner.run(kinds())

    assert apps is clients


def test_a_batched_topic_on_another_transport_is_refused() -> None:
    """Runs would never come, so the app does not start."""
    with pytest.raises(UnsupportedFaustError, match="freshet://"):
        transport.batched_topic(app_on("kafka"), "clicks")


def test_fausts_own_transactions_are_refused() -> None:
    """They lose and repeat records (#323, #517, robinhood#340)."""
    with pytest.raises(UnsupportedFaustError, match="exactly_once"):
        transport.batched_topic(app_on(processing_guarantee="exactly_once"), "clicks")


def test_a_topic_is_batched_once() -> None:
    """Two agents would be given the same run, and the faster one's `done` would speak for both."""
    app = app_on()
    transport.batched_topic(app, "clicks", "views")

    with pytest.raises(UnsupportedFaustError, match="views is a batched topic already"):
        transport.batched_topic(app, "carts", "views")


def test_a_second_agent_on_a_batched_topic_ends_the_start() -> None:
    """The same for one topic object with two agents, and for a stock topic of the same name."""

    async def scenario() -> None:
        app = app_on()
        app.topics.add(transport.batched_topic(app, "clicks"))
        app.topics.add(app.topic("clicks"))

        with consumer_of(app) as consumer, pytest.raises(UnsupportedFaustError, match="clicks has more than one agent"):
            await consumer.subscribe(["clicks"])

    asyncio.run(scenario())


@pytest.mark.parametrize(("package", "found"), [("faust-streaming", "0.16.0"), ("aiokafka", "0.13.9")])
def test_an_unchecked_version_is_refused(monkeypatch: pytest.MonkeyPatch, package: str, found: str) -> None:
    """The overrides were read against certain versions; another one ends the start with its name."""
    checked = {"faust-streaming": "0.15.3", "aiokafka": "0.14.0"} | {package: found}
    monkeypatch.setattr(plugin, "version", checked.__getitem__)

    with pytest.raises(UnsupportedFaustError, match=f"{package} {found}"):
        transport.check_versions()


def test_an_override_of_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that Faust has renamed would silently go back to stock behaviour."""
    monkeypatch.delattr(driver.AIOKafkaConsumerThread, "_seek_wait")

    with pytest.raises(UnsupportedFaustError, match="AIOKafkaConsumerThread has no _seek_wait"):
        transport.check_versions()


def test_room_is_given_back_once() -> None:
    """A run that is done twice frees one place only."""
    freed: list[transport.Run] = []
    run = run_of("clicks", (0, 1))
    run._done = freed.append
    run.done()
    run.done()

    assert [run] == freed


@given(sizes=st.lists(st.integers(1, 5), max_size=12), data=st.data())
def test_606_done_is_what_lies_before_the_first_run_that_is_not(sizes: list[int], data: st.DataObject) -> None:
    """Whatever the order in which runs are done, and wherever offsets have holes: never past one that is not."""
    ledger = Ledger()
    runs, start = [], 0
    for size in sizes:
        start += data.draw(st.integers(0, 3))
        runs.append(run_of("clicks", *((start + place, 0) for place in range(size))))
        start += size
        ledger.add(runs[-1])
    for run in data.draw(st.permutations(runs)):
        run.done()
        ledger.settle(run)
        done = next((number for number, other in enumerate(runs) if not other.finished), len(runs))

        assert ({PLACE: runs[done - 1].next_offset} if done else {}) == ledger.to_commit()
        assert runs[done:] == list(ledger.out(PLACE))

    assert 0 == len(ledger)


def test_a_forgotten_run_moves_nothing() -> None:
    """What comes after a rebalance or a seek is told by its own runs only."""
    ledger = Ledger()
    old, new = run_of("clicks", (0, 1)), run_of("clicks", (0, 1))
    ledger.add(old)
    ledger.forget()
    ledger.add(new)
    old.done()
    ledger.settle(old)

    assert {} == ledger.to_commit()
    assert [new] == list(ledger)


@contextmanager
def flowing(fetch: Callable[[Any], Awaitable[dict[TP, list[Any]]]]) -> Iterator[Any]:
    """Return the consumer of an app with one batched partition, assigned and flowing; `fetch` is its fetch."""
    app = app_on()
    transport.batched_topic(app, "clicks")
    with consumer_of(app) as consumer:
        consumer._set_active_tps({PLACE})
        consumer._getmany = lambda *_: fetch(consumer)
        yield consumer


async def fetched_once(consumer: Any) -> None:
    """Fetch once and hand over."""
    assert [] == [item async for item in consumer.getmany(1.0)]


def a_record(offset: int) -> Any:
    """Return a record as aiokafka makes them."""
    return ConsumerRecord("clicks", 0, offset, 0, 0, None, b"", None, 0, 0, ())


def test_what_was_held_while_it_was_fetched_is_dropped() -> None:
    """Its release seeks; a record of the former place would come out of order, and twice."""

    async def scenario() -> None:
        handed_over: list[Any] = []

        async def fetch(consumer: Any) -> dict[TP, list[Any]]:
            consumer.hold({PLACE})
            return {PLACE: [a_record(1)]}

        async def take(message: Any) -> None:
            handed_over.append(message)

        with flowing(fetch) as consumer:
            consumer.callback = take
            await fetched_once(consumer)

            assert [] == handed_over
            assert 0 == len(consumer._ledger)

    asyncio.run(scenario())


@pytest.mark.parametrize("rebalanced", [False, True])
def test_a_hand_over_that_a_stop_interrupts_is_repeated(*, rebalanced: bool) -> None:
    """Stock drops the record; here it is handed over once the flow resumes, except after a rebalance."""

    async def scenario() -> None:
        handed_over: list[int] = []
        tried, may_pass = asyncio.Event(), asyncio.Event()

        async def fetch(_: Any) -> dict[TP, list[Any]]:
            return {PLACE: [a_record(1)]}

        async def take(message: Any) -> None:
            tried.set()
            await may_pass.wait()
            handed_over.append(message.value.records[0].offset)

        with flowing(fetch) as consumer:
            consumer.callback = take
            handing_over = asyncio.create_task(fetched_once(consumer))
            await tried.wait()
            consumer.stop_flow()
            await asyncio.sleep(0.05)
            consumer.app.consumer_generation_id += rebalanced
            may_pass.set()
            consumer.resume_flow()
            await handing_over

            assert ([] if rebalanced else [1]) == handed_over

    asyncio.run(scenario())


def test_316_an_offset_that_kafka_refused_is_tried_again() -> None:
    """
    Stock takes an offset for committed whether Kafka took it or not, and never sends it again (#316).

    Here it stays owed until a commit is confirmed, and is then not sent again.
    """

    async def scenario() -> None:
        app = app_on()
        transport.batched_topic(app, "clicks")
        sent: list[dict[TP, int]] = []
        answers = iter([False, True])

        async def commit(offsets: dict[TP, int]) -> bool:
            sent.append(offsets)
            return next(answers)

        with consumer_of(app) as consumer:
            consumer.assignment = lambda: {PLACE}
            consumer._commit = commit
            run = run_of("clicks", (41, 1))
            consumer._ledger.add(run)
            run.done()
            consumer._ledger.settle(run)

            assert [False, True, False] == [await consumer.commit() for _ in range(3)]
            assert [{PLACE: 42}, {PLACE: 42}] == sent

    asyncio.run(scenario())


def test_446_the_livelock_detector_waits_for_the_client() -> None:
    """Stock's raises ConsumerNotStarted, and so ends the app, when a start takes longer than its interval (#446)."""

    async def scenario() -> None:
        with consumer_of(app_on()) as consumer:
            await consumer.verify_all_partitions_active()

    asyncio.run(scenario())


def test_214_an_unknown_end_is_not_told() -> None:
    """Stock tells monitors None for a partition whose end is unknown, and a gauge of None kills the drain (#214)."""

    async def scenario() -> None:
        app = app_on()
        ends = app.monitor.tp_end_offsets
        kafka = AIOKafkaConsumer("clicks", group_id="g")
        with consumer_of(app) as consumer:
            consumer._note_end(PLACE)
            consumer._thread._consumer = kafka
            consumer._note_end(PLACE)
            kafka._subscription.assign_from_subscribed({TopicPartition(*PLACE)})
            consumer._note_end(PLACE)

            assert {} == ends

            consumer._thread.partition_state(PLACE).highwater = 7
            consumer._note_end(PLACE)

            assert {PLACE: 7} == ends
        await kafka.stop()

    asyncio.run(scenario())
