"""
The newest lists as they were made, with the items that stand by, in memory.

A list here can be changed without ranking again. What is not here any more, because the worker was restarted or too
many lists came since, is ranked again instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from models.reasons import MAX_REASONS
from streams.wire.ranked_items import Places
from streams.wire.recommendations import AsOf, Assigned

P = TypeVar("P")

_FIRST_CAPACITY: Final = 1_024
#: Share of the lists that leave at once when there are too many: the choice is paid once for many.
_LEAVE_SHARE: Final = 8


class Origin(msgspec.Struct, array_like=True, frozen=True):
    """What a list tells of how it was made; see `streams.wire.recommendations`."""

    surface: str
    model: str
    event_ts: int
    as_of: AsOf
    experiments: dict[str, Assigned]
    events_applied: dict[str, int]


_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(Origin).decode


class Shelved(NamedTuple):
    """
    Lists as they lie on the shelf, copied.

    Attributes
    ----------
    places
        (n, k, ...) what stands in the lists, and behind them what stands by.
    price_marks
        (n, k) uint16, of the items when the lists were made.
    versions
        (n,) int64.
    origins
        How they were made.

    """

    places: Places
    price_marks: npt.NDArray[np.uint16]
    versions: npt.NDArray[np.int64]
    origins: list[Origin]

    def only(self, chosen: npt.NDArray[np.int64]) -> Shelved:
        """Return some of the lists."""
        origins = [self.origins[place] for place in chosen.tolist()]
        return Shelved(self.places.only(chosen), self.price_marks[chosen], self.versions[chosen], origins)


class _Columns(NamedTuple):
    """One row for each list."""

    places: Places
    price_marks: npt.NDArray[np.uint16]
    versions: npt.NDArray[np.int64]
    active_ms: npt.NDArray[np.int64]


def _no_lists(capacity: int, width: int) -> _Columns:
    shape, reasons = (capacity, width), (capacity, width, MAX_REASONS)
    places = Places(
        np.full(shape, -1, np.int32), np.zeros(shape, np.int64), np.zeros(shape, np.uint8), np.zeros(shape, np.int64),
        np.zeros(reasons, np.int32), np.zeros(reasons, np.uint8), np.zeros(reasons, np.int64),
    )  # fmt: skip
    numbers = np.zeros((2, capacity), np.int64)
    return _Columns(places, np.zeros(shape, np.uint16), numbers[0], numbers[1])


class Shelf(Generic[P]):
    """
    One list for each user, those of the users who were active last; used from one thread.

    Parameters
    ----------
    size, spare
        Items of a list, and items that stand by.
    most
        Lists kept.

    """

    def __init__(self, size: int, spare: int, most: int) -> None:
        self.size = size
        self._width = size + spare
        self._most = most
        self._slots: dict[str, int] = {}
        self._user_ids: list[str] = []
        self._partitions: list[P | None] = []
        self._origins: list[bytes] = []
        self._free: list[int] = []
        self._columns = _no_lists(_FIRST_CAPACITY, size + spare)

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._slots

    def partition(self, user_id: str) -> P:
        """Return the partition of a user whose list is here."""
        partition = self._partitions[self._slots[user_id]]
        assert partition is not None
        return partition

    def put(
        self,
        partitions: Sequence[P],
        user_ids: Sequence[str],
        places: Places,
        price_marks: npt.NDArray[np.uint16],
        versions: Sequence[int],
        origins: Sequence[Origin],
    ) -> None:
        """Put the lists of n users here, in place of those before; columns are (n, k, ...)."""
        self._make_room(user_ids)
        slots = [self._slot(user_id) for user_id in user_ids]
        columns = self._columns
        _put(columns.places, slots, places)
        columns.price_marks[slots] = price_marks
        columns.versions[slots] = versions
        columns.active_ms[slots] = [origin.event_ts for origin in origins]
        for slot, partition, origin in zip(slots, partitions, origins, strict=True):
            self._partitions[slot], self._origins[slot] = partition, _ENCODE(origin)

    def get(self, user_ids: Sequence[str]) -> Shelved:
        """Return the lists of users who have one here."""
        slots = [self._slots[user_id] for user_id in user_ids]
        columns = self._columns
        origins = [_DECODE(self._origins[slot]) for slot in slots]
        return Shelved(columns.places.only(slots), columns.price_marks[slots], columns.versions[slots], origins)

    def holders(self, closed: Iterable[int], rows: int) -> list[str]:
        """
        Return the users on whose lists items stand, those who were active last first.

        Parameters
        ----------
        closed
            Rows of the items.
        rows
            Number of rows that there are.

        """
        # One more, which is where the -1 of a place without an item looks.
        wanted = np.zeros(rows + 1, np.bool_)
        wanted[list(closed)] = True
        listed = self._columns.places.items[: len(self._user_ids), : self.size]
        slots = np.flatnonzero(wanted[listed].any(axis=1))
        newest_first = slots[np.argsort(-self._columns.active_ms[slots], kind="stable")]
        return [self._user_ids[slot] for slot in newest_first.tolist()]

    def latest_first(self, user_ids: Iterable[str]) -> list[str]:
        """Return the users who have a list here, those who were active last first."""
        held = [user_id for user_id in user_ids if user_id in self._slots]
        active_ms = self._columns.active_ms[[self._slots[user_id] for user_id in held]]
        return [held[place] for place in np.argsort(-active_ms, kind="stable").tolist()]

    def drop(self, user_id: str) -> None:
        """Take a user's list away, if it is here; nothing of it stays."""
        slot = self._slots.pop(user_id, None)
        if slot is not None:
            self._user_ids[slot], self._partitions[slot], self._origins[slot] = "", None, b""
            self._columns.places.items[slot] = -1
            self._columns.places.event_shares[slot] = 0
            self._free.append(slot)

    def forget(self, partition: P) -> None:
        """Take away the lists of a partition that is no longer owned."""
        for user_id in [user_id for user_id, slot in self._slots.items() if self._partitions[slot] is partition]:
            self.drop(user_id)

    def _slot(self, user_id: str) -> int:
        slot = self._slots.get(user_id)
        if slot is None:
            if self._free:
                slot = self._free.pop()
                self._user_ids[slot] = user_id
            else:
                slot = len(self._user_ids)
                self._user_ids.append(user_id)
                self._partitions.append(None)
                self._origins.append(b"")
            self._slots[user_id] = slot
        return slot

    def _make_room(self, user_ids: Sequence[str]) -> None:
        """Let the lists of users who were active longest ago leave when there are too many, and grow up to then."""
        coming = sum(user_id not in self._slots for user_id in user_ids)
        # Who leaves may be one of those who come.
        while (excess := len(self._slots) + coming - self._most) > 0 and self._slots:
            leaving = min(max(excess, self._most // _LEAVE_SHARE), len(self._slots))
            for user_id in self.latest_first(self._slots)[-leaving:]:
                self.drop(user_id)
            coming = sum(user_id not in self._slots for user_id in user_ids)
        needed = len(self._user_ids) + max(coming - len(self._free), 0)
        if needed > (have := len(self._columns.versions)):
            before, after = self._columns, _no_lists(max(2 * have, needed), self._width)
            _put(after.places, slice(have), before.places)
            _put(after[1:], slice(have), before[1:])
            self._columns = after


def _put(columns: Iterable[npt.NDArray[Any]], at: Any, values: Iterable[npt.NDArray[Any]]) -> None:
    column: npt.NDArray[Any]
    for column, given in zip(columns, values, strict=True):
        column[at] = given
