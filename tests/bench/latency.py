"""From an event's append to the first list in Redis that has seen it: worker, signals, Redis and Kafka on all cores."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from streams.settings import Settings
from streams.topics import full_name
from tests.bench.load import Measured, OpenLoop
from tests.bench.stream import freshet, job
from tests.bench.stream.broker import Bench, services
from tests.support.roles import RoleProcess

RATES = (100.0, 1_000.0, 5_000.0)
#: One event at a time, far apart: nothing is shared with another.
_IDLE_PER_S = 5.0
#: Compiled kernels, full connection pools, and the JIT of the broker, which takes a third of its time for a minute.
_WARM_S = 45.0


def measure(rates: Sequence[float], logs: Sequence[str], seconds: float, partitions: int) -> list[dict[str, Any]]:
    """
    Return a row for each rate and log, and one for single events on an idle system.

    Raises
    ------
    RuntimeError
        When an event was on no list in time.

    """
    table = job.item_vectors()
    rows = []
    with services() as bench:
        for rate, log in [(_IDLE_PER_S, logs[0]), *itertools.product(rates, logs)]:
            settings = freshet.settings_of(bench, lists=True, partitions=partitions)
            freshet.stock(settings, table)
            _date_appends(settings)
            rows.append(_row(rate, log, _one(bench, settings, log, rate, seconds)))
    return rows


def _one(bench: Bench, settings: Settings, log: str, rate: float, seconds: float) -> Measured:
    with ExitStack() as stack:
        for role in ("worker", "signals"):
            process = RoleProcess(role, settings, bench.folder, f"{settings.namespace}-{role}")
            stack.enter_context(process).ready()
        measured = OpenLoop(settings, log, rate).run(seconds, _WARM_S)
    if measured.lost:
        raise RuntimeError(f"{measured.lost} events at {rate:g}/s ({log}) were on no list in Redis in time")
    return measured


def _date_appends(settings: Settings) -> None:
    """Have the broker date the events that are sent: producers date them before they linger."""
    topic = ConfigResource(ConfigResource.Type.TOPIC, full_name(settings, "clicks"))
    dated = ConfigEntry("message.timestamp.type", "LogAppendTime", incremental_operation=AlterConfigOpType.SET)
    topic.add_incremental_config(dated)
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    for altered in admin.incremental_alter_configs([topic]).values():
        altered.result()


def _row(rate: float, log: str, measured: Measured) -> dict[str, Any]:
    return {
        "events_per_s": round(rate),
        "log": log,
        **measured.percentiles(),
        "samples": len(measured.latencies_ms),
        "generator_behind_ms": round(measured.behind_ms, 1),
    }
