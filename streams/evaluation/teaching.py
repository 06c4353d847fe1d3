"""
What a scorer is taught on: users as the live path knew them just before, and items that were right for them or wrong.

A log with impressions says what was shown; an item that the user meets soon after was the right one. Without them every
item that a user met is right, and for each some that others met are wrong. The live path learns the log in short runs
and tells the users' vectors before each: nothing that happens in a run or behind it is in them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.interaction_network import Pairs
from models.interactions import Int32, Int64, Interactions
from models.scorer import direction
from streams.errors import ConfigurationError
from streams.evaluation.live import Live
from streams.evaluation.logs import Impressions
from streams.evaluation.progress import Progress
from streams.wire.events import TYPE_CODES

#: Runs into which a log is cut: vectors are that many times up to date.
_RUNS: Final = 8_192
#: Users of a run whose vectors are kept: at most 100 MB of 384 elements, and 250 MB of 1,000.
_USERS_OF_RUN: Final = 8
#: Items that were met and are learned from, at random if there are more.
_MAX_MET: Final = 200_000
#: Items of others for each that was met.
_WRONG_FOR_EACH: Final = 4
#: How soon after it was shown an item has to be met to have been right.
_SOON_MS: Final = 30 * 60_000
_DISLIKE: Final = TYPE_CODES["dislikes"]


class Shown(NamedTuple):
    """
    Items that were right or wrong for users, the earliest first.

    Attributes
    ----------
    users, items
        (n,) int32, by their numbers in the log.
    before
        (n,) int64, how many events of the log happened before.
    right
        (n,) bool.

    """

    users: Int32
    items: Int32
    before: Int64
    right: npt.NDArray[np.bool_]

    def at(self, chosen: Int64) -> Shown:
        """Return some of them."""
        return Shown(self.users[chosen], self.items[chosen], self.before[chosen], self.right[chosen])


def shown_or_sampled(log: Interactions, impressions: Impressions, items: int, seed: int) -> Shown:
    """
    Return what a log's impressions tell; where there are none, samples of the log itself.

    What was shown to a user behind the user's last event in the log is left out: what followed is not known.
    """
    last_ms = np.full(max(log.users.max(), impressions.users.max(initial=0)) + 1, -1, np.int64)
    np.maximum.at(last_ms, log.users, log.ts_ms)
    past = impressions.ts_ms <= last_ms[impressions.users]
    if past.any():
        return _shown(log, impressions.users[past], impressions.items[past], impressions.ts_ms[past], items)
    return _sampled(log, items, np.random.default_rng(seed))


def pairs_of(live: Live, log: Interactions, shown: Shown, items: int, seed: int, progress: Progress) -> Pairs:
    """
    Let the live path learn a log, and return what was shown with its users' directions just before.

    Users of whom nothing is known by then are left out, and of each run all but some.

    Raises
    ------
    ConfigurationError
        When items have no vectors.

    """
    if not live.catalogue.dim or not live.catalogue.has_vector[:items].any():
        raise ConfigurationError("a scorer reads item vectors, and nothing is told of this log's items: see --items")
    random = np.random.default_rng(seed)
    directions: list[npt.NDArray[np.float32]] = []
    kept: list[Int64] = []
    rows: list[Int32] = []
    count, length = 0, -(-len(log.users) // _RUNS)
    for start in range(0, len(log.users), length):
        first, behind = np.searchsorted(shown.before, [start, start + length])
        users = np.unique(shown.users[first:behind])
        if len(users) > _USERS_OF_RUN:
            users = np.sort(random.choice(users, _USERS_OF_RUN, replace=False))
        short, long, _ = live.interests(users.tolist())
        found = direction(short, long)
        known = found.any(axis=1)
        places = first + np.flatnonzero(np.isin(shown.users[first:behind], users[known]))
        kept.append(places)
        rows.append((count + np.searchsorted(users[known], shown.users[places])).astype(np.int32))
        directions.append(found[known])
        count += int(known.sum())
        part = log.at(slice(start, start + length))
        live.learn(part)
        progress(len(part.users))
    told = shown.at(np.concatenate(kept))
    vectors = live.catalogue.vectors[:items].copy()
    return Pairs(np.concatenate(directions), vectors, np.concatenate(rows), told.items, told.right.astype(np.float32))


def _shown(log: Interactions, users: Int32, items: Int32, ts_ms: Int64, count: int) -> Shown:
    """Return what was shown; right is what its user met soon after, dislikes apart."""
    liked = log.at(log.kinds != _DISLIKE)
    met = liked.users.astype(np.int64) * count + liked.items
    order = np.lexsort((liked.ts_ms, met))
    met, met_ms = met[order], liked.ts_ms[order]
    pairs = users.astype(np.int64) * count + items
    # The first event of the pair at that time or later: pairs and times as one number would not fit.
    right = np.zeros(len(pairs), np.bool_)
    begins, ends = np.searchsorted(met, pairs, "left"), np.searchsorted(met, pairs, "right")
    for place, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
        at = begin + int(np.searchsorted(met_ms[begin:end], ts_ms[place]))
        right[place] = at < end and met_ms[at] - ts_ms[place] <= _SOON_MS
    return Shown(users, items, np.searchsorted(log.ts_ms, ts_ms), right)


def _sampled(log: Interactions, count: int, random: np.random.Generator) -> Shown:
    """Return items that were met, and for each some that others met, as often as they were met."""
    met = np.flatnonzero(log.kinds != _DISLIKE)
    if len(met) > _MAX_MET:
        met = np.sort(random.choice(met, _MAX_MET, replace=False))
    users = np.repeat(log.users[met], _WRONG_FOR_EACH)
    wrong = log.items[random.integers(len(log.users), size=len(users))]
    own = np.unique(log.users.astype(np.int64) * count + log.items)
    others = ~np.isin(users.astype(np.int64) * count + wrong, own)
    before = np.concatenate([met, np.repeat(met, _WRONG_FOR_EACH)[others]])
    shown = Shown(
        np.concatenate([log.users[met], users[others]]),
        np.concatenate([log.items[met], wrong[others]]),
        before,
        np.arange(len(before)) < len(met),
    )
    return shown.at(np.argsort(before, kind="stable"))
