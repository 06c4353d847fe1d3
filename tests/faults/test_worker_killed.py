"""F1 and F3: a worker that is killed, and one that sleeps while another takes over, change nothing that anyone sees."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.settings import Settings
from streams.signals.routing import item_partitions
from streams.wire.dead_letters import DeadLetter
from streams.wire.signals import decode_item_events
from tests.support.oracle import Oracle
from tests.support.roles import RoleProcess
from tests.support.shop import Sent, events, producer, send, stock
from tests.support.verifier import check_everything, read_topic, wait_until_consumed

pytestmark = [pytest.mark.integration, pytest.mark.faults]

_EVENTS = 12_000
#: Events a second while workers are being killed: a worker that restarts finds a backlog of some thousands.
_RATE = 2_000
#: One bad record in so many: they must be in dead-letters once each, whatever dies.
_BAD_EVERY = 200


class Traffic(threading.Thread):
    """Sends a seeded stream at a steady rate and keeps the oracle beside it."""

    def __init__(self, settings: Settings, count: int, rate: float, seed: int) -> None:
        super().__init__(name="traffic", daemon=True)
        self.oracle = Oracle()
        self.bad = 0
        self._settings = settings
        self._stream = events(count, seed=seed)
        self._rate = rate

    def run(self) -> None:
        """Send everything."""
        out = producer(self._settings)
        started = time.monotonic()
        for number, sent in enumerate(self._stream):
            send(out, self._settings, sent)
            self.oracle.add(sent.type_name, sent.event)
            if number % _BAD_EVERY == 0:
                send(out, self._settings, Sent(sent.type_name, {**sent.event, "ts": "yesterday"}))
                self.bad += 1
            ahead = number / self._rate - (time.monotonic() - started)
            if ahead > 0.01:
                time.sleep(ahead)
        assert out.flush(60) == 0


def check_side_outputs(settings: Settings, traffic: Traffic) -> None:
    """Dead letters and item events: each exactly once for committed readers, item events where their item lies."""
    letters = [DeadLetter.from_record(read.headers, read.value) for read in read_topic(settings, "dead-letters")]
    places = Counter((letter.topic, letter.partition, letter.offset) for letter in letters)

    assert traffic.bad == len(letters)
    assert {1} == set(places.values())
    assert {"bad_time"} == {letter.reason for letter in letters}

    told = 0
    for read in read_topic(settings, "item-events"):
        events = decode_item_events(read.value or b"")
        told += int((item_partitions(events.ids, settings.partitions)[events.item] == read.partition).sum())

    assert told == sum(sum(traffic.oracle.events_applied(user).values()) for user in traffic.oracle.users())


@pytest.mark.timeout(420)
def test_kill_9_loses_nothing_and_counts_nothing_twice(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """Killed three times at random moments in mid replay, the worker ends with the oracle's state for every user."""
    seed = random.SystemRandom().randrange(10_000)
    print(f"seed {seed}")
    rng = random.Random(seed)
    settings = settings_for(partitions=4, kafka_session_timeout_s=8, commit_timeout_s=5)
    stock(settings)
    with RoleProcess("worker", settings, tmp_path) as worker:
        worker.ready()
        traffic = Traffic(settings, _EVENTS, _RATE, seed)
        traffic.start()
        for _ in range(3):
            time.sleep(rng.uniform(0.3, 1.5))
            worker.kill()
            worker.start()
            worker.ready()
        traffic.join()
        wait_until_consumed(settings)
        settle(worker)

        check_everything(settings, traffic.oracle)
        check_side_outputs(settings, traffic)


@pytest.mark.timeout(420)
def test_a_worker_that_sleeps_a_minute_changes_nothing(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """SIGSTOP for 60 s while another worker takes over, then SIGCONT: what the sleeper does late is void."""
    settings = settings_for(partitions=4, kafka_session_timeout_s=8, commit_timeout_s=5)
    stock(settings)
    with RoleProcess("worker", settings, tmp_path, "sleeper") as sleeper:
        sleeper.ready()
        traffic = Traffic(settings, 5_000, 500, seed=3)
        traffic.start()
        time.sleep(3)
        sleeper.signal(signal.SIGSTOP)
        asleep = time.monotonic()
        with RoleProcess("worker", settings, tmp_path, "heir") as heir:
            heir.ready()
            traffic.join()
            wait_until_consumed(settings)
            settle(heir)
            before = check_everything(settings, traffic.oracle)
            time.sleep(max(0.0, 60 - (time.monotonic() - asleep)))
            sleeper.signal(signal.SIGCONT)
            # Long enough to wake, try its commit, be fenced, hear from the group and share the partitions again.
            time.sleep(15)
            after = check_everything(settings, traffic.oracle)

            assert sleeper.alive, sleeper.tail()
            assert {user: before.applied(user) for user in before.last} == {
                user: after.applied(user) for user in after.last
            }

            more = Traffic(settings, 500, 500, seed=4)
            more.oracle = traffic.oracle
            more.start()
            more.join()
            wait_until_consumed(settings)
            settle(heir)
            settle(sleeper)

            check_everything(settings, traffic.oracle)


def settle(worker: RoleProcess, timeout_s: float = 60.0) -> None:
    """Wait until a worker owes no list, neither to the topic nor to Redis, and has committed its last one."""
    end = time.monotonic() + timeout_s
    quiet = 0
    while quiet < 5:
        assert time.monotonic() < end, "lists are still owed"
        owed = worker.metric("freshet_dirty_users") + worker.metric("freshet_cache_owed")
        quiet = quiet + 1 if owed == 0 else 0
        time.sleep(0.2)
