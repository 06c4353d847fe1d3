"""The checksums of records that stand one behind another, compiled: CRC-32 as `zlib.crc32` makes it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from streams.interests.codec import START
from streams.interests.columns import Int64, UInt8, UInt64

_START: Final = START
_CRC_AT: Final = START - 4
#: zlib's polynomial, lowest power in the highest bit.
_POLYNOMIAL: Final = 0xEDB88320
#: Bytes of one step.
_STEP: Final = 16


def _make_tables() -> npt.NDArray[np.uint32]:
    """
    Return what a byte does to the checksum, (16, 256): table k for one with k bytes of its step behind it.

    Kounavis and Berry: "Novel Table Lookup-Based Algorithms for High-Performance CRC Generation", 2008.
    """
    tables = np.zeros((_STEP, 256), np.uint32)
    tables[0] = np.arange(256)
    for _ in range(8):
        tables[0] = tables[0] >> 1 ^ (tables[0] & 1) * np.uint32(_POLYNOMIAL)
    for step in range(1, _STEP):
        tables[step] = tables[step - 1] >> 8 ^ tables[0][tables[step - 1] & 0xFF]
    return tables


_TABLES: Final = _make_tables()


@compiled
def _bytes4(table: int, word: np.uint64) -> np.uint64:
    """Return what the lower four bytes of a word do, the last of them with `table` bytes of the step behind it."""
    byte = np.uint64(0xFF)
    first = _TABLES[table + 3, word & byte] ^ _TABLES[table + 2, word >> np.uint64(8) & byte]
    second = _TABLES[table + 1, word >> np.uint64(16) & byte] ^ _TABLES[table, word >> np.uint64(24) & byte]
    return np.uint64(first ^ second)


@compiled
def _crc(rest: np.uint64, content: UInt8, wide: UInt64, at: int, end: int) -> np.uint64:
    """Take bytes into a checksum, without the inversions at its begin and end."""
    while at + _STEP <= end:
        # Four chains that do not wait for each other; those of the second word do not even wait for the step before.
        low, high = wide[at] ^ rest, wide[at + 8]
        ahead = _bytes4(4, high) ^ _bytes4(0, high >> np.uint64(32))
        rest = (_bytes4(12, low) ^ _bytes4(8, low >> np.uint64(32))) ^ ahead
        at += _STEP
    for place in range(at, end):
        rest = rest >> np.uint64(8) ^ np.uint64(_TABLES[0, (rest ^ content[place]) & np.uint64(0xFF)])
    return rest


@compiled
def seal(records: UInt8, wide: UInt64, ends: Int64) -> None:
    """
    Write the checksum of each record.

    Parameters
    ----------
    records, wide
        Records one behind another, and the same as `layout.words`.
    ends
        (n,) the place behind each.

    """
    start = 0
    for end in ends:
        crc = _crc(np.uint64(0xFFFFFFFF), records, wide, start, start + _CRC_AT)
        crc = _crc(crc, records, wide, start + _START, end)
        for place in range(4):
            records[start + _CRC_AT + place] = ~crc >> np.uint64(8 * place) & np.uint64(0xFF)
        start = end
