"""
Ranking a batch of users against the catalogue: exact scores, a total order, reasons that add up.

Runs in a thread while the catalogue stands still. What a user's list becomes depends on that user and the catalogue
alone, not on who else is in the batch: the matrix product only chooses candidates, which are scored again in
float64 one user at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from models.decay import decay
from models.ranking import SCORE_STEP, Masked, RankingParameters, queries, search
from models.reasons import contributions, event_weights, shares, strongest
from streams.catalogue.matrix import Catalogue, View
from streams.settings import EVENT_TYPES, Settings
from streams.wire.events import TYPE_CODES
from streams.wire.recommendations import Because, RankedItem

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

#: Events named behind an item.
MAX_REASONS = 3
#: Candidates beyond the list's size: the float32 product errs by about 1e-7, so that only near-ties of 1e-5 can move.
_SPARE = 12
_STEPS = round(1 / SCORE_STEP)
_NOTHING_LIKED = frozenset({TYPE_CODES["dislikes"], TYPE_CODES["impressions"]})


class Happened(Protocol):
    """One event of a user with an item, as the state keeps it."""

    @property
    def ts_ms(self) -> int:
        """Event time."""

    @property
    def item_id(self) -> str:
        """Item met."""

    @property
    def type_code(self) -> int:
        """Index into `EVENT_TYPES`."""


class RankRequest(NamedTuple):
    """
    One user on one surface, copied from the state.

    Attributes
    ----------
    short, long, negative
        (d,) float32 interest vectors: sums of item vectors by event weight, decayed to `now_ms`; zeros when empty.
    recent
        The events reasons are looked for in.
    excluded
        Items that may not be listed: purchased and disliked ones.
    now_ms
        Time of the user's newest event.

    """

    user_id: str
    surface: str
    short: Floats
    long: Floats
    negative: Floats
    recent: Sequence[Happened]
    excluded: Collection[str]
    parameters: RankingParameters
    now_ms: int


class Ranked(NamedTuple):
    """A list, best first; shorter than asked only where the catalogue has no more items."""

    items: tuple[RankedItem, ...]


class Ranker:
    """Ranks users over one catalogue; used from one thread at a time."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self._catalogue = catalogue
        self._size = settings.list_size
        self._half_lives_s = settings.half_life_short_s, settings.half_life_long_s
        self._weights = np.array([settings.weights.get(name, 0.0) for name in EVENT_TYPES])
        self._weights[list(_NOTHING_LIKED)] = 0.0

    def default(self, parameters: RankingParameters | None = None, view: View | None = None) -> Ranked:
        """Return the list for visitors without events: the most popular items."""
        nothing = np.zeros(self._catalogue.dim, np.float32)
        chosen = parameters or RankingParameters()
        return self.rank([RankRequest("", "", nothing, nothing, nothing, (), (), chosen, 0)], view)[0]

    def rank(self, requests: Sequence[RankRequest], view: View | None = None) -> list[Ranked]:
        """
        Return the list of each user, in the order of the requests.

        Parameters
        ----------
        view
            Made beforehand by the thread that gives out rows, where that is another one; None makes it now.

        """
        if not requests:
            return []
        view = self._catalogue.view() if view is None else view
        asked = queries(
            _stack([request.short for request in requests], view),
            _stack([request.long for request in requests], view),
            _stack([request.negative for request in requests], view),
            [request.parameters for request in requests],
        )
        top = search(
            asked, view.vectors, view.popularity, view.offered, view.order, self._size + _SPARE,
            _masked(requests, view),
        )  # fmt: skip
        ranked = []
        for index, request in enumerate(requests):
            rows = top.columns[index]
            ranked.append(Ranked(self._list(request, view, rows[rows >= 0])))
        return ranked

    def _list(self, request: RankRequest, view: View, rows: Rows) -> tuple[RankedItem, ...]:
        """Score the candidates again exactly, put them in order, and say why."""
        parameters = request.parameters
        vectors = view.vectors[rows].astype(np.float64)
        short_scale = _scale(request.short, parameters.short, view)
        long_scale = _scale(request.long, parameters.long, view)
        liked = np.zeros(len(rows))
        if short_scale:
            liked += vectors @ request.short.astype(np.float64) * short_scale
        if long_scale:
            liked += vectors @ request.long.astype(np.float64) * long_scale
        personal = liked
        if negative_scale := _scale(request.negative, parameters.negative, view):
            personal = liked - np.maximum(vectors @ request.negative.astype(np.float64) * negative_scale, 0.0)
        popular = parameters.popularity * view.popularity[rows].astype(np.float64)
        steps = np.rint((personal + popular) * _STEPS).astype(np.int64)
        best = np.lexsort((view.order[rows], -steps))[: self._size]
        reasons = self._reasons(request, view, (short_scale, long_scale), vectors[best], liked[best])
        return tuple(
            RankedItem(view.ids[row], rank, step / _STEPS, _source(mine, theirs), because)
            for rank, (row, step, mine, theirs, because) in enumerate(
                zip(
                    rows[best].tolist(), steps[best].tolist(), personal[best].tolist(), popular[best].tolist(),
                    reasons, strict=True,
                ),
                start=1,
            )
        )  # fmt: skip

    def _reasons(
        self, request: RankRequest, view: View, scales: tuple[float, float], vectors: Doubles, liked: Doubles
    ) -> list[tuple[Because, ...]]:
        """Return the events behind each item; equal events (same item, same type) speak as one."""
        groups: dict[tuple[str, int], list[int]] = {}
        for event in request.recent:
            groups.setdefault((event.item_id, event.type_code), []).append(event.ts_ms)
        spoken = [group for group in groups if self._weights[group[1]] > 0]
        rows = view.find([item_id for item_id, _ in spoken])
        known = rows >= 0
        if not any(scales) or not len(vectors) or not known.any():
            return [()] * len(vectors)
        spoken = [group for group, is_known in zip(spoken, known.tolist(), strict=True) if is_known]
        weights = self._group_weights(request.now_ms, spoken, groups, scales)
        contributed = contributions(weights, view.vectors[rows[known]].astype(np.float64), vectors)
        share = shares(contributed, liked)
        share[liked <= 0] = 0.0
        named = strongest(share, MAX_REASONS)
        shown = np.take_along_axis(share, named, axis=1).round(4)
        return [
            tuple(
                Because(spoken[column][0], EVENT_TYPES[spoken[column][1]], value)
                for column, value in zip(columns, values, strict=True)
                if value > 0
            )
            for columns, values in zip(named.tolist(), shown.tolist(), strict=True)
        ]

    def _group_weights(
        self, now_ms: int, spoken: Sequence[tuple[str, int]], groups: dict[tuple[str, int], list[int]],
        scales: tuple[float, float],
    ) -> Doubles:  # fmt: skip
        """Return with which factor each group's item vector stands in the query."""
        sizes = [len(groups[group]) for group in spoken]
        ages = now_ms - np.array([ts_ms for group in spoken for ts_ms in groups[group]], np.int64)
        starts = np.cumsum([0, *sizes[:-1]])
        typed = self._weights[[type_code for _, type_code in spoken]]
        short, long = (typed * np.add.reduceat(decay(ages, half_life), starts) for half_life in self._half_lives_s)
        return event_weights(short, long, *scales)


