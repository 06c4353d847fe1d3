"""
A worker that holds a million users: how fast it comes back after a restart, and how much memory it takes.

The states are made by a worker that folds every event, and read back by another process with nothing kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from streams.kafka.bulk_read import read_to_end
from streams.kafka.deadline import Deadline
from streams.settings import Settings
from streams.topics import full_name
from tests.bench.load import OpenLoop
from tests.bench.stream import freshet, job
from tests.bench.stream.broker import Bench, produce_log, services
from tests.bench.stream.meter import Commits, follow
from tests.support.roles import RoleProcess

#: Restoring is given this long before it counts as failed.
_READY_S = 600.0
#: Kafka's cleaner looks at topics every 15 s; a pass over ten million small records took less than one.
_COMPACT_S = 300.0
#: Rate at which users become hot: well below what one worker ranks, so that no backlog is measured.
_HEATING_PER_S = 1_500.0


class Filled(NamedTuple):
    """A namespace whose `user-state` holds the states of many users."""

    bench: Bench
    settings: Settings
    users: int
    events: int
    fold_s: float


@contextmanager
def filled(users: int, events: int) -> Iterator[Filled]:
    """Have one worker fold a uniform log and stop as a pod does."""
    with services() as bench:
        settings = freshet.settings_of(bench, lists=False)
        freshet.stock(settings, job.item_vectors())
        clicks = full_name(settings, "clicks")
        produce_log(bench, clicks, "uniform", events, users)
        commits = Commits(bench.bootstrap, settings.group("interest"), clicks, job.PARTITIONS)
        started = time.monotonic()
        # All users at hand: what is measured is what they become, not how users come and go.
        roomy = settings.model_copy(update={"max_hot_users": users})
        with freshet.working(roomy, bench.folder, name="filling") as worker:
            follow((events,), commits.read, worker.process.pid, lambda: worker.alive)
        commits.close()
        yield Filled(bench, settings, users, events, time.monotonic() - started)


def restore(users: int, events: int) -> list[dict[str, Any]]:
    """Return a row for the changelog as the worker left it, and one for the changelog after Kafka's compaction."""
    rows = []
    with filled(users, events) as ground:
        for changelog in ("as written", "compacted"):
            if changelog == "compacted":
                _compact(ground)
            rows.append({"changelog": changelog, **_restarted(ground, changelog)})
    return rows


def memory(users: int, events: int, hot_users: int) -> list[dict[str, Any]]:
    """Return rows of the worker's resident memory: after the restart, and with the lists of hot users made."""
    with filled(users, events) as ground:
        settings = ground.settings.model_copy(update={"make_lists": True})
        with freshet.working(settings, ground.bench.folder, name="remembering") as worker:
            worker.ready(_READY_S)
            rows = [_memory_row("restored", users, 0, worker)]
            load = OpenLoop(settings, "uniform", _HEATING_PER_S, users=hot_users)
            # Drawing at random, three events a user leave one in twenty without any.
            load.run(3 * hot_users / _HEATING_PER_S)
            rows.append(_memory_row("hot", users, hot_users, worker))
    return rows


def resident_mb(pid: int) -> tuple[float, float]:
    """Return the resident memory of a process now and at its highest, MB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return tuple(int(found[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]  # two names


def _memory_row(state: str, users: int, hot_users: int, worker: RoleProcess) -> dict[str, Any]:
    now_mb, peak_mb = resident_mb(worker.process.pid)
    return {
        "state": state,
        "users": users,
        "hot_users": hot_users,
        "rss_mb": round(now_mb),
        "peak_rss_mb": round(peak_mb),
        "bytes_per_user": round(now_mb * 1e6 / users),
    }


def _restarted(ground: Filled, name: str) -> dict[str, Any]:
    started = time.monotonic()
    with freshet.working(ground.settings, ground.bench.folder, name=f"restoring-{name.replace(' ', '-')}") as worker:
        worker.ready(_READY_S)
        ready_s = time.monotonic() - started
        records = worker.metric("freshet_restored_records_total")
        peak_mb = resident_mb(worker.process.pid)[1]
        taken_s = max(_taken_s(worker.log))
    return {
        "users": ground.users,
        "events": ground.events,
        "fold_s": round(ground.fold_s, 1),
        "records": round(records),
        "restore_s": round(taken_s, 2),
        "users_per_s": round(ground.users / taken_s),
        "ready_s": round(ready_s, 2),
        "peak_rss_mb": round(peak_mb),
    }


def _taken_s(log: Path) -> Iterator[float]:
    """Yield how long each partition took, by the worker's log; partitions are taken side by side."""
    for line in log.read_text(encoding="utf-8").splitlines():
        if '"partition_taken"' in line:
            yield float(orjson.loads(line)["seconds"])


def _compact(ground: Filled) -> None:
    """Have Kafka compact `user-state`, as it does by itself in time, and wait until that leaves two records a user."""
    topic = full_name(ground.settings, "user-state")
    admin = AdminClient({"bootstrap.servers": ground.bench.bootstrap})
    config = {
        "min.compaction.lag.ms": "0",
        "segment.ms": "1000",
        "min.cleanable.dirty.ratio": "0.01",
        "delete.retention.ms": "0",
    }
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(60)
    # A segment is closed when something is written after its time: a start writes a control record to each partition.
    with freshet.working(ground.settings, ground.bench.folder, name="rolling") as worker:
        worker.ready(_READY_S)
    end = time.monotonic() + _COMPACT_S
    while (left := _records(ground, topic)) > 2 * ground.users:
        if time.monotonic() > end:
            raise RuntimeError(f"{topic} still holds {left} records {_COMPACT_S:g} s after it should be compacted")
        time.sleep(10)


def _records(ground: Filled, topic: str) -> int:
    count = 0

    def take(messages: Any) -> None:
        nonlocal count
        count += len(messages)

    read_to_end(ground.settings, topic, range(job.PARTITIONS), take, Deadline(_COMPACT_S))
    return count
