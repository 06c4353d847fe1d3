"""
The batched transport in a stranger's app, against a real Kafka.

Tests named after an issue are regression tests of a defect in Faust 0.15 (faust-streaming's number, or robinhood's);
each says what the defect does there and what holds here.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable
from functools import partial
from typing import Any

import pytest
from faust.types import TP

from streams.kafka.transport import Run
from streams.local.kafka import LocalKafka
from tests.support.stranger import Broker, Stranger, rival, until

pytestmark = pytest.mark.integration

#: Long enough for a fetch and a commit; what must not happen is waited for that long.
_A_WHILE_S = 0.5


@pytest.fixture(scope="module")
def broker(kafka: LocalKafka) -> Broker:
    """The session's Kafka, for tests of an app that is not Freshet's."""
    return Broker(kafka.bootstrap)


def numbers(start: int, stop: int) -> list[bytes]:
    """Values that tell their place."""
    return [str(number).encode() for number in range(start, stop)]


def kept(run: Run) -> Awaitable[None]:
    """Take a run and go on without calling it done."""
    del run
    return asyncio.sleep(0)


def test_runs_come_in_order_and_are_committed_by_the_timer(broker: Broker) -> None:
    """Without a line about offsets in the app, what is done is committed every `broker_commit_interval`."""
    topic = broker.topic(partitions=2)
    broker.produce(topic, numbers(0, 500), 0)
    broker.produce(topic, numbers(500, 1_000), 1)

    async def scenario() -> None:
        stranger = Stranger(broker, topic, broker_commit_interval=0.2, broker_max_poll_records=100)
        stranger.collect(topic)
        async with stranger.running():
            await until(lambda: len(stranger.values) == 1_000, "every record")
            await until(lambda: stranger.committed(topic, 0) == stranger.committed(topic, 1) == 500, "both committed")

        for partition, expected in ((0, numbers(0, 500)), (1, numbers(500, 1_000))):
            runs = [run for run in stranger.runs if run.partition == partition]

            assert expected == [record.value for run in runs for record in run.records]
            assert max(len(run.records) for run in runs) <= 100

    asyncio.run(scenario())


def test_606_one_run_not_done_at_the_head_holds_the_commit_back(broker: Broker) -> None:
    """
    Stock commits over exactly one unacknowledged record at the committed head (#606, robinhood#355, robinhood#682).

    Here nothing behind a run that is not done is committed, however short it is.
    """
    topic = broker.topic()
    broker.produce(topic, numbers(0, 3))

    async def scenario() -> None:
        stranger = Stranger(broker, topic, broker_max_poll_records=1)
        stranger.collect(topic, each=kept)
        async with stranger.running():
            await until(lambda: len(stranger.runs) == 2, "two runs, neither done")
            stranger.runs[0].done()
            await stranger.consumer.commit()

            assert 1 == stranger.committed(topic)

            await until(lambda: len(stranger.runs) == 3, "the third run")
            stranger.runs[2].done()
            await stranger.consumer.commit()

            assert 1 == stranger.committed(topic)

            stranger.runs[1].done()
            await stranger.consumer.commit()

            assert 3 == stranger.committed(topic)

    asyncio.run(scenario())


def test_502_what_is_done_is_committed_before_a_rebalance(broker: Broker) -> None:
    """
    Stock drops acknowledged offsets before the last commit of a rebalance and repeats up to an interval (#502).

    Here a member that joins and leaves in order makes nobody see a record twice, though the timer never fired.
    """
    topic = broker.topic(partitions=2)
    broker.produce(topic, numbers(0, 100), 0)
    broker.produce(topic, numbers(100, 200), 1)

    async def scenario() -> None:
        stranger = Stranger(broker, topic, broker_max_poll_records=10)
        stranger.collect(topic)
        async with stranger.running():
            await until(lambda: len(stranger.values) == 200, "every record")
            async with rival(broker, topic, topic) as owned:
                await until(lambda: len(owned()) == 1 == len(stranger.consumer.assignment()), "one partition each")

                assert (100, 100) == (stranger.committed(topic, 0), stranger.committed(topic, 1))
            await until(lambda: len(stranger.consumer.assignment()) == 2, "both partitions again")
            broker.produce(topic, numbers(200, 210), 0)
            broker.produce(topic, numbers(210, 220), 1)
            await until(lambda: len(stranger.values) >= 220, "what came later")
            await asyncio.sleep(_A_WHILE_S)

        assert sorted(numbers(0, 220)) == sorted(value or b"" for value in stranger.values)
        assert 110 == stranger.committed(topic, 0)

    asyncio.run(scenario())


def test_625_holes_of_transaction_markers_are_not_taken_for_done(broker: Broker) -> None:
    """
    Stock fills holes in the offsets one too far, so that an unread record counts as done or a commit comes late.

    Here there is no arithmetic on holes: a partition is done up to the first run that is not (robinhood#625).
    """
    topic = broker.topic()
    broker.produce_in_transactions(topic, [b"a", b"b", b"gone", b"c"], abort=[b"gone"])

    async def scenario() -> None:
        stranger = Stranger(broker, topic, broker_max_poll_records=1)
        stranger.collect(topic, each=kept)
        async with stranger.running():
            await until(lambda: len(stranger.runs) == 2, "two runs")
            await stranger.consumer.commit()

            assert stranger.committed(topic) is None

            stranger.runs[1].done()
            await stranger.consumer.commit()

            assert stranger.committed(topic) is None

            stranger.runs[0].done()
            await until(lambda: len(stranger.runs) == 3, "the third run")
            await stranger.consumer.commit()

            assert [0, 2, 6] == [run.records[0].offset for run in stranger.runs]
            assert 3 == stranger.committed(topic)

            stranger.runs[2].done()
            await stranger.consumer.commit()

            assert 7 == stranger.committed(topic)
            assert [b"a", b"b", b"c"] == stranger.values

    asyncio.run(scenario())


def test_a_run_of_a_former_generation_says_nothing_about_the_new_one(broker: Broker) -> None:
    """
    Stock's pure-Python stream acknowledges what it skips of an old generation, and so commits what nobody saw.

    Here what was not done before a rebalance comes again, from its first record, also when nothing was ever
    committed; what an agent still holds of the old generation changes no offset.
    """
    topic = broker.topic(partitions=2)
    broker.produce(topic, numbers(0, 300), 0)
    broker.produce(topic, numbers(300, 600), 1)

    async def scenario() -> None:
        stranger = Stranger(broker, topic, broker_max_poll_records=20)
        stranger.collect(topic, each=kept)
        async with stranger.running():
            await until(lambda: len(stranger.runs) == 4, "two runs of each partition")
            old = list(stranger.runs)
            async with rival(broker, topic, topic) as owned:
                await until(lambda: len(owned()) == 1 == len(stranger.consumer.assignment()), "one partition each")
            await until(lambda: len(stranger.consumer.assignment()) == 2, "both partitions again")
            for run in old:
                run.done()
            await stranger.consumer.commit()

            assert (None, None) == (stranger.committed(topic, 0), stranger.committed(topic, 1))

            def fresh() -> list[Run]:
                return [run for run in stranger.runs if run.generation == stranger.app.consumer_generation_id]

            await until(lambda: len(fresh()) == 4, "two runs of each again")

            assert [(0, 0), (0, 20), (1, 0), (1, 20)] == sorted(
                (run.partition, run.records[0].offset) for run in fresh()
            )

            while len(seen := {record.value for run in fresh() for record in run.records}) < 600:
                for run in fresh():
                    run.done()
                await asyncio.sleep(0.02)
            for run in fresh():
                run.done()
            await stranger.consumer.commit()

            assert set(numbers(0, 600)) == seen
            assert (300, 300) == (stranger.committed(topic, 0), stranger.committed(topic, 1))

    asyncio.run(scenario())


def test_what_was_fetched_arrives_until_agents_have_it(broker: Broker) -> None:
    """A run in its agent's queue is arriving; one in an agent's hand, or done, is not."""
    topic = broker.topic(partitions=1)
    broker.produce(topic, numbers(0, 10), 0)

    async def scenario() -> None:
        may_end = asyncio.Event()

        async def slow(run: Run) -> None:
            await may_end.wait()
            run.done()

        stranger = Stranger(broker, topic, broker_max_poll_records=5)
        stranger.collect(topic, each=slow)
        async with stranger.running():
            await until(lambda: len(stranger.consumer._ledger) == 2, "a run in hand, another queued")

            assert stranger.consumer.arriving

            may_end.set()
            await until(lambda: len(stranger.values) == 10, "both runs")

            assert not stranger.consumer.arriving

    asyncio.run(scenario())


def test_a_rebalance_waits_for_the_run_in_hand(broker: Broker) -> None:
    """A run that an agent works on is ended and committed before another member may own its partition."""
    topic = broker.topic(partitions=2)
    broker.produce(topic, numbers(0, 10), 0)

    async def scenario() -> None:
        may_end = asyncio.Event()
        committed_when_owned: list[int | None] = []

        async def join_and_leave() -> None:
            async with rival(broker, topic, topic) as owned:
                await until(lambda: len(owned()) == 1, "the rival's share")
                committed_when_owned.append(broker.committed(topic, topic))

        async def slow(run: Run) -> None:
            await may_end.wait()
            run.done()

        stranger = Stranger(broker, topic, broker_max_poll_records=5)
        stranger.collect(topic, each=slow)
        async with stranger.running():
            await until(lambda: len(stranger.runs) == 1, "a run in hand, another queued")
            joining = asyncio.create_task(join_and_leave())
            await until(lambda: stranger.app.rebalancing_count == 2, "the rebalance")
            await asyncio.sleep(_A_WHILE_S)

            assert [] == committed_when_owned

            may_end.set()
            await joining

            assert [5] == committed_when_owned

            await until(lambda: len(stranger.values) == 10, "the queued run, fetched again")
            await asyncio.sleep(_A_WHILE_S)

        assert numbers(0, 10) == stranger.values

    asyncio.run(scenario())


def test_333_a_run_is_committed_when_done_not_when_a_flush_gives_up(broker: Broker) -> None:
    """
    Stock commits after a flush that gives up in 0.1 s, and when a send has failed (#273, #333): output is lost.

    Here the agent awaits what it sends before it calls `done()`; a send that fails leaves the run to be read again.
    """
    topic, output = broker.topic(), broker.topic()
    broker.produce(topic, numbers(0, 2))

    async def scenario() -> None:
        failed: list[str] = []

        async def forward(run: Run) -> None:
            value = run.records[0].value
            try:
                await stranger.app.topic(output, value_type=bytes).send(value=value if value == b"0" else bytes(2**21))
            except Exception as error:  # noqa: BLE001 -- whatever the client says
                failed.append(type(error).__name__)
            else:
                run.done()

        stranger = Stranger(broker, topic, broker_max_poll_records=1)
        stranger.collect(topic, each=forward)
        async with stranger.running():
            await until(lambda: failed, "the refusal of a record of 2 MiB")
            await stranger.consumer.commit()

            assert ["ProducerSendError"] == failed
            assert 1 == stranger.committed(topic)

    asyncio.run(scenario())


def test_416_a_bad_record_inside_a_run_hangs_nothing(broker: Broker) -> None:
    """
    Stock's `take()` hangs for ever behind a record that cannot be decoded (robinhood#416).

    Here nothing is decoded before the agent: it meets each record as bytes, or as None, and goes on.
    """
    topic = broker.topic()
    broker.produce(topic, [b'{"n":1}', b"\xff{not json", None, b'{"n":2}'])

    async def scenario() -> None:
        good: list[int] = []
        bad: list[bytes | None] = []

        async def parse(run: Run) -> None:
            for record in run.records:
                try:
                    good.append(json.loads(record.value or b"")["n"])
                except (TypeError, ValueError):
                    bad.append(record.value)
            run.done()

        stranger = Stranger(broker, topic)
        stranger.collect(topic, each=parse)
        async with stranger.running():
            await until(lambda: len(good) + len(bad) == 4, "every record")
            await stranger.consumer.commit()

            assert [1, 2] == good
            assert [b"\xff{not json", None] == bad
            assert 4 == stranger.committed(topic)

    asyncio.run(scenario())


def test_166_the_livelock_detector_reports_only_a_run_that_stands_still(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Stock cries wolf about idle partitions, held ones and rebalances (#166, #175, #640).

    Here an app with every patience used up is silent while nothing is out, and names a run that is not done once.
    """
    topic, held = broker.topic(), broker.topic()

    async def scenario() -> None:
        stranger = Stranger(
            broker, topic, broker_commit_interval=0.1, stream_processing_timeout=1.0,
            broker_commit_livelock_soft_timeout=0.1,
        )  # fmt: skip
        stranger.collect(topic, each=kept)
        stranger.collect(held, caller_commits=True)
        async with stranger.running():
            await until(lambda: len(stranger.consumer.assignment()) == 2 and not stranger.app.rebalancing, "a start")
            thread = stranger.consumer._thread
            thread.tp_fetch_request_timeout_secs = thread.tp_stream_timeout_secs = 0.1
            async with rival(broker, topic, topic):
                await until(lambda: len(stranger.consumer.assignment()) == 1, "a rebalance")
            await until(lambda: len(stranger.consumer.assignment()) == 2 and not stranger.app.rebalancing, "another")
            await asyncio.sleep(2.0)

            assert [] == [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]

            broker.produce(topic, [b"x"])
            await until(lambda: len(stranger.runs) == 1, "the run")
            await asyncio.sleep(2.5)

            assert [f"{topic}/0 stands still: the run from offset 0 on is not done for more than 1.0 s"] == [
                record.getMessage().partition("]: ")[2].partition(" (")[0]
                for record in caplog.records
                if record.levelno >= logging.ERROR
            ]

    asyncio.run(scenario())


def test_214_ends_are_told_once_a_fetch_and_never_as_none(broker: Broker) -> None:
    """
    Stock tells the monitor an end for each record, and None in a rebalance, which kills the drain (#214).

    Here it is told once a fetch and partition, and only when it is known.
    """
    topic = broker.topic()
    broker.produce(topic, numbers(0, 1_000))

    async def scenario() -> None:
        told: list[tuple[TP, int | None]] = []
        stranger = Stranger(broker, topic, broker_max_poll_records=100)
        stranger.collect(topic)
        stranger.app.monitor.track_tp_end_offset = lambda tp, offset: told.append((tp, offset))
        async with stranger.running():
            await until(lambda: len(stranger.values) == 1_000, "every record")

            assert len(stranger.runs) == len(told)
            assert {(TP(topic, 0), 1_000)} == set(told)

    asyncio.run(scenario())


@pytest.mark.parametrize("by", ["partitions", "flow"])
def test_a_pause_loses_nothing(broker: Broker, by: str) -> None:
    """Paused, nothing comes after the fetch under way; resumed, it goes on at once where it was."""
    topic = broker.topic(partitions=2)
    broker.produce(topic, numbers(0, 50), 0)

    async def scenario() -> None:
        def at_least(records: int) -> bool:
            return len(stranger.values) >= records

        stranger = Stranger(broker, topic, broker_max_poll_records=5)
        stranger.collect(topic)
        async with stranger.running():
            for stop in range(50, 250, 50):
                await until(partial(at_least, stop - 30), "most records")
                if by == "partitions":
                    stranger.consumer.pause_partitions({TP(topic, 0)})
                else:
                    stranger.consumer.stop_flow()
                broker.produce(topic, numbers(stop, stop + 50), 0)
                await asyncio.sleep(0.1)
                before = len(stranger.values)
                await asyncio.sleep(_A_WHILE_S)

                assert before == len(stranger.values)

                if by == "partitions":
                    stranger.consumer.resume_partitions({TP(topic, 0)})
                else:
                    stranger.consumer.resume_flow()
            await until(lambda: len(stranger.values) >= 250, "every record")
            await stranger.consumer.commit()

            assert numbers(0, 250) == stranger.values
            assert 250 == stranger.committed(topic)

    asyncio.run(scenario())


def test_other_topics_of_the_app_work_as_in_stock_faust(broker: Broker) -> None:
    """A topic that is not batched comes record by record, acknowledged and committed by Faust, holes and all."""
    topic, single = broker.topic(), broker.topic()
    broker.produce(topic, numbers(0, 100))
    broker.produce_in_transactions(single, numbers(0, 5))

    async def scenario() -> None:
        seen: list[tuple[int, bytes]] = []
        stranger = Stranger(broker, topic, broker_max_poll_records=10)
        stranger.collect(topic, each=kept)

        take = seen.append

        async def one_by_one(stream: Any) -> None:
            async for event in stream.events():
                take((event.message.offset, event.value))

        channel = stranger.app.topic(single, value_type=bytes, value_serializer="raw")
        stranger.app.agent(channel, name="one-by-one")(one_by_one)
        async with stranger.running():
            await until(lambda: len(seen) == 5 and len(stranger.runs) == 2, "both topics")
            await asyncio.sleep(0.1)
            # Stock needs several commits to get past the holes, see #625.
            for _ in range(5):
                await stranger.consumer.commit()

            assert [(0, b"0"), (2, b"1"), (4, b"2"), (6, b"3"), (8, b"4")] == seen
            assert 9 == stranger.committed(single)
            assert stranger.committed(topic) is None

    asyncio.run(scenario())


def test_memory_is_bounded_while_agents_stand_still(broker: Broker) -> None:
    """At most two runs of a partition are out, and no fetch begins above `max_buffered_runs`; room reopens at once."""
    topic = broker.topic(partitions=4)
    for partition in range(4):
        broker.produce(topic, numbers(0, 200), partition)

    async def scenario() -> None:
        stranger = Stranger(broker, topic, broker_max_poll_records=10)
        stranger.collect(topic, each=kept)
        stranger.app.transport.max_buffered_runs = 5
        async with stranger.running():
            await until(lambda: len(stranger.runs) >= 5, "the room to be used up")
            await asyncio.sleep(_A_WHILE_S)
            by_partition = [sum(run.partition == number for run in stranger.runs) for number in range(4)]

            assert max(by_partition) <= 2
            assert 5 <= len(stranger.runs) <= 8

            for partition in range(4):
                await until_through(stranger, partition, 20)

    async def until_through(stranger: Stranger, partition: int, runs: int) -> None:
        await until(lambda: _end_all(stranger, partition) == runs, "a whole partition")

    asyncio.run(scenario())


def _end_all(stranger: Stranger, partition: int) -> int:
    """Call every run so far done; return how many a partition had."""
    for run in stranger.runs:
        run.done()
    return sum(run.partition == partition for run in stranger.runs)


def test_a_caller_that_commits_releases_and_is_left_alone(broker: Broker) -> None:
    """Its partitions wait for `release`, go where that says, also again, and Faust never commits them."""
    topic = broker.topic()
    place = TP(topic, 0)
    broker.produce(topic, numbers(0, 100))

    async def scenario() -> None:
        def at_least(records: int) -> bool:
            return len(stranger.values) >= records

        stranger = Stranger(broker, topic, broker_commit_interval=0.1, broker_max_poll_records=10)
        stranger.collect(topic, caller_commits=True)
        async with stranger.running():
            consumer = stranger.consumer
            await until(lambda: consumer.assignment() and not stranger.app.rebalancing, "the assignment")
            await asyncio.sleep(_A_WHILE_S)

            assert [] == stranger.runs

            await consumer.release({place: 40})
            await until(lambda: len(stranger.values) == 60, "the rest")

            assert numbers(40, 100) == stranger.values
            assert 0 == consumer.remaining(place, 0, 100)

            for start in range(100):
                stranger.runs.clear()
                consumer.hold({place})
                await consumer.release({place: start})
                await until(partial(at_least, 100 - start), "again from there")

                assert numbers(start, 100) == stranger.values
            await asyncio.sleep(_A_WHILE_S)

            assert stranger.committed(topic) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("supervisor", ["mode.OneForOneSupervisor", "mode.CrashingSupervisor"])
def test_an_agent_that_raises_leaves_its_run_to_be_read_again(broker: Broker, supervisor: str) -> None:
    """Stock acknowledges what an agent failed on (#189, #315, robinhood#604); here it is read again after a restart."""
    topic = broker.topic()
    broker.produce(topic, numbers(0, 5))

    async def scenario() -> None:
        seen: list[bytes | None] = []

        async def fail_on_2(run: Run) -> None:
            value = run.records[0].value
            seen.append(value)
            if value == b"2" and len(seen) == 3:
                raise ValueError("two")
            run.done()

        async def once(last: bytes) -> None:
            stranger = Stranger(broker, topic, broker_max_poll_records=1, agent_supervisor=supervisor)
            stranger.collect(topic, each=fail_on_2)
            async with stranger.running():
                if supervisor == "mode.CrashingSupervisor" and last != b"4":
                    await until(lambda: stranger.app.crashed, "the end of the app")
                else:
                    await until(lambda: seen[-1:] == [last], "the last record")
                await asyncio.sleep(0.1)

        # Faust's own supervisor goes on with the next run, and no further: the failed one holds the partition.
        await once(b"3" if supervisor == "mode.OneForOneSupervisor" else b"2")

        assert 2 == broker.committed(topic, topic)

        await once(b"4")

        assert 5 == broker.committed(topic, topic)
        assert numbers(2, 5) == seen[-3:]

    asyncio.run(scenario())
