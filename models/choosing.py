"""
One list, chosen greedily: slot by slot the candidate that is worth most beside those chosen already.

Worth is the score with bonus and boost, less what likeness to the chosen and another share of its category take from it
(`models.diversity`, `models.calibration`). Who may be chosen at all, `models.caps` and the budget of newcomers say.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models import calibration, caps, diversity
from models.calibration import Profile
from models.caps import ANY, NOTHING_NEW, STRICT, Attributes, Limits, Standing
from models.compiled import compiled
from models.diversity import OFF, Repulsion
from models.events import Events, Weighing

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]

#: A cap, a window, a budget that is off.
NONE: Final = 1 << 30


class Aims(NamedTuple):
    """
    What n lists are to be, see `models.reranking.RerankParameters`.

    Attributes
    ----------
    method, repel, window
        (n,) `OFF`, `MMR` or `DPP` of `models.diversity`, the weight of unlikeness, and how many choices repel.
    calibrate
        (n,) weight of the divergence.
    brand, category, far
        (n,) how many items may be of one brand, of one category, and far from the user's prices.
    plain
        (n,) whether nothing is asked: the list is the first of the pool.

    """

    method: Ints
    repel: Doubles
    window: Ints
    calibrate: Doubles
    brand: Ints
    category: Ints
    far: Ints
    plain: npt.NDArray[np.bool_]


class Candidates(NamedTuple):
    """
    What is known of one user's m candidates while k of them are chosen, scratch.

    Attributes
    ----------
    worth
        (m,) float64, score with boost and bonus, in steps.
    taken
        (m,) bool, whether it is chosen, or stands fast in a slot.
    slots, since_ms
        (m,) int64, its place on the list before, -1 for newcomers, and since when.
    sorts, kinds
        (m,) int64, place of its category in the profile; (1,) int64, the profile's categories.
    chosen
        (k,) int64, the candidates chosen, in turn.
    fixed
        (k,) int64, the candidates that stand fast in slots, -1 for none.

    """

    worth: Doubles
    taken: npt.NDArray[np.bool_]
    slots: Ints
    since_ms: Ints
    sorts: Ints
    kinds: Ints
    chosen: Ints
    fixed: Ints


class Desk(NamedTuple):
    """All scratch of one list."""

    candidates: Candidates
    repulsion: Repulsion
    profile: Profile
    standing: Standing


class Made(NamedTuple):
    """Of one list: newcomers, those of them beyond the budget, and items for which price band or caps were given up."""

    newcomers: int
    excess: int
    beyond: int


def empty_desk(pool: int, size: int) -> Desk:
    """Return scratch for choosing up to so many out of pools of up to so many."""
    candidates = Candidates(
        worth=np.zeros(pool),
        taken=np.zeros(pool, np.bool_),
        slots=np.zeros(pool, np.int64),
        since_ms=np.zeros(pool, np.int64),
        sorts=np.zeros(pool, np.int64),
        kinds=np.zeros(1, np.int64),
        chosen=np.zeros(size, np.int64),
        fixed=np.zeros(size, np.int64),
    )
    return Desk(
        candidates, diversity.no_repulsion(pool, size), calibration.no_profile(), caps.no_standing(pool)
    )  # fmt: skip


@compiled
def begin(
    events: Events, now_ms: int, weighing: Weighing, attributes: Attributes, aims: Aims, user: int, rows: Rows,
    count: int, desk: Desk,
) -> None:  # fmt: skip
    """
    Begin an empty list.

    Parameters
    ----------
    rows
        (m,) rows of the candidates, `count` of them.

    """
    profile, standing = desk.profile, desk.standing
    kinds = 0
    if aims.calibrate[user] > 0.0:
        kinds = calibration.tell(events, user, now_ms, attributes.categories, weighing, profile)
    calibration.begin(profile, kinds)
    for candidate in range(count):
        desk.candidates.sorts[candidate] = calibration.find(profile, kinds, attributes.categories[rows[candidate]])
    middle = math.nan
    if aims.far[user] < NONE:
        middle = caps.middle_price(events, user, attributes.prices, weighing, standing.prices)
    caps.begin(standing, rows, count, attributes, middle)
    diversity.begin(desk.repulsion, count)
    desk.candidates.kinds[0] = kinds


@compiled
def choose(
    step: float, attributes: Attributes, vectors: Floats, aims: Aims, user: int, rows: Rows, count: int, size: int,
    budget: int, places: Ints, desk: Desk,
) -> Made:  # fmt: skip
    """
    Fill a list: first the slots that stand fast, then one after the other.

    Parameters
    ----------
    step
        What one step of the score is worth.
    size
        Length of the list; what is chosen behind it stands by, and no guardrail is given up for it.
    budget
        How many of the list may be newcomers, while the guardrails leave anybody else.
    places
        (k,) the candidates chosen, -1 before.

    """
    candidates, profile = desk.candidates, desk.profile
    limits = Limits(aims.brand[user], aims.category[user], aims.far[user])
    method, kinds = aims.method[user], candidates.kinds[0]
    picked = newcomers = excess = beyond = 0
    for turn in range(size + len(places)):
        # Twice through the slots of the list: what stands fast is chosen before all others.
        slot = turn if turn < size else turn - size
        candidate = candidates.fixed[slot]
        if (turn < size) != (candidate >= 0):
            continue
        if turn >= size:
            first = max(picked - aims.window[user], 0)
            if method != OFF and first > 0 and picked < size:
                diversity.slide(method, desk.repulsion, count, candidates.chosen, first, picked)
            if kinds:
                calibration.diverge(profile, kinds, picked + 1)
            give_up = NOTHING_NEW if slot < size and newcomers >= budget else STRICT
            # What stands by can take any place of the list, if the guardrails hold for both together.
            while candidate < 0 and give_up <= (ANY if slot < size else STRICT):
                candidate = _best(step, vectors, aims, user, rows, count, size, limits, give_up, picked, desk)
                give_up += 1
            if candidate < 0:
                continue
            if slot < size:
                beyond += give_up > STRICT + 1
                excess += candidates.slots[candidate] < 0 and newcomers >= budget
        places[slot] = candidate
        candidates.taken[candidate] = True
        candidates.chosen[picked] = candidate
        picked += 1
        profile.listed[candidates.sorts[candidate]] += 1
        caps.note(desk.standing, rows, count, attributes, candidate)
        newcomers += slot < size and candidates.slots[candidate] < 0
    return Made(newcomers, excess, beyond)


@compiled
def _best(
    step: float, vectors: Floats, aims: Aims, user: int, rows: Rows, count: int, size: int, limits: Limits,
    give_up: int, picked: int, desk: Desk,
) -> int:  # fmt: skip
    """
    Return the candidate that is worth most beside those chosen, the first of those worth the same; -1 for none.

    Behind the list, where nobody sees items beside each other, none repels another.
    """
    candidates, repulsion = desk.candidates, desk.repulsion
    first, repel = max(picked - aims.window[user], 0), aims.repel[user] if picked < size else 0.0
    best, most = -1, -math.inf
    for candidate in range(count):
        if candidates.taken[candidate] or (give_up == NOTHING_NEW and candidates.slots[candidate] < 0):
            continue
        if not caps.fits(desk.standing, limits, candidate, give_up):
            continue
        worth = _worth(step, repel, aims.calibrate[user], candidate, desk)
        # A term that is not up to date is only a bound: who does not lead by it need not be looked at.
        if worth > most and repel > 0.0 and repulsion.seen[candidate] < picked:
            diversity.look(aims.method[user], repulsion, rows, vectors, candidates.chosen, first, picked, candidate)
            worth = _worth(step, repel, aims.calibrate[user], candidate, desk)
        if worth > most:
            best, most = candidate, worth
    return best


@compiled
def _worth(step: float, repel: float, calibrate: float, candidate: int, desk: Desk) -> float:
    """Return what a candidate is worth beside those chosen, as far as is known."""
    worth: float = desk.candidates.worth[candidate] * step
    if repel > 0.0:
        worth = (1.0 - repel) * worth + repel * desk.repulsion.terms[candidate]
    if calibrate > 0.0:
        divergence = desk.profile.divergences[desk.candidates.sorts[candidate]]
        worth = (1.0 - calibrate) * worth - calibrate * divergence
    return worth


@compiled
def close_up(places: Ints) -> None:
    """Let no hole stand before an item, where a pool was too small to reach the slots that stand fast."""
    length = 0
    for place in range(len(places)):
        if places[place] >= 0:
            places[length] = places[place]
            length += 1
    for place in range(length, len(places)):
        places[place] = -1
