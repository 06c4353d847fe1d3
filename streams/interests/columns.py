"""
The users of one partition as arrays of records: one row a user, and blocks of two arenas for what has no fixed length.

A block is a run of slots in an arena, of one of a few sizes. Blocks that are given back are chained by their size
class, the place of the next one standing in the first slot's time.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.catalogue.ids import ItemNames
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

#: Slots of a block by size class. The oldest leave from the front and the newest join at the end: what is kept slides
#: through its block, and is moved to the front when it reaches the end. So the fourth has room beyond `RECENT_MIN`, and
#: the last beyond the most that are kept.
RECENT_SIZES: Final = np.array([4, 12, 32, RECENT_MIN + 32, 160, RECENT_MAX + 64], np.int64)
TALLY_SIZES: Final = np.array([8, 32, 96, TALLIES_MAX + 1], np.int64)

NO_BLOCK: Final = -1

#: Rows whose sums there is room for at once, 200 MB for vectors of 384: memory is taken only when a row is used, and
#: copying the sums of many users into a longer array would take as long as folding thousands of events.
_SUMS_ROWS: Final = 65_536


#: One user, a row. One array of records and not an array for each field: an event touches most fields of one user, and
#: a row is three lines of a core's cache where twenty columns would be twenty.
#: `recent_block`, `recent_class`: block of the interactions: first slot, size class (-1 without one);
#: `recent_at`, `recent_n`: where in it the oldest stands, and how many there are.
#: `tally_at`, `tally_n`, `tally_class`: block of the tallies, which begin where it does.
#: `floor_ts`, `floor_hash`: greatest (time, hash) that left `recent`.
#: `first_ts`: time of the oldest event applied, 0 before the first; `counts`: distinct events applied, by type.
#: `device`: code of the device that the newest interaction came from, see `models.segments.device_code`.
#: `user_hash`: 64 bits that stand for the user on `item-events`.
#: `used_at`: number of the run that met the user last; `changed`: the record differs from the one committed last;
#: `owed`: the restored record said that a list was owed.
#: `sums_at`, `folds`, `stale`, `peak`, `items_revision`: of the vectors: event time of the sums, events followed since
#: they were made, whether they must be made anew, upper bounds of what their lengths ever were (short, long), revision
#: of the item vectors they are known to fit.
USER: Final = np.dtype(
    [
        ("recent_block", np.int64),
        ("recent_at", np.int64),
        ("tally_at", np.int64),
        ("recent_n", np.int32),
        ("tally_n", np.int32),
        ("recent_class", np.int8),
        ("tally_class", np.int8),
        ("changed", np.bool_),
        ("owed", np.bool_),
        ("stale", np.bool_),
        ("device", np.uint8),
        ("folds", np.int32),
        ("floor_ts", np.int64),
        ("floor_hash", np.uint64),
        ("first_ts", np.int64),
        ("sums_at", np.int64),
        ("items_revision", np.int64),
        ("peak", np.float64, (2,)),
        ("counts", np.int64, (TYPES,)),
        ("used_at", np.int64),
        ("user_hash", np.uint64),
    ],
    align=True,
)
#: One interaction: time, item row, type code. Its event hash stands apart, as hashes are searched one behind another.
INTERACTION: Final = np.dtype([("ts", np.int64), ("item", np.int32), ("kind", np.uint8)], align=True)
#: One tally: newest time, mass, events by type.
TALLY: Final = np.dtype([("ts", np.int64), ("mass", np.float64), ("counts", np.int32, (TYPES,))], align=True)

#: Arrays of these records.
Records = npt.NDArray[Any]


class Arena(NamedTuple):
    """Where blocks come from: (1,) first slot never used, (classes,) first free block of each class or -1."""

    top: Int64
    free: Int64
    sizes: Int64


class Rules(NamedTuple):
    """
    Settings as the compiled code reads them.

    Attributes
    ----------
    weights
        (types,) what one event adds to the vectors.
    negative
        (types,) whether the type says what is not wanted.
    half_lives_ms
        Short, long, negative.
    session_gap_ms
        Items met before a longer pause do not count as met just before.

    """

    lateness_ms: int
    session_gap_ms: int
    weights: Float64
    negative: Bool
    half_lives_ms: Float64


class Items(NamedTuple):
    """The item vectors: (rows, dim), the revision at which each changed last, the newest revision, and the ids."""

    vectors: Float32
    changed_at: Int64
    revision: int
    names: ItemNames


class Scratch(NamedTuple):
    """Room of a prune: mass and whether it goes, (TALLIES_MAX + 1,) each, of one user's tallies."""

    mass: Float64
    dropped: Bool


class Store(NamedTuple):
    """
    Everything of one partition that a fold changes.

    Attributes
    ----------
    users
        (rows,) `USER`.
    recents, hashes
        (slots,) `INTERACTION` and uint64 event hash, an arena.
    tallies, tally_items
        (slots,) `TALLY` and int32 item row, an arena.
    sums
        (rows or more, 2, dim) float32, short and long.

    """

    users: Records
    recents: Records
    hashes: UInt64
    recent_arena: Arena
    tallies: Records
    tally_items: Int32
    tally_arena: Arena
    sums: Float32
    scratch: Scratch


class Batch(NamedTuple):
    """Events in order of (time, hash), (n,) each: row of user, time, hash, row of item, codes of type and device."""

    rows: Int64
    ts: Int64
    event_hash: UInt64
    item: Int32
    kind: UInt8
    device: UInt8


def make_arena(sizes: Int64) -> Arena:
    """Return the bookkeeping of an arena that gave out nothing yet."""
    return Arena(np.zeros(1, np.int64), np.full(len(sizes), NO_BLOCK, np.int64), sizes)


def empty_store(slots: int, dim: int) -> Store:
    """Return a store without rows."""
    return Store(
        np.zeros(0, USER),
        np.zeros(slots, INTERACTION), np.zeros(slots, np.uint64), make_arena(RECENT_SIZES),
        np.zeros(slots, TALLY), np.zeros(slots, np.int32), make_arena(TALLY_SIZES),
        np.zeros((0, 2, dim), np.float32),
        Scratch(np.zeros(TALLIES_MAX + 1, np.float64), np.zeros(TALLIES_MAX + 1, np.bool_)),
    )  # fmt: skip


def with_rows(store: Store, rows: int) -> Store:
    """Return the store with more rows, the new ones without blocks."""
    before = len(store.users)
    users = _grown(store.users, rows)
    users["recent_class"][before:] = NO_BLOCK
    users["tally_class"][before:] = NO_BLOCK
    sums = store.sums if rows <= len(store.sums) else _grown(store.sums, max(rows, _SUMS_ROWS))
    return store._replace(users=users, sums=sums)


def with_room(store: Store) -> Store:
    """Return the store with room for a block of any size in both arenas; a full one doubles."""
    if store.recent_arena.top[0] + RECENT_SIZES[-1] > len(store.recents):
        slots = 2 * len(store.recents)
        store = store._replace(recents=_grown(store.recents, slots), hashes=_grown(store.hashes, slots))
    if store.tally_arena.top[0] + TALLY_SIZES[-1] > len(store.tallies):
        slots = 2 * len(store.tallies)
        store = store._replace(tallies=_grown(store.tallies, slots), tally_items=_grown(store.tally_items, slots))
    return store


def _grown(records: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Return an array of a greater length with the same beginning, zeros behind it."""
    longer = np.zeros((length, *records.shape[1:]), records.dtype)
    longer[: len(records)] = records
    return longer
