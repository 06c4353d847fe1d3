"""
The users of one partition as columns: one row a user, and blocks of two arenas for what has no fixed length.

A block is a run of slots in an arena, of one of a few sizes. Blocks that are given back are chained by their size
class, the place of the next one standing in the first slot's time.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.settings import EVENT_TYPES

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
UInt64 = npt.NDArray[np.uint64]
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

TYPES: Final = len(EVENT_TYPES)
#: Interactions kept whatever their age: what a session model and the reasons look at.
RECENT_MIN: Final = 64
#: Interactions kept because they lie within lateness of the newest; beyond it the user is a robot.
RECENT_MAX: Final = 256
#: Tallies kept; when one more comes the lightest leave together, so that the choice is paid once for many events.
TALLIES_MAX: Final = 256
TALLIES_AFTER_PRUNE: Final = 224

#: Slots of a block by size class. The fourth holds a user at `RECENT_MIN` and the one that makes the oldest leave;
#: the last holds one more than the most that are kept, for the moment before the oldest leave.
RECENT_SIZES: Final = np.array([4, 12, 32, RECENT_MIN + 1, 128, RECENT_MAX + 1], np.int64)
TALLY_SIZES: Final = np.array([8, 32, 96, TALLIES_MAX + 1], np.int64)

NO_BLOCK: Final = -1


class Users(NamedTuple):
    """
    One row a user; every column (rows,) unless it says otherwise.

    Attributes
    ----------
    recent_at, recent_n, recent_class
        Block of the interactions: first slot, slots used, size class (-1 without a block).
    tally_at, tally_n, tally_class
        Block of the tallies.
    floor_ts, floor_hash
        Greatest (time, hash) that left `recent`.
    first_ts
        Time of the oldest event applied, 0 before the first.
    counts
        (rows, types) distinct events applied.
    user_hash
        64 bits that stand for the user on `item-events`.
    used_at
        Number of the run that met the user last.
    changed
        The record differs from the one committed last.
    owed
        The restored record said that a list was owed.
    sums_at, folds, stale, peak, items_revision
        Of the vectors: event time of the sums, runs followed since they were made, whether they must be made anew,
        (rows, 2) upper bounds of what their lengths ever were, revision of the item vectors they are known to fit.

    """

    recent_at: Int64
    recent_n: Int32
    recent_class: npt.NDArray[np.int8]
    tally_at: Int64
    tally_n: Int32
    tally_class: npt.NDArray[np.int8]
    floor_ts: Int64
    floor_hash: UInt64
    first_ts: Int64
    counts: Int64
    user_hash: UInt64
    used_at: Int64
    changed: Bool
    owed: Bool
    sums_at: Int64
    folds: Int32
    stale: Bool
    peak: Float64
    items_revision: Int64


class Recents(NamedTuple):
    """The arena of interactions, (slots,) each: time, event hash, item row, type code."""

    ts: Int64
    event_hash: UInt64
    item: Int32
    kind: UInt8


class Tallies(NamedTuple):
    """The arena of tallies: (slots,) item row, newest time, mass; (slots, types) counts."""

    ts: Int64
    item: Int32
    mass: Float64
    counts: Int32


class Arena(NamedTuple):
    """Where blocks come from: (1,) first slot never used, (classes,) first free block of each class or -1."""

    top: Int64
    free: Int64
    sizes: Int64


def make_users(rows: int) -> Users:
    """Return columns for so many users, all empty."""
    return Users(
        recent_at=np.zeros(rows, np.int64),
        recent_n=np.zeros(rows, np.int32),
        recent_class=np.full(rows, NO_BLOCK, np.int8),
        tally_at=np.zeros(rows, np.int64),
        tally_n=np.zeros(rows, np.int32),
        tally_class=np.full(rows, NO_BLOCK, np.int8),
        floor_ts=np.zeros(rows, np.int64),
        floor_hash=np.zeros(rows, np.uint64),
        first_ts=np.zeros(rows, np.int64),
        counts=np.zeros((rows, TYPES), np.int64),
        user_hash=np.zeros(rows, np.uint64),
        used_at=np.zeros(rows, np.int64),
        changed=np.zeros(rows, np.bool_),
        owed=np.zeros(rows, np.bool_),
        sums_at=np.zeros(rows, np.int64),
        folds=np.zeros(rows, np.int32),
        stale=np.zeros(rows, np.bool_),
        peak=np.zeros((rows, 2), np.float64),
        items_revision=np.zeros(rows, np.int64),
    )


def make_recents(slots: int) -> Recents:
    """Return an arena for so many interactions."""
    return Recents(
        np.zeros(slots, np.int64), np.zeros(slots, np.uint64), np.zeros(slots, np.int32), np.zeros(slots, np.uint8)
    )


def make_tallies(slots: int) -> Tallies:
    """Return an arena for so many tallies."""
    return Tallies(
        np.zeros(slots, np.int64),
        np.zeros(slots, np.int32),
        np.zeros(slots, np.float64),
        np.zeros((slots, TYPES), np.int32),
    )


def make_arena(sizes: Int64) -> Arena:
    """Return the bookkeeping of an arena that gave out nothing yet."""
    return Arena(np.zeros(1, np.int64), np.full(len(sizes), NO_BLOCK, np.int64), sizes)


def grown(column: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Return a column of a greater length with the same beginning, zeros behind it."""
    longer = np.zeros((length, *column.shape[1:]), column.dtype)
    longer[: len(column)] = column
    return longer
