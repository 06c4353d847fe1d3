"""
Faults as data: a row says what is broken and what must hold, a scene is where it happens.

Every row ends the same way: what was broken is mended, and topics and Redis are held against the oracle.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import pytest

from streams.local.kafka import LocalKafka
from streams.local.redis import LocalRedis
from streams.settings import Settings
from streams.signals.routing import item_partitions
from streams.wire.dead_letters import DeadLetter
from streams.wire.signals import decode_item_events
from tests.support.oracle import Oracle
from tests.support.proxy import Proxy
from tests.support.roles import RoleProcess
from tests.support.services import ProxiedKafka, SettingsFactory, running_kafka, running_redis
from tests.support.shop import Sent, events, producer, send, stock
from tests.support.states import check_states
from tests.support.verifier import Lists, check_everything, read_topic, wait_until_consumed

#: What a row needs for itself, because it breaks it.
Need = Literal["kafka", "redis", "kafka_proxy", "redis_proxy"]

#: A worker that is told to end has its commit's deadline; what comes after it (Faust, threads, the interpreter) is
#: over in two or three seconds on an idle machine.
EXIT_MARGIN_S = 10.0

#: Event time that goes out at once. Requests of several topics are under way together and arrive in no order: an hour
#: of event time sent in a tenth of a second would come out of order by most of an hour, which is beyond lateness.
_STEP_MS = 240_000
#: One bad record in so many: they must be in dead-letters once each, whatever happens.
_BAD_EVERY = 200
#: Short against the defaults, so that a row takes seconds: who is silent for 8 s loses its partitions.
_SETTINGS: Mapping[str, Any] = {"partitions": 4, "kafka_session_timeout_s": 8, "commit_timeout_s": 5}


@dataclass(frozen=True)
class Fault:
    """
    One row of the fault table.

    Attributes
    ----------
    row
        Its name in the table, as F3.
    name, how
        What goes wrong, and how it is made to.
    holds
        The invariants looked at.
    inject
        Breaks and mends; the checks common to all rows follow it.
    secure
        On a Kafka of its own that takes nothing but TLS and SCRAM.
    quick
        Whether it belongs to every run; the others run with `--faults`.

    """

    row: str
    name: str
    how: str
    holds: str
    inject: Callable[[Scene], None]
    needs: frozenset[Need] = frozenset()
    settings: Mapping[str, Any] = field(default_factory=dict)
    secure: bool = False
    quick: bool = False
    timeout_s: int = 300


def rows(*faults: Fault) -> pytest.MarkDecorator:
    """Return the parametrisation of a test `(fault, stage)` over rows."""
    return pytest.mark.parametrize(
        "fault",
        [
            pytest.param(
                fault,
                id=f"{fault.row}-{fault.name.replace(' ', '-').replace(',', '')}",
                marks=[
                    pytest.mark.row(fault.row, fault.name, fault.how, fault.holds),
                    pytest.mark.timeout(fault.timeout_s),
                    *([] if fault.quick else [pytest.mark.matrix]),
                ],
            )
            for fault in faults
        ],
    )


class Scene:
    """
    One namespace with a stocked shop, its processes and the oracle of what was sent.

    Attributes
    ----------
    kafka, redis, kafka_proxy, redis_proxy
        What the row asked for; None otherwise.
    bad
        Bad records sent.

    """

    def __init__(self, settings: Settings, folder: Path, stack: ExitStack) -> None:
        self.settings = settings
        self.folder = folder
        self.oracle = Oracle()
        self.bad = 0
        self.kafka: LocalKafka | None = None
        self.redis: LocalRedis | None = None
        self.kafka_proxy: Proxy | None = None
        self.redis_proxy: Proxy | None = None
        self.workers: list[RoleProcess] = []
        self._stack = stack
        # Event time goes on from call to call, so that nothing of a later one is late.
        self._next_ms = round(time.time() * 1000) - 10 * 86_400_000
        self._seed = 0

    def worker(self, name: str = "worker", module: str = "streams.cli") -> RoleProcess:
        """Start a worker and wait until it is ready."""
        process = self._stack.enter_context(RoleProcess("worker", self.settings, self.folder, name, module))
        self.workers.append(process)
        return process.ready()

    def kept(self, worker: RoleProcess) -> Keeper:
        """Start it again whenever it ends, as a pod's restart policy does, until the end of the scene."""
        return self._stack.enter_context(Keeper(worker))

    def stream(self, count: int, **options: Any) -> list[Sent]:
        """Return the next events of the shop, time going on."""
        self._seed += 1
        made = list(events(count, seed=self._seed, start_ms=self._next_ms, **options))
        # Beyond the disorder of `events`, so that two streams of one user do not mix.
        self._next_ms += (count + 400) * 1000
        return made

    def tell(self, sent: Iterable[Sent], rate: float = math.inf) -> None:
        """
        Send events, with a bad record now and then, and tell the oracle; returns when Kafka has them all.

        Parameters
        ----------
        rate
            Most events a second.

        """
        out = producer(self.settings)
        started, step_ms = time.monotonic(), 0
        for number, one in enumerate(sent):
            if (ts_ms := one.event["ts"]) > step_ms + _STEP_MS:
                assert out.flush(120) == 0
                step_ms = ts_ms
            self.put(out, one)
            if number % _BAD_EVERY == 0:
                self.put_bad(out, one)
            ahead_s = number / rate - (time.monotonic() - started)
            if ahead_s > 0.01:
                time.sleep(ahead_s)
        assert out.flush(120) == 0

    def put(self, out: Any, one: Sent) -> None:
        """Send one event and tell the oracle."""
        send(out, self.settings, one)
        self.oracle.add(one.type_name, one.event)

    def put_bad(self, out: Any, one: Sent) -> None:
        """Send one bad record."""
        send(out, self.settings, Sent(one.type_name, {**one.event, "ts": "yesterday"}))
        self.bad += 1

    def send(self, count: int = 500, **options: Any) -> None:
        """Send the next events of the shop at once."""
        self.tell(self.stream(count, **{"users": 50, **options}))

    def traffic(self, count: int, rate: float, **options: Any) -> Traffic:
        """Start to send the next events of the shop at a steady rate."""
        return self.traffic_of(self.stream(count, **{"users": 50, **options}), rate)

    def traffic_of(self, stream: Iterable[Sent], rate: float) -> Traffic:
        """Start to send a stream at a steady rate."""
        started = Traffic(self, stream, rate)
        started.start()
        return started

    @contextmanager
    def redis_silent(self) -> Iterator[None]:
        """Have the row's own Redis take connections and say nothing, until the end of the block."""
        assert self.redis is not None
        assert self.redis.process is not None
        self.redis.process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.redis.process.signal(signal.SIGCONT)

    def settle(self, timeout_s: float = 120.0) -> None:
        """Wait until every event is consumed and no worker owes a list."""
        wait_until_consumed(self.settings, timeout_s)
        for worker in self.workers:
            if worker.alive:
                settle(worker)

    def check(self) -> Lists:
        """Hold everything that can be seen from outside against the oracle."""
        lists = check_everything(self.settings, self.oracle)
        check_states(self.settings, self.oracle)
        check_side_outputs(self.settings, self.oracle, self.bad)
        return lists


