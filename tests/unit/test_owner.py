"""One owned partition without a broker: what is kept of it, how long it rests, how its last commit fails."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from confluent_kafka import Message
from structlog.testing import capture_logs

from streams.errors import BrokenTransactionError, CommitError, FencedError, TopicMismatchError
from streams.kafka import owner as module
from streams.kafka.alignment import Slice
from streams.kafka.bulk_read import Progress
from streams.kafka.deadline import Deadline
from streams.kafka.outgoing import OutRecord
from streams.kafka.owner import Owner, commit_wait_s
from streams.kafka.transport import Record
from streams.kafka.work import Kept
from streams.settings import Settings
from tests.support.records import run_of_records

_CONTROL = OutRecord("user-state", b"\x00partition", b"{}", 0)


class Broker:
    """Stands where `PartitionTransactions` stands: one partition's changelog and offsets, in memory."""

    def __init__(self) -> None:
        self.end = 0
        self.offsets = {"clicks": 0}
        self.unread: set[str] = set()
        self.changelog_end: int | None = None
        self.reachable = threading.Event()
        self.reachable.set()
        self.open_waits = threading.Event()
        self.open_waits.set()
        self.produced: list[OutRecord] = []

    def __call__(self, settings: Settings, group: str, partition: int, changelog: str) -> Broker:
        """Be made, as often as owners are."""
        assert (Settings().group("interest"), 0, "user-state") == (group, partition, changelog)
        del settings
        return self

    def open(self, deadline: Deadline) -> None:
        """Wait while a test says so."""
        assert self.open_waits.wait(deadline.remaining_s())

    def committed(self, topics: Iterable[str], deadline: Deadline) -> dict[str, int]:
        """What was committed."""
        del deadline
        return {topic: self.offsets[topic] for topic in topics}

    def changelog_bounds(self, deadline: Deadline) -> tuple[int, int]:
        """Where it is now."""
        del deadline
        self.changelog_end = self.end
        return 0, self.end

    def bounds(self, topics: Iterable[str], deadline: Deadline) -> dict[str, tuple[int, int]]:
        """Where topics end."""
        del deadline
        return dict.fromkeys(topics, (0, 2))

    def produce(self, records: Iterable[OutRecord]) -> None:
        """Take records."""
        self.produced.extend(records)

    def commit(self, records: Sequence[OutRecord], offsets: Mapping[str, int], deadline: Deadline) -> None:
        """Take all, once reachable."""
        del deadline
        self.reachable.wait(5)
        self.end += len(records) + 1
        self.changelog_end = self.end
        self.offsets = dict(offsets)

    def close(self) -> None:
        """Nothing to close."""


class Count:
    """A `Work` that counts records, and what was done with it."""

    changelog = "user-state"
    waits = False

    def __init__(self) -> None:
        self.count = 0
        self.topic_ids: dict[str, str] = {}
        self.calls: list[str] = []
        self.was_opened = asyncio.Event()

    def restore(self, messages: Sequence[Message]) -> None:
        """Never met: the changelog is read by a reader that the tests replace."""

    def opened(self, owner: Owner) -> Iterable[OutRecord]:
        """Write the control record."""
        del owner
        self.calls.append("opened")
        self.was_opened.set()
        return [_CONTROL]

    def fold(self, pieces: Sequence[Slice]) -> None:
        """Count."""
        self.count += sum(len(piece.records) for piece in pieces)

    def caught_up(self) -> None:
        """Note it."""
        self.calls.append("caught_up")

    def gather(self) -> Sequence[OutRecord]:
        """One record of state."""
        self.calls.append("gather")
        return [OutRecord("user-state", b"u", str(self.count).encode(), 0)]

    def suspend(self) -> None:
        """Note it."""
        self.calls.append("suspend")

    def close(self) -> None:
        """Note it."""
        self.calls.append("close")


