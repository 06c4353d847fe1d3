"""
Workers in one thread on a model of Kafka: every await and every thread hop is a step that a schedule may delay.

Real are the owner, the alignment, the partition of the interest worker with its states and their records; modelled
are Kafka (`tests.support.kafka_model`), the threads (jobs that wait until a schedule runs them) and ranking (lists
that hold nothing but what they have seen). Any number of workers may believe that they own the one partition.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future
from typing import Any, cast

import orjson

from streams.catalogue.matrix import Catalogue
from streams.errors import CommitError, FencedError
from streams.interests.state import LastList
from streams.kafka import owner as owner_module
from streams.kafka.deadline import Deadline
from streams.kafka.outgoing import OutRecord
from streams.kafka.owner import Owner
from streams.kafka.transport import Record
from streams.kafka.work import Kept
from streams.refresh.dirty import Cause
from streams.refresh.partition import InterestPartition
from streams.settings import Settings
from tests.support.kafka_model import Fate, KilledError, ModelKafka, ModelTransactions
from tests.support.records import run_of_records

TOPICS = ("views", "clicks", "purchases")
LATENESS_MS = 60_000
#: Two of three users fit into the columns: the third is kept as its record, by turns.
SETTINGS = Settings(lateness_s=LATENESS_MS / 1000, partitions=1).model_copy(update={"max_hot_users": 2})
TRANSACTIONAL_ID = "freshet-interest-0"
START_MS = 1_800_000_000_000

#: Turns of the loop until what one finished job wakes has come to rest: three for a future of a thread, four more for
#: a wait with a deadline, one to spare.
_TURNS = 8


class Jobs(Executor):
    """An executor whose jobs wait until a schedule runs them."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Let a job wait."""
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run_one(self) -> None:
        """
        Run the job that waits longest.

        Raises
        ------
        KilledError
            When the process died in it.

        """
        future, call = self.waiting.popleft()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(call())
        except KilledError:
            future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 -- raised again where the future is awaited
            future.set_exception(error)


class Lists:
    """`Refresh` without a catalogue: a list says how far its worker had folded when the list was begun."""

    def __init__(self) -> None:
        self.owed: dict[str, Cause] = {}
        self._ranking: list[tuple[InterestPartition, str, int, OutRecord]] = []

    def mark(self, partition: InterestPartition, user_id: str, cause: Cause) -> None:
        """Owe a list."""
        del partition
        self.owed[user_id] = cause

    def took(self, partition: InterestPartition) -> None:
        """Look after nothing."""
        del partition

    def forget(self, partition: InterestPartition) -> None:
        """Owe nothing."""
        del partition
        self.owed.clear()

    def owes(self, user_ids: Sequence[str]) -> list[bool]:
        """Whether a list waits or is being ranked."""
        ranking = {user_id for _, user_id, _, _ in self._ranking}
        return [user_id in self.owed or user_id in ranking for user_id in user_ids]

    def erase(self, partition: InterestPartition, user_id: str, version: int) -> None:
        """Drop what is owed and what is being ranked; there is no cache that would have to forget."""
        del partition, version
        self.owed.pop(user_id, None)
        self._ranking = [ranked for ranked in self._ranking if ranked[1] != user_id]

    def begin(self, partition: InterestPartition, count: int) -> None:
        """Take users and copy what their lists are made from."""
        seen = dict(partition.owner.consumed)
        for user_id in list(self.owed)[:count]:
            del self.owed[user_id]
            version = partition.next_version()
            value = orjson.dumps({"version": version, "seen": seen})
            record = OutRecord("recommendations", user_id.encode(), value, 0)
            self._ranking.append((partition, user_id, version, record))

    def end(self, partition: InterestPartition) -> None:
        """Publish what was begun; what was begun for a state that was let go is void."""
        ranked = [(user_id, version, record) for of, user_id, version, record in self._ranking if of is partition]
        self._ranking = []
        if partition.closed:
            return
        partition.owner.send([record for _, _, record in ranked])
        for user_id, version, _ in ranked:
            # Sending may be how the worker hears that it was fenced; then the users are gone already.
            if (row := partition.slab.row(user_id)) is not None:
                partition.slab.serve(row, LastList(version, START_MS, (), START_MS, 0, ()))


