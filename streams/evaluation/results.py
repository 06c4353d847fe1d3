"""What a run of an evaluation hands to its report: the questions, and the lists that every system gave in answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.interactions import Int32, Int64, Interactions
from streams.evaluation.guardrails import Violations


class Questions(NamedTuple):
    """
    What is asked, and what is right: each question wants a list for a user, made before some event of the log.

    Attributes
    ----------
    users
        (n,) int32.
    before
        (n,) int64: a list may know the events of `Evaluated.log` before this position, in leave-one-out also later ones
        of other users. What its user did before it is the user's history.
    targets
        (t,) int32: right items of all questions, those of one question together.
    ends
        (n,) int64: where the targets of each question end.

    """

    users: Int32
    before: Int64
    targets: Int32
    ends: Int64


class Lists(NamedTuple):
    """
    The answers of one system.

    Attributes
    ----------
    excluded
        (n, size) int32, best first, -1 behind the last: without items that the user met before.
    allowed
        The same with such items.

    """

    excluded: Int32
    allowed: Int32


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """
    One run.

    Attributes
    ----------
    protocol
        `leave-one-out`, `time-split` or `prequential`.
    log_name
        Name of the log.
    exclude_seen
        Which answers the headline metrics are of: those without items that the user met before, or those with them.
    log
        All events, targets included, in time order; items and users are dense numbers.
    learned
        The events every system knew before it was asked the first time.
    told
        (k,) int64: positions in `log` of the events that were told one after the other while lists were asked for.
    items
        How many items there are; items of `log` are below it.
    questions
        What was asked.
    systems
        Lists of each system by its name; `freshet` is one of them.
    freshness
        Lists of Freshet for the same questions under the mode of `exclude_seen`, when users' states are brought up to
        date only so often: by `event`, `minute`, `hour`, `day`. Empty where that was not run.
    violations
        What Freshet's lists break, by `excluded` and `allowed`; empty where that was not looked at.
    categories
        (items,) int32, dense numbers of categories; -1 where an item has none.
    vectors
        (items, d) float32 of length 1, zeros where an item has none; None where there is no encoder.
    events_per_s
        Events of the log that Freshet folded and answered a second.
    seconds
        What each system took to learn, fit and answer.

    """

    protocol: str
    log_name: str
    exclude_seen: bool
    log: Interactions
    learned: Interactions
    told: Int64
    items: int
    questions: Questions
    systems: Mapping[str, Lists]
    freshness: Mapping[str, Int32] = field(default_factory=dict)
    violations: Mapping[str, Violations] = field(default_factory=dict)
    categories: Int32
    vectors: npt.NDArray[np.float32] | None = None
    events_per_s: float
    seconds: Mapping[str, float] = field(default_factory=dict)
