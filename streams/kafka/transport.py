"""
A batched transport for Faust: one agent event is one partition's run of records.

Stock Faust pays 70 to 100 microseconds a record before the agent sees it: four asyncio tasks to stay interruptible,
a decode, a queue, an acknowledgement. This transport pays that once a run. It plugs in through Faust's own entry
point (`faust.transports`), so an app uses it by its broker address::

    app = faust.App("shop", broker="freshet://127.0.0.1:9092", stream_wait_empty=False)


    @app.agent(batched_topic(app, "clicks", "views"))
    async def fold(runs):
        async for run in runs:
            for record in run.records:
                ...  # key, value, offset, timestamp as bytes and ints
            run.done()

Contract
--------
1. Records of one partition arrive in offset order, each run from one partition.
2. A newly assigned partition is held: nothing is handed over until `Consumer.release` names it.
3. A run counts as buffered until `run.done()`; a partition with two buffered runs is not fetched further, and
   above `max_buffered_runs` none is. Waiting ends as soon as a run is done.
4. The transport commits nothing. Offsets belong to the caller, who commits them with what they caused.
5. After a rebalance no run of the former generation is handed over; the caller seeks to where it wants to go on.
6. Topics not made by `batched_topic` are delivered record by record, as by stock Faust.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from packaging.version import Version

from streams.errors import UnsupportedFaustError

#: What the overrides below were read against; both bounds are checked when a transport is made.
_CHECKED = {"faust-streaming": ("0.15.3", "0.16"), "aiokafka": ("0.14.0", "0.15")}

#: One run being folded and one ready behind it keep the worker busy; more would only age in memory.
_RUNS_PER_PARTITION = 2

#: Longest long poll at the broker. Records end it at once; it only bounds how long a partition that has been drained
#: in the meantime waits to join the next request (Faust's 1,500 ms would be seen in freshness).
_FETCH_MAX_WAIT_MS = 100

#: While records of one partition wait to be taken over, no other partition of that broker is fetched for so long:
#: topics then advance together even when the event loop is busy. aiokafka's own 0.1 s let one topic run hundreds of
#: records ahead under load. It also is how long a held partition can delay the others, once, after a rebalance.
_PREFETCH_BACKOFF_S = 1.0

#: How long one call waits for records, and how long while some partition is left out and may come back.
_POLL_S = 1.0
_POLL_CROWDED_S = 0.02


class Run:
    """
    Consecutive records of one partition.

    Attributes
    ----------
    records
        aiokafka's own records (attributes `offset`, `timestamp`, `key`, `value`, `headers`), in offset order.
    generation
        The group generation they were fetched under.

    """

    __slots__ = ("_done", "generation", "partition", "records", "topic")

    def __init__(
        self,
        topic: str,
        partition: int,
        records: Sequence[Any],
        generation: int = 0,
        done: Callable[[Run], None] | None = None,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.records = records
        self.generation = generation
        self._done = done

    @property
    def tp(self) -> TP:
        """Topic and partition."""
        return TP(self.topic, self.partition)

    def done(self) -> None:
        """Give the run's room back; may be called once or more."""
        if self._done is not None:
            done, self._done = self._done, None
            done(self)


class _RunSchema(faust.Schema):  # type: ignore[misc]  # Faust ships no types
    """Hands a run to the agent as it is: bytes are decoded by the agent, for a whole run at once."""

    def compile(self, app: Any, **_: Any) -> Callable[..., Awaitable[Any]]:
        async def decode(message: Any, *, propagate: bool = False) -> Any:
            del propagate
            return app.create_event(None, message.value, {}, message)

        return decode


def batched_topic(app: faust.App, *names: str) -> Any:
    """
    Return a Faust topic over `names` whose agent receives `Run`s; acknowledgements are off for it.

    Raises
    ------
    UnsupportedFaustError
        When the app's broker is not a `freshet://` address, so that runs would never come.

    """
    if not isinstance(app.transport, Transport):
        raise UnsupportedFaustError("a batched topic needs the broker address freshet://host:port")
    app.transport.batched.update(names)
    return app.topic(*names, schema=_RunSchema(key_type=bytes, value_type=bytes), acks=False)


class _ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # Faust ships no types
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust has no setting for the first, and ties the second to its own, defective transactions.
        consumer._fetch_max_wait_ms = _FETCH_MAX_WAIT_MS  # noqa: SLF001
        consumer._isolation_level = "read_committed"  # noqa: SLF001
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        self._ensure_consumer()._fetcher._prefetch_backoff = _PREFETCH_BACKOFF_S  # noqa: SLF001


