"""
What keyed peers keep of a user: the vector itself, or the compact record that Freshet's state is like.

Little endian. Both begin with the number of events ever applied (u64).
- `vector`: time of the newest event in ms (i64), then `DIM` float32.
- `compact`: the newest 64 events, oldest first, 13 bytes each: time in ms (i64), item (u32), type (u8). The vector then
  is in memory alone, as it is in Freshet: current after every event, and made again from the record by a consumer that
  meets the user after a restart. It then holds the newest 64 events only, where Freshet's record knows them all.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.bench.stream.job import BASE_MS, DIM, HALF_LIFE_S, USERS, WEIGHT, Float32
from tests.bench.stream.peer import Task

COMPACT_EVENTS = 64
HEAD = struct.Struct("<Q")
_VECTOR_HEAD = struct.Struct("<Qq")
_ENTRY = struct.Struct("<qIB")
ENTRY_BYTES = _ENTRY.size
ENTRIES = np.dtype([("ts_ms", "<i8"), ("item", "<u4"), ("type", "u1")])
_CLICK = 1

#: Users whose vector in memory is compared: the lowest numbers, which the skewed log has most of.
SAMPLED = 100

Key = bytes | str
#: (user id, record or None, time in ms, item number) -> record.
Fold = Callable[[Key, bytes | None, int, int], bytes]


def vector_fold(table: Float32) -> Fold:
    """
    Return the fold of the decayed vector: S * 2^(-dt / half-life) + weight * item vector.

    >>> table = np.eye(2, DIM, dtype=np.float32)
    >>> fold = vector_fold(table)
    >>> record = fold("u0000007", fold("u0000007", None, 0, 0), round(HALF_LIFE_S * 1000), 1)
    >>> count_of(record), vector_of(record)[:2].tolist()
    (2, [0.5, 1.0])
    """
    weighted = (WEIGHT * table).astype(np.float32)
    per_ms = -math.log(2.0) / (1000.0 * HALF_LIFE_S)

    def fold(_: Key, record: bytes | None, ts_ms: int, item: int) -> bytes:
        if record is None:
            first: bytes = _VECTOR_HEAD.pack(1, ts_ms) + weighted[item].tobytes()
            return first
        count, newest_ms = _VECTOR_HEAD.unpack_from(record)
        before = np.frombuffer(record, np.float32, DIM, _VECTOR_HEAD.size)
        # What is lost, not what is left: of a factor near 1 float32 keeps too little for thousands of steps.
        total = before * np.float32(math.expm1((ts_ms - newest_ms) * per_ms))
        total += before
        total += weighted[item]
        made: bytes = _VECTOR_HEAD.pack(count + 1, ts_ms) + total.tobytes()
        return made

    return fold


def compact_fold(table: Float32, sample_file: Path) -> Fold:
    """
    Return the fold of the compact record and the vectors in memory.

    A vector is kept as of `BASE_MS`: an event adds weight * 2^(time since then / half-life), so that one step in place
    is all an event costs, whatever the user's age (Cormode et al., "Forward Decay", ICDE 2009). float32 has room for
    127 half-lives, 20 years.

    Parameters
    ----------
    table
        Item vectors (items, dim) float32.
    sample_file
        Where the vectors of the first `SAMPLED` users live, for `sample_of`: the runner reads while the peer writes.

    """
    items = list((WEIGHT * table).astype(np.float32))
    vectors = np.zeros((USERS, DIM), np.float32)
    # Plain arrays: those of memmap's own class cost more at every operation.
    sample = np.asarray(np.memmap(sample_file, np.float32, "w+", shape=(SAMPLED, DIM)))
    per_ms = 1.0 / (1000.0 * HALF_LIFE_S)
    rows: dict[Key, Float32] = {}
    added = np.empty(DIM, np.float32)
    multiply, add = np.multiply, np.add

    def met(key: Key, record: bytes | None) -> Float32:
        number = int(key[1:])
        row: Float32 = sample[number] if number < SAMPLED else vectors[len(rows)]
        rows[key] = row
        if record is not None:
            entries = compact_entries(record)
            row += np.exp2((entries["ts_ms"] - BASE_MS) * per_ms) @ (WEIGHT * table[entries["item"]])
        return row

    def fold(key: Key, record: bytes | None, ts_ms: int, item: int) -> bytes:
        row = rows.get(key)
        if row is None:
            row = met(key, record)
        multiply(items[item], 2.0 ** ((ts_ms - BASE_MS) * per_ms), added)
        add(row, added, row)
        return appended(record, ts_ms, item)

    return fold


def appended(record: bytes | None, ts_ms: int, item: int) -> bytes:
    """
    Append an event to a compact record.

    >>> record = appended(appended(None, 5, 1), 6, 2)
    >>> count_of(record), compact_entries(record).tolist()
    (2, [(5, 1, 1), (6, 2, 1)])
    """
    entry = _ENTRY.pack(ts_ms, item, _CLICK)
    if record is None:
        return HEAD.pack(1) + entry
    count = HEAD.unpack_from(record)[0]
    keep_from = HEAD.size if count < COMPACT_EVENTS else HEAD.size + ENTRY_BYTES
    return HEAD.pack(count + 1) + record[keep_from:] + entry


def fold_of(task: Task) -> Fold:
    """Return the fold of the task's kind of record."""
    table = np.fromfile(task.table_file, np.float32).reshape(-1, DIM)
    return compact_fold(table, task.sample_file) if task.record == "compact" else vector_fold(table)


def sample_of(sample_file: Path) -> Float32:
    """Return the vectors in memory of the first users, (SAMPLED, DIM), as of `BASE_MS`; none were written: zeros."""
    if not sample_file.exists():
        return np.zeros((SAMPLED, DIM), np.float32)
    return np.fromfile(sample_file, np.float32).reshape(SAMPLED, DIM)


def count_of(record: bytes) -> int:
    """Return the number of events ever applied."""
    count: int = HEAD.unpack_from(record)[0]
    return count


def vector_of(record: bytes) -> Float32:
    """Return the vector (DIM,)."""
    return np.frombuffer(record, np.float32, DIM, _VECTOR_HEAD.size)


def compact_entries(record: bytes) -> np.ndarray:
    """Return the newest events as `ENTRIES`."""
    return np.frombuffer(record, ENTRIES, offset=HEAD.size)
