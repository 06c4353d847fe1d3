"""
What each user met lately, for the fit of item-to-item weights: item events enter, a matrix of histories leaves.

A history is a user's newest distinct items by (time, checksum of the id). That is a join: order and duplicates of
events change nothing, so reading the topic again gives the same counts exactly.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from streams.wire.signals import ItemEvents

_FIRST_USERS = 1_024
#: Share of the users who leave together when one more comes, so that the sort is paid once for many.
_LEAVING = 8

Ints = npt.NDArray[np.int64]


class HistoryMatrix(NamedTuple):
    """Histories (users, w) int32 as indices into `ids`, -1 where there is none or it is another item."""

    ids: list[str]
    histories: npt.NDArray[np.int32]


class Histories:
    """
    Histories of `length` items of at most `max_users` users, 12 bytes an item.

    When one more comes, the eighth that was silent the longest leaves; until then what is held is a function of the set
    of events, however read.

    Attributes
    ----------
    changes
        Entries that were new since `changes` was last set to 0.

    """

    def __init__(self, max_users: int, length: int) -> None:
        self.changes = 0
        self._max_users = max_users
        self._numbers: dict[str, int] = {}
        self._ids: list[str] = []
        #: What orders items of one time; their numbers depend on what was read first.
        self._marks = np.empty(1_024, np.int64)
        self._rows: dict[int, int] = {}
        self._items = np.full((_FIRST_USERS, length), -1, np.int32)
        self._times = np.full((_FIRST_USERS, length), -1, np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def held(self) -> int:
        """Entries of all histories."""
        return int(np.count_nonzero(self._items[: len(self._rows)] >= 0))

    def add(self, events: ItemEvents, counts: npt.NDArray[np.bool_]) -> None:
        """Take in those events of a batch whose entry in `counts` (n,) is true."""
        numbers = np.array([self._number(item_id) for item_id in events.ids], np.int32)
        users, place = np.unique(events.user[counts], return_inverse=True)
        rows = np.array([self._row(user) for user in users.tolist()], np.int64)
        item, ts_ms = numbers[events.item[counts]], events.ts_ms[counts]
        self.changes += _join(rows[place], item, ts_ms, self._marks, self._items, self._times)
        if len(self._rows) > self._max_users:
            self._drop_silent()

    def matrix(self, max_items: int) -> HistoryMatrix:
        """
        Return the histories over the items that most users met, at most so many; equals by the checksum of their ids.

        So the items' order, and with it how a fit rounds, does not depend on what was read first.
        """
        items = self._items[: len(self._rows)]
        met = np.bincount(items[items >= 0], minlength=len(self._ids))
        chosen = np.lexsort((self._marks[: len(met)], -met))[:max_items]
        chosen = chosen[met[chosen] > 0]
        # One more entry, so that -1 (no item) stays -1.
        place = np.full(len(self._ids) + 1, -1, np.int32)
        place[chosen] = np.arange(len(chosen), dtype=np.int32)
        return HistoryMatrix([self._ids[number] for number in chosen.tolist()], place[items])

    def _number(self, item_id: str) -> int:
        number = self._numbers.setdefault(item_id, len(self._ids))
        if number == len(self._ids):
            self._ids.append(item_id)
            if number == len(self._marks):
                self._marks = np.append(self._marks, np.empty_like(self._marks))
            self._marks[number] = zlib.crc32(item_id.encode())
        return number

    def _row(self, user: int) -> int:
        row = self._rows.setdefault(user, len(self._rows))
        if row == len(self._items):
            self._items = np.concatenate((self._items, np.full_like(self._items, -1)))
            self._times = np.concatenate((self._times, np.full_like(self._times, -1)))
        return row

    def _drop_silent(self) -> None:
        newest = self._times[: len(self._rows)].max(axis=1)
        users = np.array(list(self._rows), np.uint64)
        leaving = len(users) - self._max_users + self._max_users // _LEAVING
        stay = np.sort(np.lexsort((users, newest))[leaving:])
        self._items[: len(stay)], self._times[: len(stay)] = self._items[stay], self._times[stay]
        self._items[len(stay) :], self._times[len(stay) :] = -1, -1
        self._rows = {user: row for row, user in enumerate(users[stay].tolist())}


@compiled
def _is_before(first_time: int, first: int, second_time: int, second: int, marks: Ints) -> bool:
    """Whether one entry is older than another; an empty place is older than any."""
    if first_time != second_time or first < 0 or second < 0:
        return first_time < second_time
    return bool(marks[first] < marks[second])


@compiled
def _join(
    rows: Ints,
    items: npt.NDArray[np.int32],
    times: Ints,
    marks: Ints,
    history: npt.NDArray[np.int32],
    history_times: Ints,
) -> int:
    """Put each item into its user's history where it is newer than the oldest there; return how many were not there."""
    fresh = 0
    for event in range(len(rows)):
        row, item, time = rows[event], items[event], times[event]
        oldest = 0
        known = -1
        for place in range(history.shape[1]):
            if history[row, place] == item:
                known = place
                break
            if _is_before(
                history_times[row, place], history[row, place], history_times[row, oldest], history[row, oldest], marks
            ):
                oldest = place
        if known >= 0:
            history_times[row, known] = max(history_times[row, known], time)
        elif _is_before(history_times[row, oldest], history[row, oldest], time, item, marks):
            history[row, oldest], history_times[row, oldest] = item, time
            fresh += 1
    return fresh
