"""Who owns which partition: what comes back is kept, what another took is dropped, a rolling restart moves nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from streams.errors import ConfigurationError
from streams.kafka.deadline import Deadline
from streams.kafka.partitioner import partition_of
from streams.kafka.transactions import PartitionTransactions
from streams.settings import Settings
from streams.topics import full_name
from tests.support.oracle import Oracle
from tests.support.roles import RoleProcess
from tests.support.shop import events, producer, send, stock
from tests.support.verifier import check_everything, wait_until_consumed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

_START_MS = round(time.time() * 1000) - 86_400_000


def send_more(settings: Settings, oracle: Oracle, seed: int, skip: int | None = None) -> None:
    """Send a stream of later events than those of the seeds before; `skip` leaves one partition's users out."""
    out = producer(settings)
    for sent in events(400, users=60, seed=seed, start_ms=_START_MS + seed * 3_000_000):
        if partition_of(str(sent.event["user_id"]).encode(), settings.partitions) != skip:
            send(out, settings, sent)
            oracle.add(sent.type_name, sent.event)
    assert out.flush(30) == 0


def settle(*workers: RoleProcess) -> None:
    """Wait until no worker owes a list."""
    end = time.monotonic() + 60
    quiet = 0
    while quiet < 5:
        assert time.monotonic() < end, "lists are still owed"
        quiet = 0 if any(worker.metric("freshet_dirty_users") for worker in workers) else quiet + 1
        time.sleep(0.2)


def told(worker: RoleProcess, event: str, since: int = 0) -> list[dict[str, Any]]:
    """Return a worker's log lines of one event, from a place in its log on."""
    lines = worker.log.read_bytes()[since:].splitlines()
    found = [orjson.loads(line) for line in lines if line.startswith(b"{")]
    return [line for line in found if line["event"] == event]


def taken(worker: RoleProcess, since: int = 0) -> dict[int, bool]:
    """Return the partitions that a worker has taken, and whether each was restored from its changelog."""
    return {line["partition"]: line["restored"] for line in told(worker, "partition_taken", since)}


def length(worker: RoleProcess) -> int:
    """Return how long a worker's log is now."""
    return worker.log.stat().st_size


def test_a_worker_is_ready_once_it_has_taken_what_is_its_own(
    settings_for: Callable[..., Settings], tmp_path: Path
) -> None:
    """Asked without a pause, it never says so between being told of its partitions and beginning to take them."""
    settings = settings_for(partitions=4)
    with RoleProcess("worker", settings, tmp_path) as worker:
        end = time.monotonic() + 60
        while (answer := worker.get("/readyz"))[0] != 200:
            assert time.monotonic() < end, worker.tail()

    assert {"taking": 0, "catching_up": 0, "live": 4} == orjson.loads(answer[1])["partitions"]


