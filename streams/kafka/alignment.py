"""
Folding the co-partitioned topics of one partition in about the order in which their records were written.

Topics are fetched apart, so after a pause one may run thousands of records ahead of another. State is exact in any
order within `lateness`; this keeps the disorder that fetching adds near zero. The rule is Kafka Streams' (KIP-353,
KIP-695): a record may go when no other topic is known to hold an earlier one that has not been fetched yet.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from streams.kafka.transport import Records, Run

#: Longest wait for a topic that is behind. Its records are normally a fetch away: a few ms, some seconds after a
#: restart on a loaded machine or while a leader moves. What is folded without them may push them below the floor of
#: users with many events, so patience is worth its delay; a partition that stays silent longer is out of order.
_MAX_IDLE_S = 10.0


class Slice:
    """
    Records of one run that may be folded now; `last` says that the run is used up.

    Attributes
    ----------
    records
        In offset order.

    """

    __slots__ = ("last", "records", "run")

    def __init__(self, run: Run, records: Records, *, last: bool) -> None:
        self.run = run
        self.records = records
        self.last = last


class _Lane:
    """The buffered runs of one topic."""

    __slots__ = ("newest_ts_ms", "next_offset", "runs", "start")

    def __init__(self, next_offset: int) -> None:
        self.runs: deque[Run] = deque()
        self.start = 0
        self.next_offset = next_offset
        self.newest_ts_ms = 0

    def take_until(self, horizon_ms: int | None) -> Iterator[Slice]:
        """Give the records up to the horizon (all without one), in offset order."""
        while self.runs:
            run = self.runs[0]
            stop = len(run.records)
            if horizon_ms is not None:
                beyond = run.records.timestamps[self.start :] > horizon_ms
                stop = self.start + int(beyond.argmax()) if beyond.any() else stop
            last = stop == len(run.records)
            if stop > self.start or last:
                yield Slice(run, run.records[self.start : stop], last=last)
            if not last:
                self.start = stop
                return
            self.runs.popleft()
            self.start = 0


class Aligner:
    """
    The buffered runs of one partition number over its topics.

    Parameters
    ----------
    positions
        Topic to the offset it goes on from; records below are dropped (they were committed before).
    remaining
        (topic, next offset) to the number of offsets known to hold records that were not handed over yet.

    """

    def __init__(
        self,
        positions: Mapping[str, int],
        remaining: Callable[[str, int], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lanes = {topic: _Lane(offset) for topic, offset in positions.items()}
        self._remaining = remaining
        self._clock = clock
        self._waiting_since: float | None = None
        self.timeouts = 0

    def push(self, run: Run) -> None:
        """Buffer a run; what was folded before the last restore or rebalance falls away."""
        lane = self._lanes[run.topic]
        fresh = run.records[int(run.records.offsets.searchsorted(lane.next_offset)) :]
        if not fresh:
            run.done()
            return
        run.records = fresh
        lane.runs.append(run)
        # The greatest, not the last: the lane that ends first must be free to go whole, or nobody would move.
        lane.newest_ts_ms = max(lane.newest_ts_ms, int(fresh.timestamps.max()))
        lane.next_offset = fresh[-1].offset + 1

    def ready(self) -> Iterable[Slice]:
        """Return what may be folded now, topic by topic; empty while a topic that is behind may still speak."""
        behind = [topic for topic, lane in self._lanes.items() if self._remaining(topic, lane.next_offset)]
        buffered = [lane for lane in self._lanes.values() if lane.runs]
        if not buffered:
            return ()
        horizon: int | None = None
        if silent := [topic for topic in behind if not self._lanes[topic].runs]:
            if self._waits(silent):
                return ()
        else:
            self._waiting_since = None
        ends = [self._lanes[topic].newest_ts_ms for topic in behind if self._lanes[topic].runs]
        if ends:
            # The topic that ends first may hold earlier records than what follows in the others.
            horizon = min(ends)
        return [piece for lane in buffered for piece in lane.take_until(horizon)]

    def _waits(self, silent: Sequence[str]) -> bool:
        """Whether to wait longer for topics that are behind and have nothing buffered."""
        now = self._clock()
        if self._waiting_since is None:
            self._waiting_since = now
        if now - self._waiting_since < _MAX_IDLE_S:
            return True
        self.timeouts += len(silent)
        return False

    def clear(self) -> None:
        """Drop everything buffered and give its room back."""
        for lane in self._lanes.values():
            for run in lane.runs:
                run.done()
            lane.runs.clear()
            lane.start = 0
