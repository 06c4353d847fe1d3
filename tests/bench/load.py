"""
Events at a fixed rate that nothing slows down, and how long each probed one takes to be on its user's list in Redis.

The load is an open loop: every event has its moment on a schedule, whatever became of those before it, so that a system
that falls behind is charged for the wait: no coordinated omission (Tene, "How NOT to Measure Latency", 2013). A probe
tells two times: from the append of its record, which the broker dates, to its list, and from its moment on the
schedule, which also counts what the producer took: it lingers for 5 ms, librdkafka's own default, as a shop's does.
"""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import orjson
import redis
from confluent_kafka import KafkaError, Message, Producer

from streams.kafka.partitioner import LIBRDKAFKA_PARTITIONER
from streams.settings import Settings
from streams.topics import full_name
from tests.bench.stream import job

#: Looking for more takes a good part of a core from what is measured; fewer leave p99.9 of five minutes to chance.
_PROBES_PER_S = 20
#: Between two looks at Redis while probes wait: what a sample may be too long by. Where cores are idle a look takes
#: nothing from what is measured, and can come sooner.
_LOOK_S = 0.001
_QUIET_LOOK_S = 0.000_25
_QUIET_PER_S = 100.0
#: A list has `as_of` in its first half kilobyte.
_HEAD_BYTES = 1_023
_GIVE_UP_S = 30.0
#: Before anything is measured events come at least this fast: a broker that has served few requests runs them in the
#: JVM's interpreter, as one that has been up for an hour does not.
_WARM_INTERVAL_S = 0.004


class _Probe(NamedTuple):
    """One event whose list is waited for; its append and its moment on the schedule, as `time.time`."""

    key: str
    offset: int
    appended_s: float
    due_s: float


class Measured(NamedTuple):
    """
    What a run gave.

    Attributes
    ----------
    latencies_ms, from_schedule_ms
        Of the probes, unsorted: from the record's append, and from the event's moment on the schedule.
    lost
        Probes that were on no list within `_GIVE_UP_S`.
    behind_ms
        How late the generator itself was at worst; it is part of `from_schedule_ms`.

    """

    latencies_ms: list[float]
    from_schedule_ms: list[float]
    lost: int
    behind_ms: float

    def percentiles(self) -> dict[str, float]:
        """
        Return p50, p95, p99 and p99.9 in ms, and the first and third of them from the schedule.

        >>> Measured([1.0, 2.0, 3.0], [2.0, 3.0, 4.0], 0, 0.0).percentiles()["p50_schedule_ms"]
        3.0
        """
        ranks = {"p50": 50, "p95": 95, "p99": 99, "p999": 99.9}
        told = {f"{name}_ms": _percentile(self.latencies_ms, rank) for name, rank in ranks.items()}
        return told | {
            f"{name}_schedule_ms": _percentile(self.from_schedule_ms, ranks[name]) for name in ("p50", "p99")
        }


def _percentile(values: list[float], rank: float) -> float:
    return round(float(np.percentile(values, rank, method="higher")), 2)


class OpenLoop:
    """One load on one namespace; used from one thread."""

    def __init__(self, settings: Settings, log: str, events_per_s: float, users: int = job.USERS) -> None:
        self._interval_s = 1.0 / events_per_s
        self._look_s = _QUIET_LOOK_S if events_per_s <= _QUIET_PER_S else _LOOK_S
        self._every = max(1, round(events_per_s / _PROBES_PER_S))
        self._topic = full_name(settings, "clicks")
        self._prefix = f"{settings.redis_prefix}rec:"
        self._covered = re.compile(rb'"' + re.escape(self._topic.encode()) + rb'":(\d+)')
        self._drawn = _pairs(log, users)
        self._cache = redis.Redis.from_url(settings.redis_url)
        self._producer = Producer(
            {
                "bootstrap.servers": settings.kafka_bootstrap,
                "partitioner": LIBRDKAFKA_PARTITIONER,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self._number = 0
        self._waiting: list[_Probe] = []
        self._latencies_ms: list[float] = []
        self._from_schedule_ms: list[float] = []
        self._lost = 0

    def run(self, seconds: float, warm_s: float = 0.0, on_second: Callable[[], None] = lambda: None) -> Measured:
        """
        Send for `warm_s` and then for `seconds`, of which the probes are told; `on_second` is called each second.

        Raises
        ------
        RuntimeError
            When Kafka does not take an event.

        """
        start_s = time.time()
        measured_s = start_s + warm_s
        end_s = measured_s + seconds
        due_s, next_second, behind_s = start_s, start_s + 1.0, 0.0
        # The pauses of a full collection would be measured as Freshet's.
        gc.collect()
        gc.freeze()
        while (now_s := time.time()) < end_s or self._waiting:
            while due_s <= now_s and due_s < end_s:
                measured = due_s >= measured_s
                self._send(due_s, probed=measured and self._number % self._every == 0)
                behind_s = max(behind_s, now_s - due_s) if measured else 0.0
                due_s += self._interval_s if measured else min(self._interval_s, _WARM_INTERVAL_S)
            self._producer.poll(0)
            self._look()
            if now_s >= next_second:
                next_second += 1.0
                on_second()
            wake_s = min(due_s, now_s + self._look_s) if self._waiting or now_s >= end_s else min(due_s, now_s + 0.01)
            time.sleep(max(0.0, wake_s - time.time()))
        self._producer.flush(30)
        self._cache.close()
        return Measured(self._latencies_ms, self._from_schedule_ms, self._lost, behind_s * 1000)

    def _send(self, due_s: float, *, probed: bool) -> None:
        user, item = next(self._drawn)
        self._number += 1
        user_id = job.user_id(user)
        event = {
            "event_id": f"e{self._number}", "user_id": user_id, "item_id": job.item_id(item),
            "ts": round(due_s * 1000),
        }  # fmt: skip

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                raise RuntimeError(f"Kafka refused an event: {error}")
            appended_ms = message.timestamp()[1]
            self._waiting.append(_Probe(self._prefix + user_id, message.offset() or 0, appended_ms / 1000, due_s))

        more: dict[str, Any] = {"on_delivery": delivered} if probed else {}
        self._producer.produce(
            self._topic, orjson.dumps(event), user_id.encode(), timestamp=round(due_s * 1000), **more
        )

    def _look(self) -> None:
        """Read the beginnings of the lists that are waited for."""
        if not self._waiting:
            return
        pipeline = self._cache.pipeline(transaction=False)
        for probe in self._waiting:
            pipeline.getrange(probe.key, 0, _HEAD_BYTES)
        heads = pipeline.execute()
        now_s = time.time()
        still = []
        for probe, head in zip(self._waiting, heads, strict=True):
            found = self._covered.search(head)
            if found is not None and int(found[1]) > probe.offset:
                self._latencies_ms.append((now_s - probe.appended_s) * 1000)
                self._from_schedule_ms.append((now_s - probe.due_s) * 1000)
            elif now_s - probe.due_s > _GIVE_UP_S:
                self._lost += 1
            else:
                still.append(probe)
        self._waiting = still


def _pairs(log: str, users: int) -> Iterator[tuple[int, int]]:
    """Yield users and items of a log without end."""
    while True:
        for events in job.chunks(log, 1_000_000, users):
            yield from zip(events.users.tolist(), events.items.tolist(), strict=True)