class Worker:
    """Makes owners of one partition on one `Broker`, as the runtime does."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.made: list[Count] = []
        self.topic_ids = {"clicks": "first"}
        self._executor = executor

    def owner(self, kept: Kept | None = None) -> Owner:
        """Make the next one."""
        return Owner(
            Settings(), "interest", 0, ["clicks"], self._make, kept, self._executor,
            self._remaining, self._fenced, lambda: self.topic_ids,
        )  # fmt: skip

    def _remaining(self, topic: str, next_offset: int, known_end: int) -> int:
        """Nothing waits anywhere: alignment is tested by itself."""
        del topic, next_offset, known_end
        return 0

    def _fenced(self, owner: Owner, error: FencedError) -> None:
        raise AssertionError(f"partition {owner.partition} was not fenced: {error}")

    def _make(self) -> Count:
        self.made.append(Count())
        return self.made[-1]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    """What owners meet instead of Kafka; reading the changelog finds nothing."""
    made = Broker()
    monkeypatch.setattr(module, "PartitionTransactions", made)
    monkeypatch.setattr(module, "read_to_end", lambda *_: {})
    return made


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker with threads of its own."""
    with ThreadPoolExecutor(2) as executor:
        yield Worker(executor)


def fold(owner: Owner, *offsets: int) -> None:
    """Give an owner records."""
    owner.push(run_of_records("clicks", [Record(offset, 1_000, b"u", b"{}") for offset in offsets]))


def run(story: Coroutine[Any, Any, None]) -> None:
    """Run a test's story, bounded."""
    asyncio.run(asyncio.wait_for(story, 20))


def test_what_was_given_up_in_good_order_goes_on(broker: Broker, worker: Worker) -> None:
    """Released, and taken again before anybody else wrote: the same state, nothing restored, nothing made anew."""

    async def story() -> None:
        first = worker.owner()
        await first.take()
        fold(first, 0, 1)
        kept = await first.release(Deadline(5))
        assert kept is not None
        second = worker.owner(kept)
        await second.take()

        assert "live" == second.state
        assert second.work is first.work
        assert {"clicks": 2} == second.consumed == broker.offsets
        assert 1 == len(worker.made)
        assert ["opened", "caught_up", "gather", "suspend", "opened", "caught_up"] == worker.made[0].calls

    run(story())


@pytest.mark.parametrize("what", ["changelog", "offsets"])
def test_kept_state_is_dropped_when_anything_was_written(broker: Broker, worker: Worker, what: str) -> None:
    """Another owner's control record, or offsets that somebody reset: the partition is restored."""

    async def story() -> None:
        first = worker.owner()
        await first.take()
        fold(first, 0, 1)
        kept = await first.release(Deadline(5))
        if what == "changelog":
            broker.end += 2
        else:
            broker.offsets = {"clicks": 1}
        second = worker.owner(kept)
        await second.take()

        assert second.work is not first.work
        assert 0 == worker.made[1].count
        assert "close" == worker.made[0].calls[-1]

    run(story())


@pytest.mark.parametrize("committed", [True, False])
def test_offsets_of_a_topic_made_anew_are_refused(broker: Broker, worker: Worker, *, committed: bool) -> None:
    """They would skip records of the new one; where Kafka has deleted them too, it is read from its start."""

    async def story() -> None:
        first = worker.owner()
        await first.take()
        fold(first, 0, 1)
        kept = await first.release(Deadline(5))
        worker.topic_ids = {"clicks": "second"}
        broker.unread = set() if committed else {"clicks"}
        second = worker.owner(kept)
        if committed:
            with pytest.raises(TopicMismatchError, match=r"clicks was deleted and made anew \(id first before, second"):
                await second.take()
        else:
            await second.take()

            assert {"clicks": "second"} == second.work.topic_ids

    run(story())


def test_a_take_that_a_revoke_overtakes_loses_nothing(broker: Broker, worker: Worker) -> None:
    """Revoked before the partition was opened: what was kept before is still what the changelog holds."""

    async def story() -> None:
        first = worker.owner()
        await first.take()
        kept = await first.release(Deadline(5))
        broker.open_waits.clear()
        second = worker.owner(kept)
        take = asyncio.ensure_future(second.take())
        await asyncio.sleep(0.05)
        again = await second.release(Deadline(5))
        broker.open_waits.set()
        with pytest.raises(FencedError, match="revoked while it was being taken"):
            await take

        assert kept is again is not None

        third = worker.owner(again)
        await third.take()

        assert third.work is first.work

    run(story())