class Traffic(threading.Thread):
    """Sends a stream at a steady rate and keeps the oracle beside it."""

    def __init__(self, scene: Scene, stream: Iterable[Sent], rate: float) -> None:
        super().__init__(name="traffic", daemon=True)
        self._scene = scene
        self._stream = stream
        self._rate = rate
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Send everything."""
        try:
            self._scene.tell(self._stream, self._rate)
        except BaseException as error:  # noqa: BLE001 -- raised again in the test's thread
            self._failure = error

    def join(self, timeout: float | None = None) -> None:
        """Wait until everything is sent; a failure of sending is the test's."""
        super().join(timeout)
        assert not self.is_alive(), "the traffic did not end in time"
        if self._failure is not None:
            raise self._failure


class Keeper(threading.Thread):
    """
    Starts a role again whenever it has ended.

    Attributes
    ----------
    exits
        The exit codes it has seen.

    """

    def __init__(self, role: RoleProcess) -> None:
        super().__init__(name="keeper", daemon=True)
        self.exits: list[int] = []
        self._role = role
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        """Look ten times a second."""
        while not self._over.wait(0.1):
            if not self._role.alive:
                self.exits.append(self._role.process.returncode)
                self._role.start()


def settle(worker: RoleProcess, timeout_s: float = 60.0) -> None:
    """Wait until a worker owes no list, neither to the topic nor to Redis, and has committed its last one."""
    end = time.monotonic() + timeout_s
    quiet = 0
    while quiet < 5:
        assert time.monotonic() < end, "lists are still owed"
        owed = worker.metric("freshet_dirty_users") + worker.metric("freshet_cache_owed")
        quiet = quiet + 1 if owed == 0 else 0
        time.sleep(0.2)


def check_side_outputs(settings: Settings, oracle: Oracle, bad: int) -> None:
    """Dead letters and item events: each exactly once for committed readers, item events where their item lies."""
    letters = [DeadLetter.from_record(read.headers, read.value) for read in read_topic(settings, "dead-letters")]
    places = Counter((letter.topic, letter.partition, letter.offset) for letter in letters)

    assert bad == len(letters), f"{len(letters)} dead letters of {bad} bad records"
    assert {1} >= set(places.values())
    assert {"bad_time"} >= {letter.reason for letter in letters}

    told = 0
    for read in read_topic(settings, "item-events"):
        found = decode_item_events(read.value or b"")
        told += int((item_partitions(found.ids, settings.partitions)[found.item] == read.partition).sum())

    assert told == sum(len(oracle.interactions(user)) for user in oracle.users())


@contextmanager
def staged(fault: Fault, settings_for: SettingsFactory, folder: Path) -> Iterator[Scene]:
    """Set up what a row needs, and take it down."""
    with ExitStack() as stack:
        wanted: dict[str, Any] = {**_SETTINGS, **fault.settings}
        kafka = redis = kafka_proxy = redis_proxy = None
        if fault.secure or fault.needs & {"kafka", "kafka_proxy"}:
            proxied = ProxiedKafka if "kafka_proxy" in fault.needs else LocalKafka
            kafka = stack.enter_context(
                running_kafka(folder / "kafka", secure=fault.secure or settings_for.secure, kind=proxied)
            )
            kafka_proxy = kafka.proxy if isinstance(kafka, ProxiedKafka) else None
            wanted |= kafka.settings()
        if "redis" in fault.needs:
            redis = stack.enter_context(running_redis(folder / "redis"))
            wanted["redis_url"] = redis.url
        if "redis_proxy" in fault.needs:
            redis_proxy = stack.enter_context(Proxy(int((redis or settings_for.redis).port)))
            wanted["redis_url"] = f"redis://127.0.0.1:{redis_proxy.port}/0"
        settings = settings_for(**wanted)
        stock(settings)
        scene = Scene(settings, folder, stack)
        scene.kafka, scene.redis, scene.kafka_proxy, scene.redis_proxy = kafka, redis, kafka_proxy, redis_proxy
        yield scene


def play(fault: Fault, settings_for: SettingsFactory, folder: Path) -> None:
    """Let a row happen, and check what must hold in the end."""
    with staged(fault, settings_for, folder) as scene:
        fault.inject(scene)
        scene.settle()
        scene.check()
