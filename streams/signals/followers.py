"""
Sequential rules: what follows an item within a session, and at half the weight what it follows.

An event with items met before it in the same session adds, for each of these, 1 / distance to the rule from it to the
event's item, and half of that to the rule back; an item met twice counts at its nearer place. Weights decay by event
time; the rules of an item are a bounded sketch (`models.heavy_hitters`), of which the heaviest are published as shares.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.decay import epoch_shares
from models.heavy_hitters import Counted, HeavyHitters
from streams.wire.neighbours import MAX_NEIGHBOURS, Neighbour
from streams.wire.signals import PREVIOUS

Ints = npt.NDArray[np.int64]

#: Decimals of a published share: 64 of them stay readable and small.
_DECIMALS = 6
#: What goes together often does so in either order: with rules back, the lists of MovieLens-100K hit a tenth more.
_BACK = 0.5
_WEIGHTS = np.concatenate([1.0 / np.arange(1, PREVIOUS + 1), _BACK / np.arange(1, PREVIOUS + 1)])


def heaviest(counted: Counted, ids: Sequence[str]) -> tuple[Neighbour, ...]:
    """
    Return what is published of an item's rules: (item id, share in 0..1), heaviest first.

    Shares are what is certain, the sketch's lower bound, over the weight of all rules of the item.

    >>> counted = Counted(5, 4.0, np.array([1, 0]), np.array([1.0, 3.0]), np.array([0.0, 1.0]))
    >>> heaviest(counted, ["a", "b"])
    (('a', 0.5), ('b', 0.25))
    """
    certain = counted.weights - counted.errors
    order = np.argsort(-certain, kind="stable")[:MAX_NEIGHBOURS]
    shares = np.round(certain[order] / (counted.total or 1.0), _DECIMALS).tolist()
    targets = counted.targets[order].tolist()
    return tuple((ids[target], share) for target, share in zip(targets, shares, strict=True) if share > 0)


class Followers:
    """
    Rules of the items of one owned partition, by row.

    The sketch of an item is a function of the sequence of its events.
    """

    def __init__(self, half_life_s: float) -> None:
        self._half_life_s = half_life_s
        self._hitters = HeavyHitters()

    @property
    def nbytes(self) -> int:
        """Bytes of the sketches."""
        return self._hitters.nbytes

    def learn(self, item: Ints, own: Ints, previous: Ints, rows: Ints, ts_ms: Ints) -> Ints:
        """
        Take in events, in order; return the rows whose rules changed.

        Parameters
        ----------
        item, own, ts_ms
            (n,) each: number of the event's item, its row or -1 where it is not of this partition, and the time.
        previous, rows
            (n, 3) each: numbers of the items before, newest first, -1 where there is none; and their rows, -1 where
            they are not of this partition.

        """
        pairs = (previous >= 0) & (previous != item[:, None])
        for later in range(1, PREVIOUS):
            for nearer in range(later):
                pairs[:, later] &= previous[:, later] != previous[:, nearer]
        forth, back = pairs & (rows >= 0), pairs & (own >= 0)[:, None]
        event, step = np.nonzero(np.concatenate((forth, back), axis=1))
        epochs, shares = epoch_shares(ts_ms[event], _WEIGHTS[step], self._half_life_s)
        is_back, before = step >= PREVIOUS, step % PREVIOUS
        changed = np.where(is_back, own[event], rows[event, before])
        targets = np.where(is_back, previous[event, before], item[event])
        self._hitters.learn(changed, targets.astype(np.int32), epochs, shares)
        return np.unique(changed)

    def state(self, row: int) -> Counted:
        """Return a copy of what is kept of a row."""
        return self._hitters.counted(row)

    def restore(self, row: int, counted: Counted) -> None:
        """Take back what was kept of a row."""
        self._hitters.restore(row, counted)
