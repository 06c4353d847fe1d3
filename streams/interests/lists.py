"""The lists that hot users had before, as ranking reads them: out of the heads into columns."""

from __future__ import annotations

from itertools import chain

import numpy as np

from models.consistency import Previous, no_previous
from streams.interests.columns import Bool, Int64
from streams.interests.slab import Slab
from streams.wire.events import IMPRESSION


def previous_lists(slab: Slab, rows: Int64, wanted: Bool) -> Previous:
    """
    Return the last list of each hot user.

    Parameters
    ----------
    rows
        (n,) rows of the users.
    wanted
        (n,) whose list is read; the others have none.

    """
    if not wanted.any():
        return no_previous(len(rows))
    asked = np.flatnonzero(wanted)
    lists = slab.heads(rows[asked])
    sizes = np.zeros(len(rows), np.int64)
    sizes[asked] = [len(one.ids) for one in lists]
    shape, total = (len(rows), int(sizes.max())), int(sizes.sum())
    items, ago, marks = np.full(shape, -1, np.int32), np.zeros(shape, np.int64), np.zeros(shape, np.uint16)
    made_ms, newest, events = np.zeros((3, len(rows)), np.int64)
    filled = np.arange(shape[1]) < sizes[:, None]
    found = slab.find_items(list(chain.from_iterable([one.ids for one in lists])))
    items[filled] = np.where(found < 0, -2, found)
    ago[filled] = np.fromiter(chain.from_iterable([one.since for one in lists]), np.int64, total)
    marks[filled] = np.frombuffer(b"".join([one.price_marks or bytes(2 * len(one.ids)) for one in lists]), "<u2")
    made_ms[asked], newest[asked], events[asked] = np.array(
        [(one.generated_at, one.newest, one.events) for one in lists], np.int64
    ).T
    explored = np.zeros((len(rows), 2), np.int64)
    explored[asked] = [one.explored for one in lists]
    interactions = slab.store.users["counts"][rows, :IMPRESSION].sum(axis=1)
    return Previous(items, made_ms[:, None] - ago, marks, made_ms - newest, interactions != events, explored)