class SimulatedWorker:
    """One process: it may own the partition, believe so wrongly, sleep between any two steps, or die."""

    def __init__(self, kafka: ModelKafka, loop: asyncio.AbstractEventLoop, clock_ms: Callable[[], int]) -> None:
        self.owner: Owner | None = None
        self.kept: Kept | None = None
        self.lists = Lists()
        self.transactions: ModelTransactions
        self._kafka = kafka
        self._loop = loop
        self._clock_ms = clock_ms
        self._jobs = Jobs()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fetched: dict[str, int] = {}
        self._leaving = False
        self._doomed = False
        self._stepping = False

    @property
    def busy(self) -> bool:
        """Whether a step waits."""
        return bool(self._jobs.waiting)

    @property
    def partition(self) -> InterestPartition:
        """The state it keeps."""
        assert self.owner is not None
        return cast("InterestPartition", self.owner.work)

    def take(self) -> None:
        """
        Begin to take the partition; three or more steps end it.

        What was kept is offered, however long ago it was and whoever had the partition since.
        """
        kept, self.kept = self.kept, None
        owner = Owner(
            SETTINGS, "interest", 0, TOPICS, self._work, kept, self._jobs, self._remaining,
            lambda owner, _: self._drop(owner), lambda: dict.fromkeys(TOPICS, "the only one"),
        )  # fmt: skip
        self.transactions = ModelTransactions(self._kafka, TRANSACTIONAL_ID, owner.work.changelog, self._clock_ms)
        owner._transactions = self.transactions  # type: ignore[assignment]  # the model has the same methods
        self.owner = owner
        self._leaving = False
        self._spawn(owner, self._take(owner))

    def _work(self) -> InterestPartition:
        counts = {"clicks": 1, "item-events": 1}
        return InterestPartition(SETTINGS, 0, counts, Catalogue(dim=2), self.lists, clock=lambda: START_MS / 1000)

    async def _take(self, owner: Owner) -> None:
        await owner.take()
        # A fetch position may lie below the committed offset: what was committed must fall away.
        self._fetched = {topic: max(0, offset - offset % 7) for topic, offset in owner.consumed.items()}

    def step(self) -> None:
        """Run one waiting job and everything it wakes; a process that dies in it is dead at once."""
        if self._stepping or not self.busy:
            return
        self._stepping = True
        try:
            self._jobs.run_one()
        except KilledError:
            self.kill()
        else:
            self._settle()
        finally:
            self._stepping = False

    def fetch(self, topic: str, count: int) -> None:
        """Hand the next records of a topic to the owner, as the transport would."""
        owner = self.owner
        if owner is None or topic not in self._fetched:
            return
        start = self._fetched[topic]
        entries = self._kafka.read(topic, start)[:count]
        if not entries:
            return
        self._fetched[topic] = entries[-1].at + 1
        records = [Record(entry.at, entry.timestamp, entry.sent_key, entry.sent_value) for entry in entries]
        try:
            owner.push(run_of_records(topic, records))
        except FencedError:
            self._drop(owner)

    def commit(self, fate: Fate) -> None:
        """Begin a commit; the next step meets its fate."""
        if self.owner is not None and self.owner.state in {"catching_up", "live"}:
            self.transactions.fate = fate
            self._spawn(self.owner, self.owner.commit(Deadline(SETTINGS.commit_timeout_s)))

    def leave(self) -> None:
        """Begin to give the partition up as told by the group: a last commit, then let go; the state is kept."""
        if self.owner is not None and not self._leaving:
            self._leaving = True
            self._spawn(self.owner, self._leave(self.owner))

    async def _leave(self, owner: Owner) -> None:
        self.kept = await owner.release(Deadline(SETTINGS.commit_timeout_s))
        self._drop(owner)

    def kill(self) -> None:
        """End as by SIGKILL: nothing more is said to anybody."""
        for task in self._tasks:
            task.cancel()
        self._jobs.waiting.clear()
        self._settle()
        self._jobs.waiting.clear()
        self.owner = self.kept = None
        self.lists = Lists()
        self._fetched = {}

    def _spawn(self, owner: Owner, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except FencedError:
                self._drop(owner)
            except CommitError:
                # The real process ends with a reason: no more than a kill that had time to say so.
                self._doomed = True

        task = self._loop.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._settle()

    def _drop(self, owner: Owner) -> None:
        owner.close()
        if self.owner is owner:
            self.owner = None
            self._fetched = {}

    def _remaining(self, topic: str, next_offset: int, known_end: int) -> int:
        return max(0, max(known_end, self._kafka.stable_end(topic)) - next_offset)

    def _settle(self) -> None:
        for _ in range(_TURNS):
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()
        if self._doomed:
            self._doomed = False
            self.kill()


class Shop:
    """
    Seeded events of three users: time goes on, disorder stays within lateness, some records are bad.

    Attributes
    ----------
    sent
        Topic to what stands at each offset: the event, None for a bad record.

    """

    def __init__(self, kafka: ModelKafka, seed: int) -> None:
        self.now_ms = START_MS
        self.sent: dict[str, list[dict[str, Any] | None]] = {topic: [] for topic in TOPICS}
        self._kafka = kafka
        self._rng = random.Random(seed)
        self._number = 0

    def produce(self, count: int) -> None:
        """Append new events; one in thirty is bad."""
        rng = self._rng
        for _ in range(count):
            # 700 ms a gap make some thirty events of a user within lateness: below the 256 that stay exact.
            self.now_ms += rng.randrange(1_400)
            topic = rng.choices(TOPICS, (60, 30, 10))[0]
            self._number += 1
            event = {
                "event_id": f"e{self._number}",
                "user_id": f"u{min(rng.randrange(3), rng.randrange(3))}",
                "item_id": f"i{min(rng.randrange(12), rng.randrange(12))}",
                "ts": self.now_ms - rng.randrange(LATENESS_MS - 10_000),
            }
            self._append(topic, event, bad=rng.random() < 1 / 30)

    def repeat(self, count: int) -> None:
        """Append copies of records sent before, as a producer does that was not told of its success."""
        for _ in range(count):
            topic = self._rng.choice(TOPICS)
            if self.sent[topic] and (event := self._rng.choice(self.sent[topic])) is not None:
                self._append(topic, event, bad=False)

    def _append(self, topic: str, event: dict[str, Any], *, bad: bool) -> None:
        value = orjson.dumps({**event, "ts": "yesterday"} if bad else event)
        self._kafka.append(topic, str(event["user_id"]).encode(), value, self.now_ms)
        self.sent[topic].append(None if bad else event)


def restored_from(kafka: ModelKafka) -> Callable[..., dict[int, int]]:
    """Return what stands for `read_to_end` while a job of the simulation runs."""

    def read(_settings: Settings, topic: str, _partitions: list[int], on_messages: Any, *_: Any) -> dict[int, int]:
        kafka.let_others()
        if messages := kafka.read(topic, 0):
            on_messages(messages)
        return {0: kafka.stable_end(topic)}

    return read


#: The name that the simulation replaces: `with patch.object(READ_AT, READ_NAME, restored_from(kafka))`.
READ_AT, READ_NAME = owner_module, "read_to_end"
