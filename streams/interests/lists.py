"""The lists that hot users had before, as ranking reads them: out of the heads into columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.consistency import Previous
from streams.interests.columns import Int64
from streams.interests.slab import Slab
from streams.interests.state import LastList
from streams.wire.events import IMPRESSION

_NO_LIST = LastList(0, 0, (), 0, 0, ())


def previous_lists(slab: Slab, rows: Int64, wanted: Sequence[bool]) -> Previous:
    """
    Return the last list of each hot user.

    Parameters
    ----------
    rows
        (n,) rows of the users.
    wanted
        Whose list is read; the others have none.

    """
    lists = [
        (slab.last_list(row) or _NO_LIST) if read else _NO_LIST for row, read in zip(rows.tolist(), wanted, strict=True)
    ]
    sizes = np.array([len(one.items) for one in lists], np.int64)
    shape = (len(lists), int(sizes.max(initial=0)))
    filled = np.arange(shape[1]) < sizes[:, None]
    items, since_ms, marks = np.full(shape, -1, np.int32), np.zeros(shape, np.int64), np.zeros(shape, np.uint16)
    found = slab.find_items([item_id for one in lists for item_id, _ in one.items])
    items[filled] = np.where(found < 0, -2, found)
    since_ms[filled] = [since for one in lists for _, since in one.items]
    marks[filled] = [mark for one in lists for mark in one.price_marks or (0,) * len(one.items)]
    interactions = slab.store.users["counts"][rows, :IMPRESSION].sum(axis=1)
    return Previous(
        items,
        since_ms,
        marks,
        np.array([one.newest_ms for one in lists], np.int64),
        interactions != np.array([one.events for one in lists], np.int64),
    )