def test_a_partition_that_comes_back_is_kept(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """When a worker joins and leaves, the other restores only what was away, and every list is right."""
    settings = settings_for(partitions=4)
    stock(settings)
    oracle = Oracle()
    with RoleProcess("worker", settings, tmp_path, "first") as first:
        first.ready()
        send_more(settings, oracle, seed=1)
        wait_until_consumed(settings)
        joined = length(first)
        with RoleProcess("worker", settings, tmp_path, "second") as second:
            second.ready()
            first.ready()
            stayed = set(taken(first, joined))

            assert dict.fromkeys(stayed, False) == taken(first, joined)
            assert dict.fromkeys({0, 1, 2, 3} - stayed, True) == taken(second)
            assert len(stayed) == 2

            send_more(settings, oracle, seed=2)
            wait_until_consumed(settings)
            settle(first, second)
            check_everything(settings, oracle)
            left = length(first)
            second.signal(signal.SIGTERM)
            second.wait(30)
        while len(taken(first, left)) < 4:
            time.sleep(0.1)
        first.ready()

        assert {number: number not in stayed for number in range(4)} == taken(first, left)

        send_more(settings, oracle, seed=3)
        wait_until_consumed(settings)
        settle(first)
        check_everything(settings, oracle)


def test_a_fenced_partition_is_dropped_and_the_others_go_on(
    settings_for: Callable[..., Settings], tmp_path: Path
) -> None:
    """A partition that somebody takes is dropped at the next commit, the others flow; left alone, it comes back."""
    settings = settings_for(partitions=3, kafka_session_timeout_s=20, commit_timeout_s=10)
    stock(settings)
    oracle = Oracle()
    with RoleProcess("worker", settings, tmp_path) as worker:
        worker.ready()
        send_more(settings, oracle, seed=1)
        wait_until_consumed(settings)
        settle(worker)
        started = length(worker)
        thief = PartitionTransactions(settings, settings.group("interest"), 1, full_name(settings, "user-state"))
        thief.open(Deadline(30))
        thief.close()
        out = producer(settings)
        for sent in events(400, users=60, seed=2, start_ms=_START_MS + 2 * 3_000_000):
            send(out, settings, sent)
            oracle.add(sent.type_name, sent.event)
        assert out.flush(30) == 0
        while not told(worker, "partition_fenced", started):
            time.sleep(0.02)
        dropped_at = time.monotonic()
        # Two of three are owned and live at once; nothing was revoked.
        while worker.metric("freshet_partitions", state="live") != 2:
            time.sleep(0.02)

        assert time.monotonic() - dropped_at < 2
        assert [] == told(worker, "partitions_revoked", started)

        send_more(settings, oracle, seed=3, skip=1)
        while not taken(worker, started):
            time.sleep(0.1)

        assert [1] == [line["partition"] for line in told(worker, "partition_fenced", started)]
        assert {1: True} == taken(worker, started)

        wait_until_consumed(settings)
        settle(worker)
        check_everything(settings, oracle)


def test_a_rolling_restart_moves_nothing(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """Static members restarted one by one get their partitions back, and the other never hears of it."""
    # A loaded machine takes half a minute for a restart.
    settings = settings_for(partitions=4, kafka_session_timeout_s=90)
    stock(settings)
    oracle = Oracle()
    pods = [settings.model_copy(update={"kafka_group_instance_id": f"interest-{number}"}) for number in range(2)]
    with (
        RoleProcess("worker", pods[0], tmp_path, "interest-0") as first,
        RoleProcess("worker", pods[1], tmp_path, "interest-1") as second,
    ):
        first.ready()
        second.ready()
        while len(taken(first)) + len(taken(second)) < 4 or first.get("/readyz")[0] != 200:
            time.sleep(0.2)
        send_more(settings, oracle, seed=1)
        wait_until_consumed(settings)
        owned = {worker: told(worker, "partitions_assigned")[-1]["partitions"] for worker in (first, second)}

        assert [0, 1, 2, 3] == sorted(owned[first] + owned[second])
        assert 2 == len(owned[first])

        for number, (restarted, other) in enumerate([(second, first), (first, second)]):
            before = {worker: length(worker) for worker in (first, second)}
            restarted.signal(signal.SIGTERM)
            send_more(settings, oracle, seed=2 + number)

            assert 0 == restarted.wait(30)

            restarted.start().ready()
            wait_until_consumed(settings)
            settle(first, second)

            assert [owned[restarted]] == [
                line["partitions"] for line in told(restarted, "partitions_assigned", before[restarted])
            ]
            assert [] == told(other, "partitions_revoked", before[other])
            assert [] == told(other, "partitions_assigned", before[other])

        time.sleep(1)
        check_everything(settings, oracle)


def test_two_processes_with_one_instance_id_do_not_take_turns(
    settings_for: Callable[..., Settings], tmp_path: Path
) -> None:
    """The newer one has the partitions; the older one ends with a sentence that names the setting."""
    settings = settings_for(partitions=4, kafka_group_instance_id="interest-0")
    stock(settings)
    oracle = Oracle()
    with RoleProcess("worker", settings, tmp_path, "older") as older:
        older.ready()
        send_more(settings, oracle, seed=1)
        wait_until_consumed(settings)
        with RoleProcess("worker", settings, tmp_path, "newer") as newer:
            assert ConfigurationError.exit_code == older.wait(60), older.tail()
            assert "FRESHET_KAFKA_GROUP_INSTANCE_ID must differ" in older.tail(500)

            newer.ready()
            send_more(settings, oracle, seed=2)
            wait_until_consumed(settings)
            settle(newer)
            check_everything(settings, oracle)

            assert newer.alive
