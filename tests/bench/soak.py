"""Half an hour at 70 % of what a worker can do: memory must not grow, and lists must stay fresh."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.settings import Settings
from streams.topics import full_name
from tests.bench.load import OpenLoop
from tests.bench.million import resident_mb
from tests.bench.stream import freshet, job
from tests.bench.stream.broker import Bench, produce_log, services
from tests.support.roles import RoleProcess

_SHARE = 0.7
#: Records with which the capacity is found; some seconds of ranking each.
_WARM_EVENTS = 10_000
_CAPACITY_EVENTS = 60_000
_DRAIN_S = 300.0
_WARM_S = 30.0


def slope_mb_per_h(at_s: npt.ArrayLike, rss_mb: npt.ArrayLike) -> float:
    """
    Return the least-squares slope of the later half of the samples: the first half fills caches that are bounded.

    >>> round(slope_mb_per_h([0, 1800, 3600, 5400], [50.0, 100.0, 101.0, 102.0]), 3)
    2.0
    """
    at, rss = np.asarray(at_s, np.float64), np.asarray(rss_mb, np.float64)
    half = len(at) // 2
    return float(np.polyfit(at[half:], rss[half:], 1)[0] * 3600)


def measure(log: str, minutes: float, events_per_s: float | None) -> list[dict[str, Any]]:
    """
    Return one row; the rate is 70 % of the capacity found first, unless it is given.

    Raises
    ------
    RuntimeError
        When an event was on no list in time.

    """
    table = job.item_vectors()
    with services() as bench:
        rate = events_per_s or _SHARE * _capacity(bench, log, table)
        settings = freshet.settings_of(bench, lists=True)
        freshet.stock(settings, table)
        return [_soaked(bench, settings, log, rate, minutes)]


def _soaked(bench: Bench, settings: Settings, log: str, rate: float, minutes: float) -> dict[str, Any]:
    at_s: list[float] = []
    rss_mb: dict[str, list[float]] = {"worker": [], "signals": []}
    with ExitStack() as stack:
        roles = {
            role: stack.enter_context(RoleProcess(role, settings, bench.folder, f"soak-{role}")).ready()
            for role in rss_mb
        }

        def sample() -> None:
            at_s.append(time.monotonic())
            for role, process in roles.items():
                rss_mb[role].append(resident_mb(process.process.pid)[0])

        measured = OpenLoop(settings, log, rate).run(60 * minutes, _WARM_S, sample)
        lag = roles["worker"].metric("freshet_lag_records")
    if measured.lost:
        raise RuntimeError(f"{measured.lost} events at {rate:.0f}/s ({log}) were on no list in Redis in time")
    return {
        "log": log,
        "minutes": minutes,
        "events_per_s": round(rate),
        **measured.percentiles(),
        "lag_at_end": round(lag),
        **{f"{role}_rss_mb": round(samples[-1]) for role, samples in rss_mb.items()},
        **{f"{role}_mb_per_h": round(slope_mb_per_h(at_s, samples), 1) for role, samples in rss_mb.items()},
    }


def _capacity(bench: Bench, log: str, table: job.Float32) -> float:
    """
    Return the lists per second that a live worker makes while more are owed than it can make.

    Events are folded faster than lists are made and coalesce in a user's next list; what counts for freshness is the
    rate at which every event could have a list of its own.
    """
    settings = freshet.settings_of(bench, lists=True)
    freshet.stock(settings, table)
    with ExitStack() as stack:
        worker = stack.enter_context(RoleProcess("worker", settings, bench.folder, "capacity-worker")).ready()
        stack.enter_context(RoleProcess("signals", settings, bench.folder, "capacity-signals")).ready()
        produce_log(bench, full_name(settings, "clicks"), log, _WARM_EVENTS)
        _drain(worker)
        before, started = worker.metric("freshet_lists_total"), time.monotonic()
        produce_log(bench, full_name(settings, "clicks"), log, _CAPACITY_EVENTS)
        _drain(worker)
        return (worker.metric("freshet_lists_total") - before) / (time.monotonic() - started)


def _drain(worker: RoleProcess) -> None:
    """Wait until every event is folded and every list is made; one look could fall between the two."""
    end = time.monotonic() + _DRAIN_S
    quiet = 0
    while quiet < 3:
        if time.monotonic() > end:
            raise RuntimeError(f"the worker did not catch up within {_DRAIN_S:g} s")
        time.sleep(0.2)
        idle = worker.metric("freshet_lag_records") == 0 == worker.metric("freshet_dirty_users")
        quiet = quiet + 1 if idle else 0
