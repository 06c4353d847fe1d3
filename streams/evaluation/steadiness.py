"""
What steadiness costs: the lists of the live path under several settings of the knob, refreshed at every event.

Each user's list is made anew just after each event of the user, as the worker does it, and is the answer to what the
user does next. All settings see the same states and the same catalogue, each with its own lists before. Whenever
item-to-item weights are fitted again, the lists of all users who have one are refreshed without an event too: whatever
changes then changes unforced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models import consistency
from models.consistency import Previous
from models.interactions import Int32, Int64, Interactions
from models.measures import rbo
from models.ranking import RankingParameters
from streams.evaluation.driving import learn, together
from streams.evaluation.guardrails import Guardrails
from streams.evaluation.live import Live
from streams.evaluation.progress import Progress
from streams.evaluation.protocols import Plan

Doubles = npt.NDArray[np.float64]

#: Length of the lists, and where measures cut.
SIZE = 20
CUT = 10
#: Users refreshed together.
_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """
    One setting. Means over all refreshes that an event is behind; the first list of a user counts for hits alone.

    Attributes
    ----------
    hr, mrr
        Hit rate and mean reciprocal rank at 10 of what the user does next.
    rbo
        Rank-biased overlap (persistence .9) of the first 10 with those before.
    stayed
        Share of the first 10 that were among them before.
    unforced
        Share of the places of lists that changed when nothing had happened; must be 0.
    violations
        Items on the lists that break a rule, see `streams.evaluation.guardrails`; must be 0.
    style
        Jensen-Shannon divergence, in bits, of the first 10's categories from those of all lists; NaN without any.
    price
        Relative loss of hits for each .1 of overlap more than without control; NaN where there is no more.

    """

    steadiness: float
    hr: float
    mrr: float
    rbo: float
    stayed: float
    unforced: float
    violations: int
    style: float
    price: float


class Setting:
    """The lists of all users under one setting, and what they were measured to be."""

    def __init__(self, steadiness: float, users: int, categories: Int32) -> None:
        self.parameters = RankingParameters(steadiness=steadiness)
        self.items = np.full((users, SIZE), -1, np.int32)
        self._since_ms = np.zeros((users, SIZE), np.int64)
        self._made_ms = np.zeros(users, np.int64)
        self._categories = categories
        self._kinds = int(categories.max(initial=-1)) + 1
        self._hits: list[float] = []
        self._rbo: list[float] = []
        self._stayed: list[float] = []
        self._shares: list[Doubles] = []
        self._refreshed = self._changed = self.violations = 0

    def previous(self, users: Int64, *, moved: bool) -> Previous:
        """Return the lists that users have."""
        return Previous(
            self.items[users], self._since_ms[users], np.zeros((len(users), SIZE), np.uint16), self._made_ms[users],
            np.full(len(users), moved), np.zeros((len(users), 2), np.int64),
        )  # fmt: skip

    def answer(self, users: Int64, targets: Int32) -> None:
        """Measure what users do against the lists they have."""
        hit = self.items[users, :CUT] == targets[:, None]
        self._hits += np.where(hit.any(axis=1), 1.0 / (1 + hit.argmax(axis=1)), 0.0).tolist()

    def take(self, users: Int64, lists: Int32, now_ms: Int64) -> None:
        """Measure lists that followed an event against those before, and keep them."""
        before = self.items[users]
        first, second = np.ascontiguousarray(lists[:, :CUT]), np.ascontiguousarray(before[:, :CUT])
        had = before[:, 0] >= 0
        self._rbo += rbo(first[had], second[had]).tolist()
        self._stayed += (first[had][:, :, None] == second[had][:, None, :]).any(axis=2).mean(axis=1).tolist()
        if self._kinds:
            found = np.where(first < 0, -1, self._categories[first])
            self._shares.append(_shares(found, self._kinds))
        same = lists[:, :, None] == before[:, None, :]
        since = np.take_along_axis(self._since_ms[users], same.argmax(axis=2), axis=1)
        self._since_ms[users] = np.where(same.any(axis=2), since, now_ms[:, None])
        self.items[users], self._made_ms[users] = lists, now_ms

    def compare(self, users: Int64, lists: Int32) -> None:
        """Count what changed though nothing had happened; the lists that users have stay."""
        self._refreshed += lists.size
        self._changed += int((lists != self.items[users]).sum())

    def point(self, base: Point | None) -> Point:
        """Return what was measured; `base` is the setting without control."""
        hits = np.array(self._hits)
        hr, overlap = float((hits > 0).mean()), float(np.mean(self._rbo))
        gained = overlap - base.rbo if base else 0.0
        return Point(
            steadiness=self.parameters.steadiness,
            hr=hr,
            mrr=float(hits.mean()),
            rbo=overlap,
            stayed=float(np.mean(self._stayed)),
            unforced=self._changed / max(self._refreshed, 1),
            violations=self.violations,
            style=_divergence(np.concatenate(self._shares)) if self._shares else math.nan,
            price=(1 - hr / base.hr) / gained * 0.1 if base and base.hr and gained > 0 else math.nan,
        )


def frontier(
    live: Live,
    log: Interactions,
    plan: Plan,
    knobs: Sequence[float],
    categories: Int32,
    guardrails: Guardrails,
    *,
    refit_ms: int,
    progress: Progress,
) -> list[Point]:
    """
    Return what each setting of the knob costs and brings, the setting without control first.

    Parameters
    ----------
    live
        Freshet before the first event.
    plan
        Of `streams.evaluation.protocols.prequential`.
    categories
        (items,) of the items, -1 for unknown ones.

    """
    settings = [Setting(knob, int(log.users.max()) + 1, categories) for knob in sorted({0.0, *knobs})]
    learn(live, plan.learned, progress)
    live.fit()
    fitted = int(plan.learned.ts_ms[-1]) // refit_ms
    for batch in together(log.users[plan.told]):
        positions = plan.told[batch]
        told = log.at(positions)
        if int(told.ts_ms[0]) // refit_ms > fitted:
            fitted = int(told.ts_ms[0]) // refit_ms
            live.fit()
            _refresh_all(live, settings)
        for setting in settings:
            listed = setting.items[told.users, 0] >= 0
            setting.answer(told.users[listed].astype(np.int64), told.items[listed])
        live.learn(told)
        users = told.users.astype(np.int64)
        for setting, lists in zip(settings, refreshed(live, settings, users, moved=True), strict=True):
            setting.take(users, lists, told.ts_ms)
            broken = guardrails.broken(
                lists, told.users, positions + 1, [setting.parameters] * len(users), exclude_seen=True
            )
            setting.violations += sum(broken)
        progress(len(positions))
    points: list[Point] = []
    for setting in settings:
        points.append(setting.point(points[0] if points else None))
    return points


def _refresh_all(live: Live, settings: Sequence[Setting]) -> None:
    """Refresh the list of everybody who has one, without an event."""
    users = np.flatnonzero(settings[0].items[:, 0] >= 0)
    for start in range(0, len(users), _AT_ONCE):
        some = users[start : start + _AT_ONCE]
        for setting, lists in zip(settings, refreshed(live, settings, some, moved=False), strict=True):
            setting.compare(some, lists)


def refreshed(live: Live, settings: Sequence[Setting], users: Int64, *, moved: bool) -> list[Int32]:
    """Return the lists that users get under each setting; all in one call, of which every batch costs the same part."""
    parameters = [setting.parameters for setting in settings for _ in users]
    previous = consistency.joined([setting.previous(users, moved=moved) for setting in settings])
    lists = live.refreshed(np.tile(users, len(settings)), SIZE, parameters, previous)
    return np.split(lists, len(settings))


def _shares(categories: Int32, kinds: int) -> Doubles:
    """Return the shares (n, kinds) of the known categories of lists; zeros for a list without any."""
    counts = np.zeros((len(categories), kinds))
    rows, places = np.nonzero(categories >= 0)
    np.add.at(counts, (rows, categories[rows, places]), 1.0)
    shares: Doubles = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    return shares


def _divergence(shares: Doubles) -> float:
    """Return the mean Jensen-Shannon divergence, in bits, of rows of shares from the mean of all."""
    known = shares[shares.sum(axis=1) > 0]
    template = np.broadcast_to(known.mean(axis=0), known.shape)
    middle = (known + template) / 2
    return float(((_relative(known, middle) + _relative(template, middle)) / 2).mean())


def _relative(one: Doubles, other: Doubles) -> Doubles:
    """Return the Kullback-Leibler divergence (n,) in bits; `other` is above 0 wherever `one` is."""
    ratio = np.divide(one, other, out=np.ones_like(other), where=one > 0)
    divergence: Doubles = (one * np.log2(ratio)).sum(axis=1)
    return divergence
