"""Users who have a row in the columns: who they are, and what of them is no column."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from streams.interests import codec, layout, thawing
from streams.interests.arenas import release
from streams.interests.batch import Texts
from streams.interests.budget import Budget
from streams.interests.columns import Bool, Int64, empty_store, with_rows
from streams.interests.index import UserIndex
from streams.interests.items import ItemVectors
from streams.interests.margin import Margin

#: Rows and slots there are at first; everything doubles from there.
_FIRST_ROWS: Final = 256
_FIRST_SLOTS: Final = 4_096

#: What keeps user ids out of `item-events`: the same user reads the same there, the id cannot be read back.
_USER_HASH: Final = b"freshet-item-ev"


def user_hash(user_id: str) -> int:
    """Return the 64 bits that stand for a user on `item-events`."""
    return int.from_bytes(hashlib.blake2b(user_id.encode(), digest_size=8, person=_USER_HASH).digest(), "little")


class HotUsers:
    """
    The hot users of one partition; they are counted in the budget.

    Attributes
    ----------
    store
        Their columns; another one whenever it grows.
    row_of
        User to row.
    user_ids
        Id of the user in each row; empty for rows that are free.
    heads
        Head of each row's record.
    margins
        Row to margin, of users who have one.

    """

    def __init__(self, items: ItemVectors, budget: Budget) -> None:
        self.store = empty_store(_FIRST_SLOTS, items.dim)
        self.row_of: dict[str, int] = {}
        self.user_ids: list[str] = []
        self.heads: list[bytes] = []
        self.margins: dict[int, Margin] = {}
        self._items = items
        self._budget = budget
        self._index = UserIndex()
        self._free: list[int] = []

    def find(self, user_ids: Texts) -> Int64:
        """Return the row of each user, -1 for those who are not hot."""
        return self._index.find(user_ids)

    def enter(self, user_ids: Sequence[str], run: int) -> Int64:
        """Give users who are not hot, each named once, an empty row; `run` is the number of the run that met them."""
        count = len(user_ids)
        while len(self._free) < count:
            self._grow()
        taken = [self._free.pop() for _ in user_ids]
        rows = np.array(taken, np.int64)
        self.row_of.update(zip(user_ids, taken, strict=True))
        self._index.put(Texts.of(user_ids), rows)
        for row, user_id in zip(taken, user_ids, strict=True):
            self.user_ids[row] = user_id
        users = self.store.users
        users["user_hash"][rows] = np.fromiter(map(user_hash, user_ids), np.uint64, count)
        users["items_revision"][rows] = self._items.revision
        users["used_at"][rows] = run
        self._budget.hot_users += count
        return rows

    def fill(self, rows: Int64, thawed: thawing.Thawed) -> None:
        """Fill empty rows from records."""
        self.store = thawing.fill(self.store, self._items, rows, thawed)
        for row, head, margin in zip(rows.tolist(), thawed.heads, thawed.margins, strict=True):
            self.heads[row] = head
            if margin is not None:
                self.margins[row] = margin

    def leave(self, rows: Int64) -> None:
        """Forget what is held of hot users, and free their rows."""
        freed = rows.tolist()
        user_ids = [self.user_ids[row] for row in freed]
        self._index.drop(Texts.of(user_ids))
        release(self.store, rows)
        for row, user_id in zip(freed, user_ids, strict=True):
            del self.row_of[user_id]
            self.margins.pop(row, None)
            self.user_ids[row] = ""
            self.heads[row] = codec.NO_HEAD
        self._free += freed
        self._budget.hot_users -= len(freed)

    def idle(self, run: int, most: int) -> Int64:
        """
        Return the rows of the users met longest ago, in that order, `most` at most; none of those met in this run.

        Nor of those who changed since: their next record is still to be written, which is done from the columns.
        """
        users = self.store.users
        idle = ~users["changed"]
        idle &= users["used_at"] < run
        idle[self._free] = False
        rows = np.flatnonzero(idle)
        used_at = users["used_at"][rows]
        if most < len(rows):
            first = np.argpartition(used_at, most)[:most]
            rows, used_at = rows[first], used_at[first]
        return rows[np.argsort(used_at, kind="stable")]

    def margin(self, row: int) -> Margin:
        """Return the margin of a user, made if there is none."""
        margin = self.margins.get(row)
        if margin is None:
            margin = self.margins[row] = Margin()
        return margin

    def around(self, rows: Int64, user_ids: Sequence[str], owed: Bool, erased: dict[str, int]) -> layout.Around:
        """Return what stands around the columns in the records of rows; `erased` is user to time of the erasure, ms."""
        numbers = rows.tolist()
        erased_at_ms = np.zeros(len(rows), np.int64)
        if erased:
            erased_at_ms[:] = [erased.get(user_id, 0) for user_id in user_ids]
        margins = self.margins
        return layout.Around(
            owed,
            erased_at_ms,
            *layout.joined([self.heads[row] for row in numbers]),
            *layout.joined([margins[row].encode() if row in margins else b"" for row in numbers]),
        )

    def fit_vectors(self) -> None:
        """Follow another encoder's dimension: nothing of the old space stays."""
        if self.store.sums.shape[2] != self._items.dim:
            self.store = self.store._replace(sums=np.zeros((len(self.store.sums), 2, self._items.dim), np.float32))
            self.store.users["stale"] = True

    def clear(self) -> None:
        """Give everything back to the budget."""
        self._budget.hot_users -= len(self.row_of)
        self.row_of.clear()
        self._index.clear()

    def _grow(self) -> None:
        before = len(self.user_ids)
        rows = max(_FIRST_ROWS, 2 * before)
        self.store = with_rows(self.store, rows)
        self.user_ids.extend([""] * (rows - before))
        self.heads.extend([codec.NO_HEAD] * (rows - before))
        self._free.extend(range(rows - 1, before - 1, -1))
