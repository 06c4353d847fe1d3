"""
What keyed peers keep of a user: the vector itself, or the compact record that Freshet's state is like.

Little endian. Both begin with the number of events ever applied (u64).
- `vector`: time of the newest event in ms (i64), then `DIM` float32.
- `compact`: the newest 64 events, oldest first, 13 bytes each: time in ms (i64), item (u32), type (u8).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.bench.stream.job import DIM, HALF_LIFE_S, WEIGHT, Float32

COMPACT_EVENTS = 64
HEAD = struct.Struct("<Q")
_VECTOR_HEAD = struct.Struct("<Qq")
_ENTRY = struct.Struct("<qIB")
ENTRY_BYTES = _ENTRY.size
ENTRIES = np.dtype([("ts_ms", "<i8"), ("item", "<u4"), ("type", "u1")])
_CLICK = 1

#: (record or None, time in ms, item number) -> record.
Fold = Callable[[bytes | None, int, int], bytes]


def vector_fold(table: Float32) -> Fold:
    """
    Return the fold of the decayed vector: S * 2^(-dt / half-life) + weight * item vector.

    >>> table = np.eye(2, DIM, dtype=np.float32)
    >>> fold = vector_fold(table)
    >>> record = fold(fold(None, 0, 0), round(HALF_LIFE_S * 1000), 1)
    >>> count_of(record), vector_of(record)[:2].tolist()
    (2, [0.5, 1.0])
    """
    weighted = (WEIGHT * table).astype(np.float32)
    per_ms = -math.log(2.0) / (1000.0 * HALF_LIFE_S)

    def fold(record: bytes | None, ts_ms: int, item: int) -> bytes:
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


def compact_fold(record: bytes | None, ts_ms: int, item: int) -> bytes:
    """
    Append an event to a compact record.

    >>> record = compact_fold(compact_fold(None, 5, 1), 6, 2)
    >>> count_of(record), compact_entries(record).tolist()
    (2, [(5, 1, 1), (6, 2, 1)])
    """
    entry = _ENTRY.pack(ts_ms, item, _CLICK)
    if record is None:
        return HEAD.pack(1) + entry
    count = HEAD.unpack_from(record)[0]
    keep_from = HEAD.size if count < COMPACT_EVENTS else HEAD.size + ENTRY_BYTES
    return HEAD.pack(count + 1) + record[keep_from:] + entry


def fold_of(kind: str, table_file: Path) -> Fold:
    """Return the fold of a kind of record; the item vectors stand in `table_file`, float32, item by item."""
    if kind == "compact":
        return compact_fold
    return vector_fold(np.fromfile(table_file, np.float32).reshape(-1, DIM))


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
