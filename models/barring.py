"""Which items may not be listed for whom: what is excluded and not due again, and what was met before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from models.ranking import Barred, Weights
from models.users import Excluded, Owned, Users


def barred_items(
    users: Users, weights: Weights, rows: int, bought: npt.NDArray[np.int64], stamp: int
) -> Barred:  # fmt: skip
    """
    Return what may not be listed for each user: what is excluded, and their whole history if that is to stay out.

    Parameters
    ----------
    rows
        Of the catalogue.
    bought
        (rows,) scratch: the stamp of the last user who bought the item.
    stamp
        Of the first user; greater than all that stand there, as are those of the others, which follow.

    """
    owned, excluded = users.owned, users.excluded
    columns = np.empty(len(excluded.items) + len(owned.items), np.int32)
    ends = np.empty(len(users.parameters), np.int64)
    used = _bar(
        owned, excluded, users.now_ms, weights.exclude_seen, weights.repurchase_ms, rows, bought, stamp,
        columns, ends,
    )  # fmt: skip
    return Barred(columns[:used], ends)


@compiled
def _bar(
    owned: Owned, excluded: Excluded, now_ms: npt.NDArray[np.int64],
    exclude_seen: npt.NDArray[np.bool_], repurchase_ms: npt.NDArray[np.float64], rows: int,
    bought: npt.NDArray[np.int64], stamp: int, columns: npt.NDArray[np.int32], ends: npt.NDArray[np.int64],
) -> int:  # fmt: skip
    """Write the barred items of each user one behind another; `bought` (rows,) is scratch."""
    used = 0
    for user in range(len(ends)):
        first, end = owned.ends[user - 1] if user else 0, owned.ends[user]
        for place in range(first, end):
            item = owned.items[place]
            if exclude_seen[user]:
                columns[used] = item
                used += 1
            elif owned.bought[place] and item < rows:
                bought[item] = stamp + user
        for place in range(excluded.ends[user - 1] if user else 0, excluded.ends[user]):
            item = excluded.items[place]
            due = now_ms[user] - excluded.ts_ms[place] >= repurchase_ms[user]
            if not (due and 0 <= item < rows and bought[item] == stamp + user):
                columns[used] = item
                used += 1
        ends[user] = used
    return used
