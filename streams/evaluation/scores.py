"""
The numbers of an evaluation: measures of every system with their intervals, and Freshet against each other system.

A `Part` is a set of questions: all of them, those about items new to their users or met before, those about items that
nobody had met, or those of users with so long a history. What is compared is always answers to the same questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models import measures
from models.bootstrap import Interval, resampled
from models.histories import Histories
from models.interactions import Int32, Int64
from streams.evaluation.results import Evaluated

#: The system that the others are compared with.
OURS: Final = "freshet"

#: Events of a user before the question: names of the slices, and the most events of each.
HISTORY_LENGTHS: Final[tuple[tuple[str, int], ...]] = (
    ("0", 0),
    ("1", 1),
    ("2", 2),
    ("3", 3),
    ("4-5", 5),
    ("6-10", 10),
    ("11-20", 20),
    ("21-50", 50),
    ("51-100", 100),
    ("101+", np.iinfo(np.int64).max),
)

#: Ranks that a person sees: at which what concerns the list as a whole is measured.
SEEN_RANKS: Final = 10
#: Lists that distances and calibration are measured on, evenly chosen: their means then stand to some thousandths.
_SAMPLED = 2_000


class Difference(NamedTuple):
    """
    How much greater a measure of Freshet is than that of another system.

    Attributes
    ----------
    mean, low, high
        The difference of means, and its 95 % interval by the paired bootstrap over users.
    above, below
        Whether all of the interval is above or below 0.

    """

    mean: float
    low: float
    high: float
    above: bool
    below: bool


class Part(NamedTuple):
    """
    Systems on some of the questions.

    Attributes
    ----------
    questions
        How many.
    metrics, intervals
        By system and measure; intervals are of 95 %. Measures of whole lists have no interval.
    paired
        By system and measure, what Freshet has more.

    """

    questions: int
    metrics: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    paired: dict[str, dict[str, Difference]]


class Mode(NamedTuple):
    """
    All parts under one mask.

    Attributes
    ----------
    overall
        All questions.
    explore, repeat
        With only those targets that their user had never met before, or only the others; None where there are none.
    new_items
        With only those targets that nobody had met before, so that their text alone tells of them; None where there are
        none.
    by_history
        By the length of the user's history before the question.

    """

    overall: Part
    explore: Part | None
    repeat: Part | None
    new_items: Part | None
    by_history: dict[str, Part]


class Scores(NamedTuple):
    """
    All numbers.

    Attributes
    ----------
    excluded, allowed
        Without the items that users met before, and with them.
    freshness
        Freshet under the headline's mask by how often users' states are brought up to date, compared with `event`;
        None where that was not run.

    """

    excluded: Mode
    allowed: Mode
    freshness: Part | None


def scored(result: Evaluated) -> Scores:
    """Return all numbers of a run."""
    histories = Histories(result.log)
    excluded = _mode(result, histories, {name: lists.excluded for name, lists in result.systems.items()}, seen_out=True)
    allowed = _mode(result, histories, {name: lists.allowed for name, lists in result.systems.items()}, seen_out=False)
    if not result.freshness:
        return Scores(excluded, allowed, None)
    asked = _Asked.of(result, histories, seen_out=result.exclude_seen)
    return Scores(excluded, allowed, asked.part(result.freshness, "event"))


def as_json(result: Evaluated, scores: Scores) -> dict[str, Any]:
    """
    Return the numbers as they are written to a file.

    `metrics`, `intervals` and `paired` are those of the headline's mask; both masks stand in full under `excluded` and
    `allowed`.
    """
    headline = scores.excluded if result.exclude_seen else scores.allowed
    return {
        "protocol": result.protocol,
        "log": result.log_name,
        "exclude_seen": result.exclude_seen,
        "events": len(result.log.users),
        "users": len(np.unique(result.log.users)),
        "items": result.items,
        **_part_json(headline.overall),
        "excluded": _mode_json(scores.excluded),
        "allowed": _mode_json(scores.allowed),
        "freshness": None if scores.freshness is None else _part_json(scores.freshness),
        "violations": {mask: found._asdict() for mask, found in result.violations.items()},
        "events_per_s": result.events_per_s,
        "seconds": dict(result.seconds),
    }


def _mode_json(mode: Mode) -> dict[str, Any]:
    return {
        "overall": _part_json(mode.overall),
        "explore": None if mode.explore is None else _part_json(mode.explore),
        "repeat": None if mode.repeat is None else _part_json(mode.repeat),
        "new_items": None if mode.new_items is None else _part_json(mode.new_items),
        "by_history": {name: _part_json(part) for name, part in mode.by_history.items()},
    }


def _part_json(part: Part) -> dict[str, Any]:
    paired = {
        name: {measure: difference._asdict() for measure, difference in found.items()}
        for name, found in part.paired.items()
    }
    return {**part._asdict(), "paired": paired}


class _Asked(NamedTuple):
    """Some questions with their targets, and what their lists could have held."""

    users: Int32
    targets: Int32
    ends: Int64
    candidates: Int64
    rows: Int64

    @classmethod
    def of(cls, result: Evaluated, histories: Histories, *, seen_out: bool) -> _Asked:
        """Return all questions."""
        asked = result.questions
        targets, ends = measures.distinct(asked.targets, asked.ends)
        seen = histories.distinct(asked.users, asked.before) if seen_out else 0
        candidates = np.full(len(asked.users), result.items, np.int64) - seen
        return cls(asked.users, targets, ends, candidates, np.arange(len(asked.users)))

    def only(self, chosen: npt.NDArray[np.bool_]) -> _Asked:
        """Return the questions left when only the chosen targets count."""
        rows, targets, ends = measures.part(self.targets, self.ends, chosen)
        return _Asked(self.users[rows], targets, ends, self.candidates[rows], self.rows[rows])

    def owners(self) -> Int64:
        """Return the question of each target, (t,) int64."""
        return np.repeat(np.arange(len(self.ends)), np.diff(self.ends, prepend=0))

    def part(self, systems: Mapping[str, Int32], ours: str) -> Part:
        """Measure systems by the full lists of each."""
        found = {
            name: measures.accuracy(lists[self.rows], self.targets, self.ends, self.candidates)
            for name, lists in systems.items()
        }
        names = [(system, measure) for system, measured in found.items() for measure in measured]
        columns = {name: column for column, name in enumerate(names)}
        means = resampled(np.stack([found[system][measure] for system, measure in names], axis=1), self.users)
        metrics: dict[str, dict[str, float]] = {system: {} for system in found}
        intervals: dict[str, dict[str, tuple[float, float]]] = {system: {} for system in found}
        paired: dict[str, dict[str, Difference]] = {system: {} for system in found if system != ours and ours in found}
        for (system, measure), column in columns.items():
            interval = means.interval(column)
            metrics[system][measure] = interval.mean
            intervals[system][measure] = (interval.low, interval.high)
            if system in paired:
                paired[system][measure] = _difference(means.difference(columns[ours, measure], column))
        return Part(len(self.users), metrics, intervals, paired)


def _difference(interval: Interval) -> Difference:
    return Difference(interval.mean, interval.low, interval.high, above=interval.above, below=interval.high < 0)


def _mode(result: Evaluated, histories: Histories, systems: Mapping[str, Int32], *, seen_out: bool) -> Mode:
    asked = _Asked.of(result, histories, seen_out=seen_out)
    moments = result.questions.before
    owners = asked.owners()
    met = histories.met(asked.users[owners], moments[owners], asked.targets)
    new = _met_by_nobody(result, moments[owners], asked.targets)
    overall = asked.part(systems, OURS)
    for name, extra in _whole_lists(result, histories, systems).items():
        overall.metrics[name].update(extra)
    lengths = histories.lengths(asked.users, moments)[owners]
    slices, fewer = {}, -1
    for name, most in HISTORY_LENGTHS:
        chosen = (lengths > fewer) & (lengths <= most)
        fewer = most
        if chosen.any():
            slices[name] = asked.only(chosen).part(systems, OURS)
    return Mode(
        overall,
        asked.only(~met).part(systems, OURS) if not met.all() else None,
        asked.only(met).part(systems, OURS) if met.any() else None,
        asked.only(new).part(systems, OURS) if new.any() else None,
        slices,
    )


def _met_by_nobody(result: Evaluated, moments: Int64, targets: Int32) -> npt.NDArray[np.bool_]:
    """Return of which targets (t,) no event was known when they were asked for, at positions in the log."""
    known_from = np.full(result.items, np.iinfo(np.int64).max)
    items, first = np.unique(result.log.items[result.told], return_index=True)
    known_from[items] = result.told[first]
    known_from[result.learned.items] = -1
    return np.asarray(known_from[targets] >= moments, np.bool_)


def _whole_lists(result: Evaluated, histories: Histories, systems: Mapping[str, Int32]) -> dict[str, dict[str, float]]:
    """Return what concerns lists as such: coverage and Gini of all, the rest as means over a sample."""
    asked = result.questions
    sample = np.unique(np.linspace(0, len(asked.users) - 1, _SAMPLED).astype(np.int64))
    past, ends = histories.items(asked.users[sample], asked.before[sample])
    popularity = np.bincount(result.learned.items, minlength=result.items)
    found: dict[str, dict[str, float]] = {}
    for name, lists in systems.items():
        top = lists[:, :SEEN_RANKS]
        some = top[sample]
        found[name] = {
            "coverage@10": measures.coverage(top, result.items),
            "gini@10": measures.gini(measures.exposure(top, result.items)),
            "novelty@10": float(measures.novelty(some, popularity).mean()),
        }
        if (result.categories >= 0).any():
            unlike = measures.spread_of_categories(some, result.categories)
            missed = measures.miscalibration(some, past, ends, result.categories)
            found[name] |= {"category_ild@10": float(unlike.mean()), "miscalibration@10": float(missed.mean())}
        if result.vectors is not None:
            found[name]["ild@10"] = float(measures.spread_of_vectors(some, result.vectors).mean())
    return found
