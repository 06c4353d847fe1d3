"""Faust's consumer, with runs in place of records for batched topics; the contract is in the package's docstring."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.errors import InstanceFencedError, UnsupportedFaustError
from streams.kafka.transport.membership import tell_fenced
from streams.kafka.transport.runs import Ledger, Run
from streams.kafka.transport.thread import ConsumerThread

#: One run being folded and one ready behind it keep the worker busy; more would only age in memory.
_RUNS_PER_PARTITION = 2

#: How long one call waits for records while some partition is left out that may come back at any time.
_POLL_CROWDED_S = 0.02

#: How often a rebalance looks whether agents have ended the runs they work on.
_IN_HAND_TICK_S = 0.02


class Consumer(driver.Consumer):  # type: ignore[misc]  # Faust ships no types
    """
    Faust's consumer for the batched transport.

    Faust's drain loop, conductor and commit timer are used as they are; what it fetches and what it commits of
    batched topics is decided here.

    Attributes
    ----------
    on_out_of_range
        Called on the app's loop with a released partition of a caller that commits, and its position, when Kafka does
        not have that offset (any more): nothing is fetched from it until `go_on_from`. None lets the process go on
        silently where `consumer_auto_offset_reset` says, as other topics do.
    fenced
        Why the app crashes, when another process has taken the place of this static member; None otherwise.

    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.on_out_of_range: Callable[[TP, int], None] | None = None
        self.fenced: InstanceFencedError | None = None
        self._held: set[TP] = set()
        self._ledger = Ledger()
        self._handing_over = False
        self._read_to: dict[TP, int] = {}
        self._room = asyncio.Event()
        self._sought = False
        self._overdue: set[Run] = set()
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> Any:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def release(self, offsets: dict[TP, int]) -> None:
        """Let the held partitions in `offsets` flow, each from its offset; runs that are still out are forgotten."""
        for tp in offsets:
            self._read_to.pop(tp, None)
        await self._go_on_from(offsets)
        self._ledger.forget(offsets)
        self._held.difference_update(offsets)
        self._room.set()

    async def go_on_from(self, tp: TP, offset: int) -> None:
        """Fetch again from a partition whose position was out of range, unless it has been revoked meanwhile."""
        state = self._thread.partition_state(tp)
        if state is not None and state.paused:
            await self._go_on_from({tp: offset})

    async def _go_on_from(self, offsets: dict[TP, int]) -> None:
        states = {tp: self._thread.partition_state(tp) for tp in offsets if tp.topic in self.transport.caller_commits}
        watched = [state for tp, state in states.items() if state is not None and self._watch(tp, state)]
        await self.seek_wait(offsets)
        await self._thread.call_thread(_resume, watched)

    def _watch(self, tp: TP, state: Any) -> bool:
        """
        Have an offset that is out of range told instead of reset.

        aiokafka has no other place for it: with `auto_offset_reset="none"` it also fails partitions that it was not
        told a position of yet, and it raises one partition's error in place of all records of a fetch.
        """
        told = self.on_out_of_range
        if told is None:
            return False
        reset = type(state).await_reset

        def await_reset(strategy: int) -> None:
            # In the client's thread. What was fetched before is handed over still; the position stays.
            if state.has_valid_position:
                state.pause()
                self.app.loop.call_soon_threadsafe(told, tp, state.position)
            else:
                reset(state, strategy)

        state.await_reset = await_reset
        return True

    @property
    def arriving(self) -> bool:
        """Whether runs that were fetched are on their way to their agents."""
        return self._handing_over or any(not run.taken for run in self._ledger)

    def hold(self, tps: Iterable[TP]) -> None:
        """Stop handing over runs of these partitions until they are released."""
        self._held.update(tps)

    def remaining(self, tp: TP, next_offset: int, known_end: int) -> int:
        """
        Return how many offsets from `next_offset` on are known to hold committed records not handed over yet.

        `known_end` is an end offset that the caller knows of; the newest fetch may know a later one. Offsets of
        transaction markers count until they have been read past.
        """
        state = self._thread.partition_state(tp)
        if state is not None:
            known_end = max(known_end, state.lso or 0)
        if not self._ledger.out(tp):
            next_offset = max(next_offset, self._read_to.get(tp, 0))
        return max(0, known_end - next_offset)

    async def subscribe(self, topics: Iterable[str]) -> None:
        """
        Subscribe, once no batched topic has a second agent; a static member that is replaced crashes the app.

        Raises
        ------
        UnsupportedFaustError
            When one has: both would be given the same run, and the faster one's `done()` would speak for both.

        """
        for name in sorted(self.transport.batched):
            if sum(name in channel.topics for channel in self.app.topics) > 1:
                raise UnsupportedFaustError(f"the batched topic {name} has more than one agent or stream")
        if instance_id := self.app.conf.consumer_group_instance_id:
            coordinator = self._thread._ensure_consumer()._coordinator  # noqa: SLF001 -- no API
            tell_fenced(coordinator, instance_id, lambda: self._instance_fenced(instance_id))
        await super().subscribe(topics)

    def _instance_fenced(self, instance_id: str) -> None:
        # In the client's thread. aiokafka then fails with an error that it has no name for, and the app crashes.
        self.fenced = InstanceFencedError(
            f"another process has joined the group {self.app.conf.id} with the same instance id {instance_id}"
        )
        self.log.error("%s", self.fenced)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let agents end the runs in their hands, commit what is done, forget the rest: it is fetched again."""
        self._held.update(self._batched(revoked))
        self._sought = False
        await super().on_partitions_revoked(revoked)
        if not self.app.should_stop:
            # Faust's own last commit is left out while another is under way, or without `stream_wait_empty`.
            await self._commit_runs()
        self._ledger.forget()
        self._read_to.clear()
        self._overdue.clear()
        self._room.set()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Hold every batched partition before Faust resumes the flow."""
        self._held = self._batched(assigned)
        self._sought = False
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Seek to the committed offsets, as Faust does at the end of a rebalance."""
        generation = self.app.consumer_generation_id
        await super().perform_seek()
        self._sought = generation == self.app.consumer_generation_id

    def resume_flow(self) -> None:
        """
        Resume; after the seek that ends a rebalance, partitions flow that no caller releases.

        Not sooner: with tables Faust resumes for their recovery first, and clears the agents' queues each time.
        """
        super().resume_flow()
        if self._sought:
            self._held = {tp for tp in self._held if tp.topic in self.transport.caller_commits}
        self._room.set()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Resume fetching from partitions, at once."""
        super().resume_partitions(tps)
        self._room.set()

    def _batched(self, tps: Iterable[TP]) -> set[TP]:
        return {tp for tp in tps if tp.topic in self.transport.batched}

    async def getmany(self, timeout: float) -> AsyncIterator[Any]:  # noqa: ASYNC109 -- Faust's signature
        """Fetch once; hand runs over here, and give Faust's drain loop the records of all other topics."""
        if self.app.client_only:
            async for item in super().getmany(timeout):
                yield item
            return
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        generation = self.app.consumer_generation_id
        wanted, fetched = await self._fetch(timeout)
        single = {tp: records for tp, records in fetched.items() if tp.topic not in self.transport.batched}
        self._handing_over = True
        try:
            for tp, records in fetched.items():
                self._note_end(tp)
                if tp not in single and not await self._hand_over(tp, records, generation):
                    return
        finally:
            self._handing_over = False
        self._note_positions(wanted)
        active = self._get_active_partitions()
        for tp, record in self.scheduler.iterate(single):
            if not self.flow_active or generation != self.app.consumer_generation_id:
                return
            if tp in active or tp in self._buffered_partitions:
                yield tp, self._to_message(tp, record)

    async def _fetch(self, wait_s: float) -> tuple[set[TP], dict[TP, Sequence[Any]]]:
        """Return the partitions asked for, and the records that came."""
        self._room.clear()
        wanted, crowded = self._fetchable()
        if not wanted:
            await self._wait_for_room(wait_s)
            return set(), {}
        self.not_waiting_next_records.clear()
        try:
            fetched = await self._getmany(wanted, _POLL_CROWDED_S if crowded else wait_s)
        finally:
            self.not_waiting_next_records.set()
        named = {TP(tp.topic, tp.partition): records for tp, records in fetched.items()}
        # What was held while the fetch was under way is dropped, now: its release seeks, and comes after this.
        return wanted - self._held, {tp: records for tp, records in named.items() if tp not in self._held}

    def _fetchable(self) -> tuple[set[TP], bool]:
        """Return the partitions to fetch from, and whether some are left out that may come back soon."""
        active = self._get_active_partitions() - self._held
        if len(self._ledger) >= self.transport.max_buffered_runs:
            return {tp for tp in active if tp.topic not in self.transport.batched}, True
        full = {tp for tp in active if len(self._ledger.out(tp)) >= _RUNS_PER_PARTITION}
        return active - full, bool(full or self._held)

    async def _wait_for_room(self, wait_s: float) -> None:
        try:
            await asyncio.wait_for(self._room.wait(), wait_s)
        except TimeoutError:
            return

    async def _hand_over(self, tp: TP, records: Any, generation: int) -> bool:
        """Put a run into its agent's queue; False after a rebalance, which has it fetched again."""
        run = Run(tp.topic, tp.partition, records, generation, self._run_done)
        last = records[-1]
        message = ConsumerMessage(
            tp.topic, tp.partition, last.offset, last.timestamp / 1000.0, 0, (), None, run,
            None, 0, 0, tp, generation_id=generation,
        )  # fmt: skip
        noted = False
        while True:
            if not self.flow_active:
                await self.wait(self.can_resume_flow)
            if self.should_stop or generation != self.app.consumer_generation_id:
                return False
            if not noted:
                self._ledger.add(run)
                noted = True
            delivery = self.callback(message)
            ended = await self.wait_first(delivery, self.suspend_flow.wait())
            if delivery in ended.done:
                return True

    def _note_end(self, tp: TP) -> None:
        """Tell Faust's monitor the end of a partition, once a fetch; it is unknown while a rebalance is under way."""
        state = self._thread.partition_state(tp)
        if state is not None and state.highwater is not None:
            self.app.monitor.track_tp_end_offset(tp, state.highwater)

    def _note_positions(self, tps: Iterable[TP]) -> None:
        """Note how far each partition was read: only the fetch just handed over moves that, markers included."""
        for tp in tps:
            state = self._thread.partition_state(tp)
            if state is not None and state.has_valid_position:
                self._read_to[tp] = state.position

    def _run_done(self, run: Run) -> None:
        self._ledger.settle(run)
        self._room.set()

    async def wait_empty(self) -> None:
        """Wait for the runs that agents are working on, half of the group's patience at most; then as Faust does."""
        end = time.monotonic() + self.app.conf.broker_rebalance_timeout / 2
        while self._any_in_hand() and time.monotonic() < end and not (self.should_stop or self.app.crashed):
            await self.sleep(_IN_HAND_TICK_S)
        await super().wait_empty()

    def _any_in_hand(self) -> bool:
        caller_commits = self.transport.caller_commits
        return any(run.in_hand and not run.finished and run.topic not in caller_commits for run in self._ledger)

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: FBT001, FBT002 -- Faust's
        """Commit the acknowledged records of other topics as Faust does, and what is done of batched ones."""
        committed = await super().force_commit(topics, start_new_transaction)
        return await self._commit_runs(topics) or bool(committed)

    async def _commit_runs(self, topics: Any = None) -> bool:
        """
        Commit what is done of topics whose caller does not; True if Kafka has confirmed it.

        No flush: `Run.done` said that what the run caused is durable. An offset that was not confirmed is tried again.
        """
        owned = self.assignment()
        offsets = {
            tp: offset
            for tp, offset in self._ledger.to_commit().items()
            if tp in owned
            and tp.topic not in self.transport.caller_commits
            and (topics is None or tp in topics or tp.topic in topics)
        }
        if not offsets or not await self._commit(offsets):
            return False
        self._ledger.committed(offsets)
        self.app.monitor.on_tp_commit(offsets)
        return True

    async def verify_all_partitions_active(self) -> None:
        """Look for agents that stand still; there is nothing to look at before the client has started."""
        if self._thread._consumer is not None:  # noqa: SLF001 -- Faust's thread raises when asked
            await super().verify_all_partitions_active()

    def verify_event_path(self, now: float, tp: TP) -> None:
        """
        Report a run that is not done for longer than `stream_processing_timeout`, once; other topics as Faust does.

        Faust's detector judges by acknowledgements and per-event times that a run does not have, and cries wolf about
        idle partitions and in rebalances. A process that was paused finds every run overdue when it wakes: only what
        is still there at the next look is reported.
        """
        if tp.topic not in self.transport.batched:
            super().verify_event_path(now, tp)
            return
        oldest = next(iter(self._ledger.out(tp)), None)
        patience_s = self.app.conf.stream_processing_timeout
        if oldest is None or now - oldest.made_at_s < patience_s:
            return
        if oldest not in self._overdue:
            self._overdue = {run for run in self._overdue if not run.finished} | {oldest}
        elif not oldest.reported:
            oldest.reported = True
            self.log.error(
                "%s/%s stands still: the run from offset %s on is not done for more than %s s "
                "(the agent hangs or raised, or done() is missing)",
                tp.topic, tp.partition, oldest.records[0].offset, patience_s,
            )  # fmt: skip


async def _resume(states: Iterable[Any]) -> None:
    for state in states:
        state.resume()