def test_a_released_partition_takes_and_sends_nothing_more(broker: Broker, worker: Worker) -> None:
    """From the moment it is given up, what arrives is left to the next owner: the last commit is all there is."""

    async def story() -> None:
        owner = worker.owner()
        await owner.take()
        fold(owner, 0)
        broker.reachable.clear()
        release = asyncio.ensure_future(owner.release(Deadline(5)))
        await asyncio.sleep(0.05)
        fold(owner, 1)
        owner.send([OutRecord("recommendations", b"u", b"late", 0)])
        broker.reachable.set()
        kept = await release

        assert kept is not None
        assert {"clicks": 1} == kept.consumed == broker.offsets
        assert 1 == worker.made[0].count
        assert [] == broker.produced

    run(story())


def test_what_is_sent_during_a_commit_goes_into_the_next(broker: Broker, worker: Worker) -> None:
    """A list made while the commit is under way waits for it, also while a partition that came back is opened."""

    async def story() -> None:
        sent = OutRecord("recommendations", b"u", b"[]", 0)
        owner = worker.owner()
        broker.reachable.clear()
        take = asyncio.ensure_future(owner.take())
        await asyncio.wait_for(worker.made[0].was_opened.wait(), 5)
        owner.send([sent])

        assert [] == broker.produced

        broker.reachable.set()
        await take

        assert [sent] == broker.produced

    run(story())


def test_a_broken_transaction_is_the_business_of_its_commit(
    broker: Broker, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends a list after a long sleep cannot know whether it was fenced; the next commit asks, and says so."""

    def refuse(*_: object) -> None:
        raise BrokenTransactionError("5000 message(s) timed out")

    def ask(*_: object) -> None:
        raise FencedError("taken by another worker")

    async def story() -> None:
        owner = worker.owner()
        await owner.take()
        monkeypatch.setattr(broker, "produce", refuse)
        monkeypatch.setattr(broker, "commit", ask)
        owner.send([OutRecord("recommendations", b"u", b"[]", 0)])

        with pytest.raises(FencedError, match="taken by another worker"):
            await owner.commit(Deadline(5))

    run(story())


def test_a_last_commit_that_hangs_fails_with_a_sentence(broker: Broker, worker: Worker) -> None:
    """Beyond the shared deadline the partition is given up with a reason that names it, and nothing is kept."""

    async def story() -> None:
        owner = worker.owner()
        await owner.take()
        fold(owner, 0)
        broker.reachable.clear()
        started = time.monotonic()
        with pytest.raises(CommitError, match=r"the last commit of partition 0 .* \(FRESHET_COMMIT_TIMEOUT_S\)"):
            await owner.release(Deadline(0.2))
        broker.reachable.set()

        assert time.monotonic() - started < 2
        assert "close" == worker.made[0].calls[-1]
        assert await owner.release(Deadline(5)) is None

    run(story())


def test_commits_take_a_bounded_share_of_the_time() -> None:
    """A slow commit is followed by four times its rest, never more than the limit, never less than the interval."""
    waits = [commit_wait_s(last_s, 0.2, 1.0) for last_s in (0.0, 0.05, 0.1, 0.25, 9.0)]

    assert [0.2, 0.2, 0.4, 1.0, 1.0] == waits
    # The signals role commits once a second by itself: the limit never shortens that.
    assert 5.0 == commit_wait_s(9.0, interval_s=5.0, limit_s=1.0)


def test_a_long_restore_says_how_far_it_is() -> None:
    """Every three seconds a line with records, rate and share; asked in between, it knows the newest."""
    now = [0.0]
    progress = Progress("user-state", 3, 100, 300, clock=lambda: now[0])
    with capture_logs() as lines:
        for last_offset in (149, 199, 299):
            now[0] += 2.0
            progress.note([cast("Message", FakeMessage(last_offset))] * 50)

    assert {"records": 150, "percent": 100.0} == progress.details()
    assert [
        {
            "event": "restoring", "log_level": "info", "topic": "user-state", "partition": 3,
            "records": 100, "percent": 50.0, "records_per_s": 25,
        }
    ] == lines  # fmt: skip


class FakeMessage:
    """A record as librdkafka hands it over, of which only the offset is asked."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def offset(self) -> int:
        """Its offset."""
        return self._offset
