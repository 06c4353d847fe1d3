"""One run: a log and a protocol in, the lists of every system out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from models.interactions import Recommender
from streams.evaluation.live import Live
from streams.evaluation.logs import EvaluationLog
from streams.evaluation.progress import Bars
from streams.evaluation.protocols import Plan, answer
from streams.evaluation.results import Evaluated, Lists
from streams.evaluation.vectors import EncodedItems
from streams.settings import Settings

#: Length of every list: the longest at which any measure cuts.
LIST_SIZE = 100


def freshet(settings: Settings, log: EvaluationLog, encoded: EncodedItems | None) -> Live:
    """Return Freshet before the first event of a log; without vectors items are known by who met them alone."""
    live = Live(settings, log.users, log.items, log.cards)
    if encoded is not None:
        live.serve(encoded.served, encoded.records())
    return live


def run(
    log: EvaluationLog,
    plan: Plan,
    systems: Sequence[Recommender],
    bars: Bars,
    *,
    protocol: str,
    exclude_seen: bool,
    encoded: EncodedItems | None,
) -> Evaluated:
    """Have every system answer the questions of a plan; the first is Freshet."""
    lists: dict[str, Lists] = {}
    seconds: dict[str, float] = {}
    steps = len(plan.learned.users) + len(plan.asking.users)
    for system in systems:
        started = time.monotonic()
        lists[system.name] = answer(system, plan, LIST_SIZE, bars(system.name, steps))
        seconds[system.name] = time.monotonic() - started
    return _evaluated(log, plan, lists, seconds, steps, protocol, encoded, exclude_seen=exclude_seen)


def _evaluated(
    log: EvaluationLog,
    plan: Plan,
    lists: Mapping[str, Lists],
    seconds: Mapping[str, float],
    events: int,
    protocol: str,
    encoded: EncodedItems | None,
    *,
    exclude_seen: bool,
) -> Evaluated:
    return Evaluated(
        protocol=protocol,
        log_name=log.name,
        exclude_seen=exclude_seen,
        log=log.interactions,
        learned=plan.learned,
        items=len(log.items),
        questions=plan.questions,
        systems=lists,
        categories=log.categories(),
        vectors=None if encoded is None else encoded.matrix(log.items),
        events_per_s=events / next(iter(seconds.values())),
        seconds=seconds,
    )
