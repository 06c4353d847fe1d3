"""
The rolling interest vectors of users in columns: short, long and negative, in memory only.

They are functions of (state, item vectors), with T the time of the user's newest interaction:
short = sum over positive `recent` of w(type) 2^(-(T-ts)/half_life_short) v(item);
long = the same with half_life_long, plus sum over tallies of mass 2^(-(T-last)/half_life_long) v(item);
negative = sum over dislikes in `recent` of w 2^(-(T-ts)/half_life_negative) v(item).
Short and long follow every event in place (`fold`, `sums`); negative, which few users have, is made when asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.ranking import RankingParameters
from models.users import Users
from streams.interests.columns import Float32, Int64
from streams.interests.lists import previous_lists
from streams.interests.recents import newest_ts_ms, owned_items, recent_events
from streams.interests.slab import Slab
from streams.interests.sums import gather


class InterestVectors:
    """The users of one slab as ranking reads them, above all their vectors; used from the thread that folds."""

    def __init__(self, slab: Slab) -> None:
        self._slab = slab

    def users(
        self, rows: Int64, parameters: Sequence[RankingParameters], without_event: Sequence[bool] | None = None
    ) -> Users:  # fmt: skip
        """
        Return what the lists of hot users are decided from, copied.

        Parameters
        ----------
        without_event
            Whose list is made though no event asks for it: it stays as it is if none came since.

        """
        slab = self._slab
        interests = self.gather(rows)
        events = recent_events(slab.store, rows)
        owned = owned_items(slab.store, slab.rules, rows, len(slab.items().vectors))
        wanted = np.array([one.steadiness > 0 for one in parameters], np.bool_)
        if without_event is not None:
            wanted |= np.array(without_event, np.bool_)
        before = previous_lists(slab, rows, wanted)
        keys, devices = (slab.store.users[name][rows] for name in ("user_hash", "device"))
        return Users(
            interests, events, owned, slab.excluded_items(rows), newest_ts_ms(events), devices, parameters, before, keys
        )  # fmt: skip

    def gather(self, rows: Int64) -> Float32:
        """Return (3, n, dim): short, long and negative of n rows, as of each user's newest interaction."""
        slab = self._slab
        slab.fit_vectors()
        dim = slab.store.sums.shape[2]
        out = np.empty((3, len(rows), dim), np.float32)
        gather(slab.store, slab.rules, slab.items(), rows, out, np.empty((3, dim)))
        return out
