"""
What both streaming roles share: a Faust app on the batched transport, and the owners of its partitions.

A role gives its topics and a factory of `Work`; the runtime follows group assignments, feeds runs to owners, commits
on time, and ends the process with a reason when something that cannot be repaired happens.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faust
import structlog
import uvloop
from confluent_kafka.admin import AdminClient
from faust.types import TP

from streams import metrics
from streams.errors import (
    AssignmentError,
    ConfigurationError,
    DependencyError,
    FencedError,
    FreshetError,
)
from streams.health import HealthServer
from streams.kafka.app import HEARTBEAT_SHARE, make_app
from streams.kafka.clients import librdkafka_config
from streams.kafka.deadline import Deadline
from streams.kafka.ending import end_within
from streams.kafka.identity import topic_ids
from streams.kafka.owner import Owner, commit_wait_s
from streams.kafka.presence import watch_kafka
from streams.kafka.role import Role
from streams.kafka.transport import Run, batched_topic
from streams.kafka.work import Kept
from streams.settings import Settings

_LOG = structlog.get_logger(__name__)

#: Taking and committing wait for the broker, not for a core; eight at once keep a worker of many partitions moving.
_THREADS = 8
#: How long a thread that comes back from compiled code may wait for another to let go of the interpreter. Ranking comes
#: back some five times a batch: at 1,000 lists a second a batch of 30 took 22 ms with Python's own 5 ms, 16 with this.
_SWITCH_S = 0.0005
#: How often buffered runs that wait for a lagging topic are looked at again, and the loop's heartbeat is written.
_TICK_S = 0.05
#: A loop that did not tick for this long is stuck: one run or one gather takes well under a second.
_LOOP_STUCK_S = 15.0
#: What ending may take beyond the last commit's deadline: leaving the group and closing clients take a second or two.
#: With 20 s for the commit it is over well within a pod's grace period of 45 s.
_END_S = 5.0


class Runtime:
    """Runs a role until SIGTERM, SIGINT or a failure."""

    def __init__(self, settings: Settings, role: Role) -> None:
        self.settings = settings
        self.owners: dict[int, Owner] = {}
        self._role = role
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="partition")
        self._failure: asyncio.Future[None]
        self._app: faust.App
        self._admin = AdminClient(librdkafka_config(settings))
        self._faust_dir: tempfile.TemporaryDirectory[str]
        self._tasks: set[asyncio.Task[None]] = set()
        self._takes: dict[Owner, asyncio.Task[None]] = {}
        self._kept: dict[int, Kept] = {}
        self._kept_until = 0.0
        self._rebalancing = True
        self._last_tick = time.monotonic()
        self._stopping = False

    def run(self) -> None:
        """
        Block until the role has ended.

        Raises
        ------
        FreshetError
            With the reason, when it did not end by a signal.

        """
        sys.setswitchinterval(_SWITCH_S)
        try:
            uvloop.run(self._main())
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def fail(self, error: BaseException) -> None:
        """End the process for a reason that cannot be repaired here; callable on the loop only."""
        if not self._failure.done():
            _LOG.error("role_failed", error=str(error), kind=type(error).__name__)
            self._failure.set_exception(error)

    @property
    def arriving(self) -> bool:
        """Whether more that was fetched is about to be folded."""
        return bool(self._app.consumer.arriving)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine beside the others; its failure is the role's."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned_ended)
        return task

    def _spawned_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        self._failure = loop.create_future()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        health = HealthServer(self.settings, live=self._live, ready=self._ready)
        # Faust makes folders for tables on disk; this app has none.
        self._faust_dir = tempfile.TemporaryDirectory(prefix="freshet-faust-")
        self._app = make_app(self.settings, self._role.name, Path(self._faust_dir.name))
        self._app.transport.fetch_pause_s = self._role.fetch_pause_s
        self._app.on_partitions_assigned.connect(self._on_assigned, weak=False)
        self._app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        self._app.agent(batched_topic(self._app, *self._role.topics, caller_commits=True), name=self._role.name)(
            self._consume
        )
        self._app.consumer.on_out_of_range = self._on_out_of_range
        health.start()
        try:
            await self._role.start(self)
            # What is there by now stays: imports, compiled code and the catalogue are objects by the hundred thousand,
            # which every full collection would walk again, tens of milliseconds in the middle of a refresh.
            gc.collect()
            gc.freeze()
            self.spawn(self._tick())
            self.spawn(watch_kafka(self.settings, self._admin))
            await self._app.start()
            await self._stopped_or_failed(stop)
        finally:
            await self._shut_down()
            health.stop()
        if self._failure.done():
            self._failure.result()

    async def _stopped_or_failed(self, stop: asyncio.Event) -> None:
        stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        futures: set[asyncio.Future[Any]] = {stopped, self._failure}
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()

    async def _consume(self, runs: Any) -> None:
        async for run in runs:
            self._on_run(run)

    def _on_run(self, run: Run) -> None:
        owner = self.owners.get(run.partition)
        if owner is None:
            run.done()
            return
        try:
            owner.push(run)
        except FencedError as error:
            self._drop(owner, error)
        except Exception as error:  # noqa: BLE001 -- Faust would acknowledge the run and go on; the process must end
            self.fail(error)

    async def _on_assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        """Take every assigned partition, in parallel; runs are held back until it is taken."""
        numbers = {topic: {tp.partition for tp in assigned if tp.topic == topic} for topic in self._role.topics}
        first = numbers[self._role.topics[0]]
        for topic, found in numbers.items():
            if found != first:
                self.fail(
                    AssignmentError(
                        f"{topic} got partitions {sorted(found)} but {self._role.topics[0]} got {sorted(first)}: "
                        "the topics must have equal partition counts (freshet topics check)"
                    )
                )
                return
        _LOG.info("partitions_assigned", partitions=sorted(first))
        for number in sorted(first):
            self._take(number, self._kept.pop(number, None))
        # Only now: the health thread takes a worker that owns nothing, between two generations, for a ready one.
        self._rebalancing = False
        # What was kept of the others is another worker's now.
        self._let_go()

    def _on_out_of_range(self, tp: TP, position: int) -> None:
        owner = self.owners.get(tp.partition)
        if owner is not None:
            self.spawn(self._go_on_after_loss(owner, tp, position))

    async def _go_on_after_loss(self, owner: Owner, tp: TP, position: int) -> None:
        """Go on where a topic begins that Kafka has deleted unread records from; end for one that was made anew."""
        try:
            start = await owner.start_after_loss(tp.topic, position)
        except FencedError as error:
            self._drop(owner, error)
        else:
            if self.owners.get(tp.partition) is owner:
                await self._app.consumer.go_on_from(tp, start)

    def _let_go(self) -> None:
        """Drop what was kept and did not come back."""
        while self._kept:
            _, kept = self._kept.popitem()
            kept.work.close()

    def _take(self, number: int, kept: Kept | None = None) -> None:
        owner = Owner(
            self.settings, self._role.name, number, self._role.topics, lambda: self._role.work(number), kept,
            self._executor, self._remaining(number), self._drop, self._topic_ids,
        )  # fmt: skip
        self.owners[number] = owner
        self.spawn(self._own(owner))

    def _topic_ids(self) -> dict[str, str]:
        return topic_ids(self._admin, self._role.topics, Deadline(self.settings.kafka_timeout_s))

    def _remaining(self, partition: int) -> Callable[[str, int, int], int]:
        return lambda topic, next_offset, known_end: int(
            self._app.consumer.remaining(TP(topic, partition), next_offset, known_end)
        )

    async def _own(self, owner: Owner) -> None:
        """Take a partition, let it flow, commit it on time until it is closed."""
        try:
            take = self._takes[owner] = asyncio.ensure_future(owner.take())
            try:
                await take
            finally:
                del self._takes[owner]
            offsets = {TP(topic, owner.partition): offset for topic, offset in owner.consumed.items()}
            await self._app.consumer.release(offsets)
            while owner.state != "closed":
                await asyncio.sleep(self._commit_wait_s(owner))
                await owner.commit(Deadline(self.settings.commit_timeout_s))
        except FencedError as error:
            self._drop(owner, error)

    def _commit_wait_s(self, owner: Owner) -> float:
        return commit_wait_s(owner.commit_s, self._role.commit_interval_s, self.settings.commit_interval_max_s)

    def _drop(self, owner: Owner, error: FencedError) -> None:
        """
        Drop a partition that somebody else has taken, at once.

        Usually the group says so too within a heartbeat. If it does not, a worker that was late in being told took
        the partition by mistake and has left it: then it is taken again.
        """
        if self.owners.get(owner.partition) is not owner:
            owner.close()
            return
        _LOG.warning("partition_fenced", partition=owner.partition, error=str(error))
        owner.close()
        del self.owners[owner.partition]
        self._app.consumer.hold({TP(topic, owner.partition) for topic in self._role.topics})
        self.spawn(self._take_again(owner.partition, self._app.consumer_generation_id))

    async def _take_again(self, partition: int, generation: int) -> None:
        # Three heartbeats: a worker that is no longer a member has been told by then, and is in another generation.
        await asyncio.sleep(self.settings.kafka_session_timeout_s * 3 * HEARTBEAT_SHARE)
        current = self._app.consumer_generation_id == generation and not self._rebalancing and not self._stopping
        if current and partition not in self.owners:
            _LOG.warning("partition_taken_again", partition=partition)
            self._take(partition)

    async def _on_revoked(self, _app: Any, revoked: set[TP], **_: Any) -> None:
        """Commit and let go of every partition, all under one deadline."""
        self._rebalancing = True
        if revoked:
            _LOG.info("partitions_revoked", partitions=sorted({tp.partition for tp in revoked}))
        await self._release_all(Deadline(self.settings.commit_timeout_s))
        # A group that does not form again for so long has most likely given the partitions to others.
        self._kept_until = time.monotonic() + self.settings.kafka_session_timeout_s

    async def _release_all(self, deadline: Deadline) -> None:
        """
        Give every partition up, all under one deadline, and keep what may come back.

        Takes under way end at their next step and are waited for: the group forms anew only after this returns, so
        that none of them can fence the next owner.
        """
        owners, self.owners = list(self.owners.values()), {}
        takes = [self._takes[owner] for owner in owners if owner in self._takes]
        results = await asyncio.gather(*(owner.release(deadline) for owner in owners), return_exceptions=True)
        if takes:
            await asyncio.wait(takes, timeout=deadline.remaining_s())
        for owner, result in zip(owners, results, strict=True):
            if isinstance(result, FencedError):
                _LOG.warning("partition_fenced", partition=owner.partition, error=str(result))
            elif isinstance(result, BaseException):
                self.fail(result)
            elif result is not None:
                self._kept[owner.partition] = result

    async def _tick(self) -> None:
        """Write the heartbeat, look again at runs that wait for a lagging topic, tell lag and ownership."""
        topics = self._role.topics
        while True:
            await asyncio.sleep(_TICK_S)
            self._last_tick = time.monotonic()
            if self._app.crashed and not self._stopping:
                self.fail(self._crash())
            for owner in list(self.owners.values()):
                owner.pump()
                owner.check_caught_up()
            owners = list(self.owners.values())
            for topic in topics:
                lag = sum(owner.lag(topic) for owner in owners)
                metrics.LAG_RECORDS.labels(topic).set(lag)
                oldest = min((owner.newest_ts_ms[topic] for owner in owners if topic in owner.newest_ts_ms), default=0)
                metrics.LAG_SECONDS.labels(topic).set(max(0.0, time.time() - oldest / 1000) if lag and oldest else 0)
            for state in ("taking", "catching_up", "live"):
                metrics.PARTITIONS.labels(state).set(sum(owner.state == state for owner in owners))
            waits = [self._commit_wait_s(owner) for owner in owners]
            metrics.COMMIT_INTERVAL.labels(self._role.name).set(max(waits, default=self._role.commit_interval_s))
            if time.monotonic() > self._kept_until:
                self._let_go()

    def _crash(self) -> FreshetError:
        """Return what the crash of the app means to the operator."""
        if (fenced := self._app.consumer.fenced) is not None:
            return ConfigurationError(f"{fenced}: FRESHET_KAFKA_GROUP_INSTANCE_ID must differ between processes")
        return DependencyError(f"the consumer ended: {self._app.crash_reason!r}")

    async def _shut_down(self) -> None:
        """Stop under one deadline: commit, end what runs beside, leave the group; by force a little after it."""
        self._stopping = True
        end_within(self.settings.commit_timeout_s + _END_S, self._exit_code)
        deadline = Deadline(self.settings.commit_timeout_s)
        await self._release_all(deadline)
        for task in list(self._tasks):
            task.cancel()
        try:
            await self._role.stop()
            await asyncio.wait_for(self._app.stop(), deadline.remaining_s())
        except TimeoutError:
            _LOG.warning("faust_stop_timed_out", seconds=self.settings.commit_timeout_s)
        finally:
            self._faust_dir.cleanup()

    def _exit_code(self) -> int:
        """Return what a process that must be ended by force tells: its failure, or that Kafka did not let it go."""
        error = self._failure.exception() if self._failure.done() else None
        return error.exit_code if isinstance(error, FreshetError) else DependencyError.exit_code

    def _live(self) -> tuple[bool, dict[str, Any]]:
        silent_s = time.monotonic() - self._last_tick
        return silent_s < _LOOP_STUCK_S, {"loop_silent_s": round(silent_s, 3)}

    def _ready(self) -> tuple[bool, dict[str, Any]]:
        owners = list(self.owners.values())
        states = [owner.state for owner in owners]
        healthy, details = self._role.ready()
        taken = not self._rebalancing and all(state == "live" for state in states)
        counts = {state: states.count(state) for state in ("taking", "catching_up", "live")}
        restoring = {
            str(owner.partition): owner.progress.details()
            for owner in owners
            if owner.state == "taking" and owner.progress is not None
        }
        return (
            healthy and taken and not self._stopping,
            {"rebalancing": self._rebalancing, "partitions": counts, "restoring": restoring, **details},
        )


def run_role(settings: Settings, role: Role) -> None:
    """Run a streaming role; see `Runtime.run`."""
    try:
        Runtime(settings, role).run()
    except FreshetError:
        raise
    except Exception as error:
        raise FreshetError(f"{role.name} failed: {error}") from error
