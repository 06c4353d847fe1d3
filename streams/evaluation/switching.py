"""
How fast lists follow a switched interest: planted users who met one category alone turn to another, for good.

The live path has learned a whole log. Each planted user meets items of one category, then of the other, drawn by how
often the log's users met them, a minute apart and so within one session, in which lists are held to. After each event
the list is made anew under every setting of `steadiness`, with the one before it. An item on it is of the new category
when that is its own, or names one of its tags: a thriller may be filed under drama.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.interactions import Int32, Int64, Interactions
from streams.evaluation.live import Live
from streams.evaluation.logs import EvaluationLog
from streams.evaluation.progress import Progress
from streams.evaluation.steadiness import CUT, Setting, refreshed

#: Events in the first category and, at most, in the second.
BEFORE: Final = 20
AFTER: Final = 20
#: Users planted.
USERS: Final = 200
#: Fewest met items of a category: after all events as many are left as a list has.
_FEWEST: Final = BEFORE + AFTER
_STEP_MS: Final = 60_000
_SEED: Final = 7


class Switches(NamedTuple):
    """
    Planted users.

    Attributes
    ----------
    users
        (n,) int32, their numbers.
    items
        (n, BEFORE + AFTER) int32, what they meet.
    turned_to
        (n,) int64 rows of `of_it`.
    of_it
        (categories, items) bool: which items are of each category, by their own or by a tag.

    """

    users: Int32
    items: Int32
    turned_to: Int64
    of_it: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """
    One setting of the knob.

    Attributes
    ----------
    median, p90
        Events in the new category until half of the first 10 is of it, over the users; one more than was looked at
        where that never came.
    within_8
        Share of the users for whom 8 events are enough.

    """

    steadiness: float
    median: float
    p90: float
    within_8: float


def plant(log: EvaluationLog, count: int = USERS) -> tuple[EvaluationLog, Switches] | None:
    """Return a log with so many more users, who have no events yet, and what they will do; None without categories."""
    categories = log.categories()
    met = np.bincount(log.interactions.items, minlength=len(log.items))
    sizes = np.bincount(categories[(categories >= 0) & (met > 0)])
    eligible = np.flatnonzero(sizes >= _FEWEST)
    if len(eligible) < 2:
        return None
    random = np.random.default_rng(_SEED)
    items = np.empty((count, BEFORE + AFTER), np.int32)
    turned_to = np.empty(count, np.int64)
    for row in range(count):
        first, second = random.choice(eligible, 2, replace=False)
        items[row, :BEFORE] = _drawn(random, categories == first, met, BEFORE)
        items[row, BEFORE:] = _drawn(random, categories == second, met, AFTER)
        turned_to[row] = second
    users = np.arange(len(log.users), len(log.users) + count, dtype=np.int32)
    names = [f"planted {number}" for number in range(count)]
    return replace(log, users=[*log.users, *names]), Switches(users, items, turned_to, _of_each(log, categories))


def _of_each(log: EvaluationLog, categories: Int32) -> npt.NDArray[np.bool_]:
    """Return which items are of each category (categories, items), by their own or by a tag of its name."""
    number_of = {item: number for number, item in enumerate(log.items)}
    category_of = {card.category: categories[number_of[card.item_id]] for card in log.cards if card.category}
    of_it: npt.NDArray[np.bool_] = np.arange(int(categories.max()) + 1)[:, None] == categories
    for card in log.cards:
        for tag in card.tags:
            if tag in category_of:
                of_it[category_of[tag], number_of[card.item_id]] = True
    return of_it


def _drawn(random: np.random.Generator, chosen: npt.NDArray[np.bool_], met: Int64, count: int) -> Int64:
    weights = np.where(chosen, met, 0.0)
    return random.choice(len(met), count, replace=False, p=weights / weights.sum())


def followed(
    live: Live, log: EvaluationLog, switches: Switches, knobs: list[float], progress: Progress
) -> list[Followed]:  # fmt: skip
    """
    Return how fast lists follow, by setting of the knob.

    Parameters
    ----------
    live
        Has learned the log, and is fitted.

    """
    users = switches.users.astype(np.int64)
    settings = [Setting(knob, len(log.users), log.categories()) for knob in knobs]
    needed = np.full((len(knobs), len(users)), AFTER + 1)
    kind = np.uint8(np.bincount(log.interactions.kinds).argmax())
    begin_ms = int(log.interactions.ts_ms[-1]) + _STEP_MS
    for step, items in enumerate(np.ascontiguousarray(switches.items.T)):
        now_ms = np.full(len(users), begin_ms + step * _STEP_MS)
        none = np.full(len(users), -1, np.int32)
        live.learn(Interactions(switches.users, items, np.full(len(users), kind), now_ms, none, none))
        for place, lists in enumerate(refreshed(live, settings, users, moved=True)):
            settings[place].take(users, lists, now_ms)
            first = lists[:, :CUT]
            of_it = ((first >= 0) & switches.of_it[switches.turned_to[:, None], first]).sum(axis=1)
            if step >= BEFORE:
                follows = of_it >= CUT / 2
                needed[place, follows] = np.minimum(needed[place, follows], step - BEFORE + 1)
        progress(len(users))
    return [
        Followed(
            steadiness=knob,
            median=float(np.median(found)),
            p90=float(np.quantile(found, 0.9)),
            within_8=float((found <= 8).mean()),
        )
        for knob, found in zip(knobs, needed, strict=True)
    ]
