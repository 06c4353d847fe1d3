"""
Intervals of means, and of differences between two systems, by resampling users (Efron's percentile bootstrap).

Whole users are drawn, with all their questions: answers to one user are not independent of each other. The same draws
serve all columns, so that a difference of two systems is that of paired answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.interactions import Int32

#: Draws of all users; the ends of a 95 % interval then rest on 250 draws beyond each.
RESAMPLES: Final = 10_000
#: Numbers drawn at once: 32 MB, and as much again for how often each user was drawn.
_DRAWN_AT_ONCE = 1 << 22

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """
    A mean over questions, and the ends of its interval.

    Attributes
    ----------
    mean, low, high
        As the values measured.

    """

    mean: float
    low: float
    high: float

    @property
    def above(self) -> bool:
        """Whether all of the interval is above 0."""
        return self.low > 0


class Resampled(NamedTuple):
    """
    Means of columns, as measured and as resampled.

    Attributes
    ----------
    mean
        (m,) float64, over all questions.
    means
        (resamples, m) float64, each over the questions of the users of one draw.

    """

    mean: Doubles
    means: Doubles

    def interval(self, column: int, level: float = 0.95) -> Interval:
        """Return the interval that holds this share of the resampled means of a column."""
        return _interval(self.mean[column], self.means[:, column], level)

    def difference(self, column: int, other: int, level: float = 0.95) -> Interval:
        """Return the interval of how much greater a column is than another: the paired bootstrap."""
        difference = self.means[:, column] - self.means[:, other]
        return _interval(self.mean[column] - self.mean[other], difference, level)


def resampled(values: Floats, clusters: Int32, *, resamples: int = RESAMPLES, seed: int = 0) -> Resampled:
    """
    Resample the means of all columns.

    Parameters
    ----------
    values
        (n, m): what was measured of n questions in m ways.
    clusters
        (n,) int32: the user of each question.
    resamples
        How often users are drawn; memory grows with it by 8 bytes for each column.
    seed
        Of the draws; the same seed gives the same ends.

    >>> ours_and_theirs = np.array([[0.5, 0.2], [0.3, 0.2], [0.4, 0.2], [0.4, 0.2]])
    >>> means = resampled(ours_and_theirs, np.array([0, 1, 2, 2], np.int32))
    >>> round(means.difference(0, 1).mean, 3), means.difference(0, 1).above, means.difference(1, 0).above
    (0.2, True, False)

    Raises
    ------
    ValueError
        When there is no question.

    """
    if not len(values):
        raise ValueError("no question, no interval")
    _, owners = np.unique(clusters, return_inverse=True)
    users = int(owners.max()) + 1
    counts = np.bincount(owners, minlength=users)
    sums = np.stack([np.bincount(owners, column, users) for column in values.T], axis=1)
    totals = np.concatenate([sums, counts[:, None]], axis=1)
    means = np.empty((resamples, values.shape[1]))
    done = 0
    for drawn in _draws(users, resamples, seed):
        together = drawn @ totals
        means[done : done + len(drawn)] = together[:, :-1] / together[:, -1:]
        done += len(drawn)
    return Resampled(sums.sum(axis=0) / len(values), means)


def _interval(mean: float, means: Doubles, level: float) -> Interval:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(mean), float(low), float(high))


def _draws(users: int, resamples: int, seed: int) -> Iterator[Doubles]:
    """Yield how often each user was drawn, (some, users), `resamples` rows in all."""
    random = np.random.default_rng(seed)
    rows = max(1, min(resamples, _DRAWN_AT_ONCE // users))
    for begin in range(0, resamples, rows):
        here = min(rows, resamples - begin)
        drawn = random.integers(0, users, (here, users))
        drawn += np.arange(here)[:, None] * users
        yield np.bincount(drawn.ravel(), minlength=here * users).reshape(here, users).astype(np.float64)