class Consumer(driver.Consumer):  # type: ignore[misc]  # Faust ships no types
    """Faust's consumer with the drain loop replaced; see the module's contract."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._held: set[TP] = set()
        self._buffered_runs: Counter[TP] = Counter()
        self._read_to: dict[TP, int] = {}
        self._room = asyncio.Event()
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget what was buffered: Faust clears the agents' queues, and every run of this generation is void."""
        self._held.update(revoked)
        self._buffered_runs.clear()
        self._read_to.clear()
        self._room.set()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Hold every batched partition before Faust resumes the flow."""
        self._held = {tp for tp in assigned if tp.topic in self.transport.batched}
        await super().on_partitions_assigned(assigned, generation_id)

    async def release(self, offsets: dict[TP, int]) -> None:
        """Let the held partitions in `offsets` flow, each from its offset."""
        for tp in offsets:
            self._read_to.pop(tp, None)
        await self.seek_wait(offsets)
        self._held.difference_update(offsets)
        self._room.set()

    def hold(self, tps: Iterable[TP]) -> None:
        """Stop handing over runs of these partitions until they are released."""
        self._held.update(tps)

    def remaining(self, tp: TP, next_offset: int, known_end: int) -> int:
        """
        Return how many offsets from `next_offset` on are known to hold committed records not handed over yet.

        `known_end` is an end offset that the caller knows of; the newest fetch may know a later one. Offsets of
        transaction markers count until they have been read past.
        """
        consumer = self._thread._ensure_consumer()  # noqa: SLF001 -- Faust passes on the uncommitted end only
        if tp in consumer.assignment():
            known_end = max(known_end, consumer.last_stable_offset(tp) or 0)
        if not self._buffered_runs[tp]:
            next_offset = max(next_offset, self._read_to.get(tp, 0))
        return max(0, known_end - next_offset)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """
        Keep Faust's livelock detector off batched partitions.

        It judges by acknowledgements and per-event times that a run does not have, and raises or cries wolf in
        rebalances (faust-streaming #166, #175, #446, #640); progress is watched by `freshet_lag_seconds` instead.
        """
        if tp.topic not in self.transport.batched:
            super().verify_event_path(now, tp)

    def _run_done(self, run: Run) -> None:
        if run.generation == self.app.consumer_generation_id and self._buffered_runs[run.tp] > 0:
            self._buffered_runs[run.tp] -= 1
            self._room.set()

    def _fetchable(self) -> tuple[set[TP], bool]:
        """Return the partitions to fetch from, and whether some are left out that may come back soon."""
        active = self._get_active_partitions() - self._held
        if sum(self._buffered_runs.values()) >= self.transport.max_buffered_runs:
            return set(), True
        full = {tp for tp, runs in self._buffered_runs.items() if runs >= _RUNS_PER_PARTITION}
        return active - full, bool(full)

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):  # noqa: SLF001 -- upstream's own test
                if not self.flow_active:
                    await self.wait(self.can_resume_flow)
                await self._hand_over()
                await asyncio.sleep(0)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise

    async def _hand_over(self) -> None:
        """Fetch once and hand every partition's records over as a run."""
        self._room.clear()
        active, crowded = self._fetchable()
        if not active:
            await self._wait_for_room()
            return
        self.not_waiting_next_records.clear()
        try:
            fetched = await self._getmany(active, _POLL_CROWDED_S if crowded else _POLL_S)
        finally:
            self.not_waiting_next_records.set()
        generation = self.app.consumer_generation_id
        for tp, records in (fetched or {}).items():
            if not self.flow_active or generation != self.app.consumer_generation_id:
                # A rebalance follows, and with it a release that seeks: what is left here is fetched again.
                return
            key = TP(tp.topic, tp.partition)
            if key.topic in self.transport.batched:
                if key not in self._held:
                    await self._deliver_run(key, records, generation)
            else:
                for record in records:
                    await self.wait_first(self.callback(self._to_message(key, record)), self.suspend_flow.wait())

        self._note_positions(active)

    def _note_positions(self, active: Iterable[TP]) -> None:
        """Note how far each partition was read: only the fetch just handed over moves that, markers included."""
        assignment = self._thread._ensure_consumer()._subscription.subscription.assignment  # noqa: SLF001 -- no API
        for tp in active:
            state = assignment.state_value(tp)
            if state is not None and state.has_valid_position:
                self._read_to[tp] = state.position

    async def _wait_for_room(self) -> None:
        try:
            await asyncio.wait_for(self._room.wait(), _POLL_S)
        except TimeoutError:
            return

    async def _deliver_run(self, tp: TP, records: Sequence[Any], generation: int) -> None:
        last = records[-1]
        run = Run(tp.topic, tp.partition, records, generation, self._run_done)
        self._buffered_runs[tp] += 1
        self.app.monitor.track_tp_end_offset(tp, last.offset)
        message = ConsumerMessage(
            tp.topic, tp.partition, last.offset, last.timestamp / 1000.0, last.timestamp_type, (), None, run,
            None, 0, 0, tp, generation_id=generation,
        )  # fmt: skip
        await self.wait_first(self.callback(message), self.suspend_flow.wait())


class Transport(driver.Transport):  # type: ignore[misc]  # Faust ships no types
    """Faust's aiokafka transport with the batched consumer; the scheme is `freshet://`."""

    Consumer = Consumer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_versions()
        self.batched: set[str] = set()
        self.max_buffered_runs = 32
        super().__init__(*args, **kwargs)


def check_versions() -> None:
    """
    Refuse versions of Faust and aiokafka that the overrides were not checked with.

    Raises
    ------
    UnsupportedFaustError
        Naming the package and the range.

    """
    for package, (lowest, above) in _CHECKED.items():
        installed = Version(version(package))
        if not Version(lowest) <= installed < Version(above):
            raise UnsupportedFaustError(
                f"{package} {installed} is installed; the batched transport was checked with >={lowest},<{above}"
            )
    for owner, name in (
        (driver.Consumer, "_drain_messages"),
        (driver.Consumer, "_get_active_partitions"),
        (driver.Consumer, "_getmany"),
        (driver.AIOKafkaConsumerThread, "_create_worker_consumer"),
    ):
        if not hasattr(owner, name):
            raise UnsupportedFaustError(f"Faust's {owner.__name__} has no {name}; the batched transport replaces it")
