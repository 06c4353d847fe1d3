"""Cores, CPU seconds and progress of a consumer, seen from outside."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

#: What a broker that has just started says while it looks for a group's coordinator.
_LATER = {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_POLL_S = 0.05
#: A peer that makes no progress for this long has failed; joining a group and compiling take a tenth of it, on a busy
#: machine half.
_STALLED_S = 180.0


def cores() -> tuple[int, set[int]]:
    """
    Return the core of the consumer that is measured, and the cores of everything else.

    Raises
    ------
    RuntimeError
        When there is only one core.

    """
    every = os.sched_getaffinity(0)
    if len(every) < 2:
        raise RuntimeError("the consumer needs a core of its own: this machine has one")
    mine = max(every)
    return mine, every - {mine}


@contextmanager
def running_on(chosen: set[int]) -> Iterator[None]:
    """Have processes that are started inside run on these cores: what taskset does, without another process."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_s(pid: int) -> float:
    """Return user and system CPU seconds of a process and its living descendants, as `/proc` counts them."""
    ticks: dict[int, int] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name in brackets may hold anything; fields are counted from behind it.
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        ticks[int(entry.name)] = int(fields[11]) + int(fields[12])
        children[int(fields[1])].append(int(entry.name))
    total, waiting = 0, [pid]
    while waiting:
        current = waiting.pop()
        total += ticks.get(current, 0)
        waiting += children[current]
    return total / _TICKS_PER_S


class Commits:
    """Offsets that a group has committed on a topic whose partitions begin at offset 0."""

    def __init__(self, bootstrap: str, group: str, topic: str, partitions: int) -> None:
        self._client = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
        self._partitions = [TopicPartition(topic, number) for number in range(partitions)]
        self._last = 0

    def read(self) -> int:
        """Return the number of records behind the group."""
        try:
            found = self._client.committed(self._partitions, timeout=30)
        except KafkaException as error:
            if error.args[0].code() not in _LATER:
                raise
        else:
            self._last = sum(max(0, partition.offset) for partition in found)
        return self._last

    def close(self) -> None:
        """Leave."""
        self._client.close()


class Mark(NamedTuple):
    """A moment of a consumer: its progress, the wall clock and its CPU seconds."""

    events: int
    at_s: float
    cpu_s: float


def follow(
    goals: tuple[int, ...], progress: Callable[[], int], pid: int, alive: Callable[[], bool], poll_s: float = _POLL_S
) -> list[Mark]:
    """
    Wait for a consumer and return a mark for each goal, taken at the first reading at or above it.

    Raises
    ------
    RuntimeError
        When it ends or stands still before the last goal.

    """
    marks: list[Mark] = []
    before, moved_at = -1, time.monotonic()
    for goal in goals:
        while (events := progress()) < goal:
            now = time.monotonic()
            if events != before:
                before, moved_at = events, now
            if not alive():
                raise RuntimeError(f"it ended after {events} of {goals[-1]} events")
            if now - moved_at > _STALLED_S:
                raise RuntimeError(f"it stood still for {_STALLED_S:g} s after {events} of {goals[-1]} events")
            time.sleep(poll_s)
        marks.append(Mark(events, time.monotonic(), cpu_s(pid)))
    return marks


def rates(marks: list[Mark]) -> Mapping[str, float]:
    """
    Return events per second and per CPU second between the first two marks.

    >>> rates([Mark(100, 1.0, 0.5), Mark(300, 3.0, 1.0)])
    {'events_per_s': 100.0, 'events_per_cpu_s': 400.0}
    """
    first, last = marks[0], marks[1]
    events = last.events - first.events
    return {
        "events_per_s": events / (last.at_s - first.at_s),
        "events_per_cpu_s": events / max(last.cpu_s - first.cpu_s, 1 / _TICKS_PER_S),
    }