def _masked(requests: Sequence[RankRequest], view: View) -> Masked:
    users: list[Rows] = []
    columns: list[Rows] = []
    for index, request in enumerate(requests):
        barred = set(request.excluded)
        if request.parameters.exclude_seen:
            barred.update(event.item_id for event in request.recent)
        if barred:
            rows = view.find(list(barred))
            rows = rows[rows >= 0]
            columns.append(rows)
            users.append(np.full(len(rows), index, np.int64))
    if not users:
        return Masked(np.empty(0, np.int64), np.empty(0, np.int64))
    return Masked(np.concatenate(users), np.concatenate(columns))


def _stack(vectors: Sequence[Floats], view: View) -> Floats:
    """Return (n, dim); a vector of another dimension is of another vector space and says nothing here."""
    dim = view.vectors.shape[1]
    stacked = np.zeros((len(vectors), dim), np.float32)
    for index, vector in enumerate(vectors):
        if vector.shape[0] == dim:
            stacked[index] = vector
    return stacked


def _scale(vector: Floats, weight: float, view: View) -> float:
    """Return what makes a vector as long as its ranking weight; 0 where it says nothing."""
    if vector.shape[0] != view.vectors.shape[1]:
        return 0.0
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return weight / length if length > 0 else 0.0


def _source(personal: float, popular: float) -> str:
    """Name what carries an item: the user's interest, its popularity, or nothing but that there was room."""
    if personal > 0 and personal >= popular:
        return "interest"
    return "popular" if popular > 0 else "catalogue"
