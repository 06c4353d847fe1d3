"""One run: a log and a protocol in, the lists of every system out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from models.baselines import all_baselines
from models.interactions import Int32, Recommender
from streams.errors import ConfigurationError, DependencyError
from streams.evaluation.driving import DAY_MS, answers, delayed
from streams.evaluation.guardrails import Guardrails, Violations
from streams.evaluation.live import Live
from streams.evaluation.logs import EvaluationLog
from streams.evaluation.progress import Bars
from streams.evaluation.protocols import Plan
from streams.evaluation.results import Evaluated, Lists
from streams.evaluation.scores import OURS
from streams.evaluation.vectors import EncodedItems
from streams.settings import EVENT_TYPES, Settings

#: Length of every list: the longest at which any measure cuts.
LIST_SIZE = 100
#: How seldom users' states are brought up to date in the ablation, beside at every event.
DELAYS_MS = {"minute": 60_000, "hour": 3_600_000, "day": DAY_MS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """
    What is run.

    Attributes
    ----------
    log, plan, protocol
        The log, what the protocol makes of it, and the protocol's name.
    encoded
        The vectors of its items; None where items are known by who met them alone.
    exclude_seen
        Which lists the headline is of.
    refit_ms
        How often systems fit again while events are told.

    """

    settings: Settings
    log: EvaluationLog
    plan: Plan
    protocol: str
    encoded: EncodedItems | None
    exclude_seen: bool = True
    refit_ms: int = DAY_MS

    @property
    def events(self) -> int:
        """Events that a system learns, and lists it is asked for where these are not of the events themselves."""
        plan = self.plan
        return len(plan.learned.users) + (len(plan.told) or len(plan.asking.users))


def freshet(run: Run) -> Live:
    """Return Freshet before the first event of a log."""
    live = Live(run.settings, run.log.users, run.log.items, run.log.cards, run.log.devices)
    if run.encoded is not None:
        live.serve(run.encoded.served, run.encoded.records())
    return live


def evaluated(run: Run, others: Iterable[Recommender], bars: Bars, *, freshness: bool = False) -> Evaluated:
    """
    Have Freshet and others answer the questions of a plan, one system after the other.

    Parameters
    ----------
    others
        They have learned nothing.
    freshness
        Whether Freshet is asked again with users' states brought up to date less often.

    """
    lists: dict[str, Lists] = {}
    seconds: dict[str, float] = {}
    ours = freshet(run)
    for system in chain([ours], others):
        started = time.monotonic()
        progress = bars(system.name, run.events)
        lists[system.name] = answers(
            system, run.log.interactions, run.plan, LIST_SIZE, refit_ms=run.refit_ms, progress=progress
        )
        seconds[system.name] = time.monotonic() - started
    first = next(iter(lists))
    return Evaluated(
        protocol=run.protocol,
        log_name=run.log.name,
        exclude_seen=run.exclude_seen,
        log=run.log.interactions,
        learned=run.plan.learned,
        told=run.plan.told,
        items=len(run.log.items),
        questions=run.plan.questions,
        systems=lists,
        freshness=_ablation(run, lists[first], bars) if freshness else {},
        violations=_violations(run, ours, lists[first]),
        categories=run.log.categories(),
        vectors=None if run.encoded is None else run.encoded.matrix(run.log.items),
        events_per_s=run.events / seconds[first],
        seconds=seconds,
    )


def baselines(log: EvaluationLog, names: Sequence[str] = ()) -> list[Recommender]:
    """
    Return the systems to compare with, those of the names where any are given; Freshet is none of them.

    Raises
    ------
    ConfigurationError
        When a name is not known.
    DependencyError
        When the libraries that some of them need are not installed.

    """
    if set(names) == {OURS}:
        return []
    try:
        known = {system.name: system for system in all_baselines(len(log.users), len(log.items), len(EVENT_TYPES))}
    except ImportError as error:
        raise DependencyError(
            f"{error.name} is not installed: install Freshet's extra `evaluation`, or evaluate with --system {OURS}"
        ) from error
    if unknown := sorted(set(names) - {OURS, *known}):
        raise ConfigurationError(f"unknown system {unknown[0]!r}; known are {', '.join((OURS, *known))}")
    return [system for name, system in known.items() if not names or name in names]


def _violations(run: Run, ours: Live, lists: Lists) -> dict[str, Violations]:
    """Return what the lists of both masks break."""
    guardrails = Guardrails(run.log, run.settings.weights)
    users, before = run.plan.questions.users, run.plan.questions.before
    parameters = ours.parameters(users)
    return {
        mask: guardrails.broken(made, users, before, parameters, exclude_seen=mask == "excluded")
        for mask, made in lists._asdict().items()
    }


def _ablation(run: Run, at_every_event: Lists, bars: Bars) -> dict[str, Int32]:
    """Return Freshet's lists by how often users' states are brought up to date."""
    found = {"event": at_every_event.excluded if run.exclude_seen else at_every_event.allowed}
    for name, every_ms in DELAYS_MS.items():
        found[name] = delayed(
            freshet(run),
            run.log.interactions,
            run.plan,
            LIST_SIZE,
            every_ms=every_ms,
            exclude_seen=run.exclude_seen,
            refit_ms=run.refit_ms,
            progress=bars(f"freshet, told each {name}", run.events),
        )
    return found
