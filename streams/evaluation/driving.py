"""Driving a system through a plan: events enter it, lists leave, in the order that the protocol wants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from models.interactions import Asking, Int32, Int64, Interactions, Recommender
from streams.evaluation.progress import Progress
from streams.evaluation.protocols import Plan
from streams.evaluation.results import Lists

#: Events learned, and users asked, between two steps of a progress bar.
_STEP = 16_384
_ASKED = 1_024
#: Most events told together: none of them is known when lists are asked for before the others.
_TOGETHER = 256
#: Most items beyond a list's length that are asked for, because those that a user met since are taken out.
_MOST_SPARE = 400

DAY_MS = 86_400_000


def answers(
    system: Recommender, log: Interactions, plan: Plan, size: int, *, refit_ms: int = DAY_MS, progress: Progress
) -> Lists:
    """
    Return a system's lists for the questions of a plan, with and without items that the user met before.

    It learns what comes first and fits; while events are told one after the other it fits again whenever the time
    passes a multiple of `refit_ms`.
    """
    lists = Lists(*(np.full((len(plan.asking.users), size), -1, np.int32) for _ in range(2)))
    learn(system, plan.learned, progress)
    system.fit()
    if not len(plan.told):
        for start in range(0, len(plan.asking.users), _ASKED):
            part = np.arange(start, min(start + _ASKED, len(plan.asking.users)))
            _ask(system, _some(plan.asking, part), part, size, lists)
            progress(len(part))
        return lists
    fitted = _period(plan.learned.ts_ms[-1], refit_ms)
    next_question = 0
    for batch in together(log.users[plan.told]):
        positions = plan.told[batch]
        if _period(log.ts_ms[positions[0]], refit_ms) > fitted:
            system.fit()
            fitted = _period(log.ts_ms[positions[0]], refit_ms)
        end = int(np.searchsorted(plan.questions.before, positions[-1], side="right"))
        if end > next_question:
            part = np.arange(next_question, end)
            _ask(system, _some(plan.asking, part), part, size, lists)
        next_question = end
        system.learn(log.at(positions))
        progress(len(positions))
    return lists


def learn(system: Recommender, log: Interactions, progress: Progress) -> None:
    """Let a system learn a log, step by step."""
    for start in range(0, len(log.users), _STEP):
        part = log.at(slice(start, start + _STEP))
        system.learn(part)
        progress(len(part.users))


def together(users: Int32) -> Iterator[slice]:
    """
    Yield the longest runs of events in which no user appears twice, 256 at most.

    >>> [(run.start, run.stop) for run in together(np.array([4, 5, 4, 4], np.int32))]
    [(0, 2), (2, 3), (3, 4)]
    """
    met: set[int] = set()
    start = 0
    for place, user in enumerate(users.tolist()):
        if user in met or place - start == _TOGETHER:
            yield slice(start, place)
            met.clear()
            start = place
        met.add(user)
    if met:
        yield slice(start, len(users))


def delayed(
    system: Recommender,
    log: Interactions,
    plan: Plan,
    size: int,
    *,
    every_ms: int,
    exclude_seen: bool,
    refit_ms: int = DAY_MS,
    progress: Progress,
) -> Int32:
    """
    Return the lists of a system that is told what happened only whenever the time passes a multiple of `every_ms`.

    All else is equal: with `exclude_seen`, items that the user met since the last such moment are taken out too.
    """
    learn(system, plan.learned, progress)
    system.fit()
    found = np.full((len(plan.asking.users), size), -1, np.int32)
    fitted = _period(plan.learned.ts_ms[-1], refit_ms)
    periods = log.ts_ms[plan.told] // every_ms
    begins = np.flatnonzero(np.diff(periods, prepend=periods[0] - 1))
    for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(periods)], strict=True):
        positions = plan.told[begin:end]
        if _period(log.ts_ms[positions[0]], refit_ms) > fitted:
            system.fit()
            fitted = _period(log.ts_ms[positions[0]], refit_ms)
        first, behind = np.searchsorted(plan.questions.before, [positions[0], positions[-1] + 1])
        if first < behind:
            asking = _some(plan.asking, np.arange(first, behind))
            new = _met_since(log, positions, plan.questions.before[first:behind]) if exclude_seen else None
            found[first:behind] = _ask_late(system, asking, new, size, exclude_seen=exclude_seen)
        system.learn(log.at(positions))
        progress(len(positions))
    return found


def _ask(system: Recommender, asking: Asking, part: Int64, size: int, lists: Lists) -> None:
    lists.excluded[part] = system.recommend(asking, size, exclude_seen=True)
    lists.allowed[part] = system.recommend(asking, size, exclude_seen=False)


def _ask_late(
    system: Recommender, asking: Asking, new: Sequence[Sequence[int]] | None, size: int, *, exclude_seen: bool
) -> Int32:
    """Ask once for each user, whose questions of one period share a list but for what is taken out."""
    _, first, place = np.unique(asking.users, return_index=True, return_inverse=True)
    spare = min(max(map(len, new), default=0), _MOST_SPARE) if new else 0
    asked = [
        system.recommend(_some(asking, first[start : start + _ASKED]), size + spare, exclude_seen=exclude_seen)
        for start in range(0, len(first), _ASKED)
    ]
    lists: Int32 = np.concatenate(asked)[place]
    if new is None:
        return lists[:, :size]
    kept = np.full((len(lists), size), -1, np.int32)
    for row, (made, met) in enumerate(zip(lists, new, strict=True)):
        left = made[~np.isin(made, met)][:size] if met else made[:size]
        kept[row, : len(left)] = left
    return kept


def _met_since(log: Interactions, positions: Int64, before: Int64) -> list[list[int]]:
    """Return for each question the items that its user met from the first of the positions on and before it."""
    met: dict[int, list[int]] = {}
    found = []
    questions = set(before.tolist())
    columns = (positions.tolist(), log.users[positions].tolist(), log.items[positions].tolist())
    for position, user, item in zip(*columns, strict=True):
        items = met.setdefault(user, [])
        if position in questions:
            found.append(items.copy())
        items.append(item)
    return found


def _some(asking: Asking, part: Int64) -> Asking:
    return Asking(asking.users[part], asking.sessions[part], asking.ts_ms[part])


def _period(ts_ms: np.int64, every_ms: int) -> int:
    return int(ts_ms) // every_ms
