"""
The rolling interest vectors of the users of one partition: short, long and negative, in memory only.

They are functions of (state, item vectors), with T the time of the user's newest interaction:
short = sum over positive `recent` of w(type) 2^(-(T-ts)/half_life_short) v(item);
long = the same with half_life_long, plus sum over tallies of mass 2^(-(T-last)/half_life_long) v(item);
negative = sum over dislikes in `recent` of w 2^(-(T-ts)/half_life_negative) v(item).
The sums follow each run of events in place and are made anew when they can no longer be followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streams.interests.fold import Change
from streams.interests.slab import FoldResult
from streams.interests.state import NEGATIVE_TYPES, Interaction, Tally, UserState
from streams.settings import EVENT_TYPES, Settings

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

#: Rounding errors add up over in-place updates; after this many runs a sum is made anew.
REBUILD_AFTER_FOLDS = 256
#: A sum this much shorter than it once was is mostly the rounding error of what left it; it is made anew.
_CANCELLED = 1e-4
_SHORT, _LONG, _NEGATIVE = range(3)


class ItemVectors(Protocol):
    """The item matrix of one vector space; the catalogue is one."""

    @property
    def dim(self) -> int:
        """Length of a vector; another encoder may change it."""

    @property
    def revision(self) -> int:
        """Grows with every change of a vector."""

    @property
    def vectors(self) -> Float32:
        """(capacity, dim) float32, zeros where no vector is known."""

    @property
    def changed_at(self) -> npt.NDArray[np.int64]:
        """(capacity,) int64, the revision at which a row's vector last changed."""

    def rows(self, item_ids: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the dense row of each item, made if unknown; may grow the arrays."""


class _Held:
    """Bookkeeping of one user's row of sums."""

    __slots__ = ("folds", "item_rows", "items_revision", "newest_ts_ms", "peaks", "revision", "row", "stale")

    def __init__(self, row: int) -> None:
        self.row = row
        self.revision = -1
        self.items_revision = -1
        self.newest_ts_ms = 0
        self.folds = 0
        self.stale = True
        self.item_rows = np.empty(0, np.int32)
        self.peaks = np.zeros(3)


class InterestVectors:
    """
    Sums of the users of one partition; a user who is not held is computed when first gathered.

    Used from one thread. Sums are float64: a user may come back after years, when float32 has nothing left.
    """

    def __init__(self, items: ItemVectors, settings: Settings, capacity: int = 256) -> None:
        self._items = items
        self._half_lives_ms = tuple(
            1000.0 * half_life_s
            for half_life_s in (settings.half_life_short_s, settings.half_life_long_s, settings.half_life_negative_s)
        )
        self._weights = tuple(settings.weights.get(name, 0.0) for name in EVENT_TYPES)
        self._held: dict[str, _Held] = {}
        self._free: list[int] = []
        self._sums: Float64 = np.zeros((capacity, 3, items.dim))

    def __len__(self) -> int:
        return len(self._held)

    def fold(self, result: FoldResult) -> None:
        """Follow a run of events; call it once for each `Slab.fold`, or the users it touched are made anew."""
        if self._sums.shape[2] != self._items.dim:
            self._forget_all()
        for user_id, change in result.changes.items():
            held = self._held.get(user_id)
            if held is not None and not held.stale:
                self._follow(held, result.touched[user_id], change)

    def gather(self, users: Sequence[str], states: Sequence[UserState]) -> tuple[Float32, Float32, Float32]:
        """Return short, long and negative, each (n, dim) float32, decayed to each user's newest interaction."""
        if self._sums.shape[2] != self._items.dim:
            self._forget_all()
        rows = np.fromiter(
            (self._current(user_id, state).row for user_id, state in zip(users, states, strict=True)),
            np.intp,
            len(users),
        )
        short, long, negative = (self._sums[rows, part].astype(np.float32) for part in (_SHORT, _LONG, _NEGATIVE))
        return short, long, negative

    def forget(self, user_id: str) -> None:
        """Give a user's row back; the user may come again."""
        held = self._held.pop(user_id, None)
        if held is not None:
            self._free.append(held.row)

    def _forget_all(self) -> None:
        """Another encoder, another dimension: nothing of the old space stays."""
        self._held.clear()
        self._free.clear()
        self._sums = np.zeros((len(self._sums), 3, self._items.dim))

    def _current(self, user_id: str, state: UserState) -> _Held:
        held = self._held.get(user_id)
        if held is None:
            held = self._held[user_id] = _Held(self._take_row())
        if held.stale or held.revision != state.revision or self._moved(held):
            self._rebuild(held, state)
        return held

    def _take_row(self) -> int:
        if self._free:
            return self._free.pop()
        used = len(self._held)
        if used == len(self._sums):
            grown = np.zeros((max(2 * used, 16), *self._sums.shape[1:]))
            grown[:used] = self._sums
            self._sums = grown
        return used

    def _moved(self, held: _Held) -> bool:
        """Whether a vector in the sums changed since; notes the revision up to which none did."""
        revision = self._items.revision
        if revision == held.items_revision:
            return False
        changed_at = self._items.changed_at
        if held.item_rows.size and int(changed_at[held.item_rows].max()) > held.items_revision:
            return True
        held.items_revision = revision
        return False

    def _rebuild(self, held: _Held, state: UserState) -> None:
        newest_ts_ms = state.newest_ts_ms
        shares = [self._share(interaction, newest_ts_ms) for interaction in state.recent]
        shares += [self._tally_share(tally, newest_ts_ms) for tally in state.items.values()]
        item_ids = [interaction.item_id for interaction in state.recent] + list(state.items)
        held.item_rows = self._items.rows(item_ids)
        held.items_revision = self._items.revision
        weights = _columns(shares)
        sums = self._sums[held.row]
        sums[:] = weights @ self._items.vectors[held.item_rows].astype(np.float64)
        held.peaks = _norms(sums)
        held.newest_ts_ms = newest_ts_ms
        held.revision = state.revision
        held.folds = 0
        held.stale = False

    def _follow(self, held: _Held, state: UserState, change: Change) -> None:
        held.folds += 1
        if (
            change.replaced
            or held.revision != change.revision_before
            or held.folds >= REBUILD_AFTER_FOLDS
            or self._moved(held)
        ):
            held.stale = True
            return
        held.revision = state.revision
        if not (change.entered or change.left or change.dropped):
            return
        newest_ts_ms = state.newest_ts_ms
        sums = self._sums[held.row]
        if newest_ts_ms != held.newest_ts_ms:
            remaining = np.exp2((held.newest_ts_ms - newest_ts_ms) / np.array(self._half_lives_ms))
            sums *= remaining[:, None]
            held.peaks = held.peaks * remaining
            held.newest_ts_ms = newest_ts_ms
        shares = [self._share(interaction, newest_ts_ms) for interaction in change.entered]
        # What leaves `recent` stays in the long sum: its tally takes it over with the same decay.
        for interaction in change.left:
            short, _, negative = self._share(interaction, newest_ts_ms)
            shares.append((-short, 0.0, -negative))
        for _, tally in change.dropped:
            shares.append((0.0, -self._tally_share(tally, newest_ts_ms)[_LONG], 0.0))
        entered_ids = [interaction.item_id for interaction in change.entered]
        left_ids = [interaction.item_id for interaction in change.left]
        rows = self._items.rows(entered_ids + left_ids + [item_id for item_id, _ in change.dropped])
        held.item_rows = np.concatenate((held.item_rows, rows[: len(entered_ids)]))
        weights = _columns(shares)
        sums += weights @ self._items.vectors[rows].astype(np.float64)
        norms = _norms(sums)
        held.peaks = np.maximum(np.maximum(held.peaks, np.abs(weights).max(axis=1)), norms)
        if (norms < _CANCELLED * held.peaks).any():
            held.stale = True

    def _share(self, interaction: Interaction, newest_ts_ms: int) -> tuple[float, float, float]:
        """What one interaction adds to (short, long, negative)."""
        age_ms = newest_ts_ms - interaction.ts_ms
        weight = self._weights[interaction.type_code]
        half_short, half_long, half_negative = self._half_lives_ms
        if interaction.type_code in NEGATIVE_TYPES:
            return 0.0, 0.0, weight * 2.0 ** (-age_ms / half_negative)
        return weight * 2.0 ** (-age_ms / half_short), weight * 2.0 ** (-age_ms / half_long), 0.0

    def _tally_share(self, tally: Tally, newest_ts_ms: int) -> tuple[float, float, float]:
        age_ms = newest_ts_ms - tally.last_ts_ms
        return 0.0, tally.mass * 2.0 ** (-age_ms / self._half_lives_ms[_LONG]), 0.0


def _columns(shares: Iterable[tuple[float, float, float]]) -> Float64:
    """Return (3, k): the weight of each item vector in each sum."""
    return np.array(list(shares), np.float64).reshape(-1, 3).T


def _norms(sums: Float64) -> Float64:
    norms: Float64 = np.sqrt(np.einsum("pd,pd->p", sums, sums))
    return norms
