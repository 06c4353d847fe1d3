"""Runs, and the ledger of those that are out: what is buffered, and up to where each partition is done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from faust.types import TP

from streams.kafka.transport.records import Records


class Run:
    """
    Consecutive records of one partition.

    Attributes
    ----------
    records
        `Records`: a sequence of records with `offset`, `timestamp`, `key`, `value` and `headers`, in offset order.
    generation
        The group generation they were fetched under.
    next_offset
        Offset behind the last record.
    finished
        Whether `done` was called.
    taken
        Whether an agent has taken it from its queue.
    in_hand
        Whether that agent has not asked for the next one yet.
    reported
        Whether it was reported as standing still.

    """

    __slots__ = (
        "_done", "finished", "generation", "in_hand", "made_at_s", "next_offset", "partition", "records", "reported",
        "taken", "topic",
    )  # fmt: skip

    def __init__(
        self,
        topic: str,
        partition: int,
        records: Records,
        generation: int = 0,
        done: Callable[[Run], None] | None = None,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.records = records
        self.generation = generation
        self.next_offset: int = records[-1].offset + 1
        self.finished = False
        self.taken = False
        self.in_hand = False
        self.reported = False
        self.made_at_s = time.monotonic()
        self._done = done

    @property
    def tp(self) -> TP:
        """Topic and partition."""
        return TP(self.topic, self.partition)

    def done(self) -> None:
        """
        Say that everything the run causes is durable: its room is given back and its offsets may be committed.

        Call it on the app's event loop; once or more.
        """
        self.finished = True
        if self._done is not None:
            done, self._done = self._done, None
            done(self)


class Ledger:
    """
    The runs that were handed over, in order, until they are done.

    A partition is done up to its first run that is not, whatever comes behind it was done or not: no arithmetic on
    offsets, which have holes where records were compacted away and where transactions ended.
    """

    def __init__(self) -> None:
        self._out: dict[TP, deque[Run]] = {}
        self._done_to: dict[TP, int] = {}

    def __len__(self) -> int:
        return sum(len(runs) for runs in self._out.values())

    def __iter__(self) -> Iterator[Run]:
        return (run for runs in self._out.values() for run in runs)

    def out(self, tp: TP) -> Sequence[Run]:
        """Return the runs of a partition that are out, oldest first."""
        return self._out.get(tp, ())

    def add(self, run: Run) -> None:
        """Take note of a run that is handed over."""
        self._out.setdefault(run.tp, deque()).append(run)

    def settle(self, run: Run) -> None:
        """Let go of the runs that are done, from the oldest on; a run that was forgotten changes nothing."""
        runs = self._out.get(run.tp)
        while runs and runs[0].finished:
            self._done_to[run.tp] = runs.popleft().next_offset

    def forget(self, tps: Iterable[TP] | None = None) -> None:
        """Forget everything about these partitions, or about all."""
        for tp in list(self._out) if tps is None else tps:
            self._out.pop(tp, None)
            self._done_to.pop(tp, None)

    def to_commit(self) -> dict[TP, int]:
        """Return the offsets up to which partitions are done and which were not committed yet."""
        return dict(self._done_to)

    def committed(self, offsets: Mapping[TP, int]) -> None:
        """Take note of a commit that Kafka has confirmed."""
        for tp, offset in offsets.items():
            if self._done_to.get(tp) == offset:
                del self._done_to[tp]
