"""
Records as columns: where each one stands in the bytes that were fetched, read by compiled code.

An object for each record would cost more than all that is done with most of them. Whoever wants objects iterates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, final, overload

import numpy as np
import numpy.typing as npt
from aiokafka.errors import CorruptRecordException

from models.compiled import compiled

#: One record: offset, timestamp in ms, and where its key, its value and its headers begin; sizes of -1 stand for null.
RECORD: Final = np.dtype(
    [
        ("offset", np.int64),
        ("timestamp", np.int64),
        ("key_at", np.int32),
        ("key_size", np.int32),
        ("value_at", np.int32),
        ("value_size", np.int32),
        ("headers_at", np.int32),
    ],
    align=True,
)
#: A record has at least so many bytes: its length, attributes, two deltas, two sizes, number of headers.
_LEAST_BYTES: Final = 7

Table = npt.NDArray[Any]
_Bytes = npt.NDArray[np.uint8]


class Record(NamedTuple):
    """
    One record.

    Attributes
    ----------
    timestamp
        ms since the epoch.

    """

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@final
class Records(Sequence[Record]):
    """
    Consecutive records of one partition, in offset order; a slice shares their bytes.

    >>> records = Records.of([Record(7, 1_700_000_000_000, b"u", b"{}"), Record(9, 1_700_000_000_005, None, b"x")])
    >>> len(records), records[1].offset, [record.value for record in records[:1]]
    (2, 9, [b'{}'])

    Attributes
    ----------
    raw
        The bytes that hold keys, values and headers.
    table
        (n,) `RECORD`.

    """

    __slots__ = ("raw", "table")

    def __init__(self, raw: bytes, table: Table) -> None:
        self.raw = raw
        self.table = table

    @classmethod
    def of(cls, records: Iterable[Any]) -> Records:
        """Return what has the attributes of a record as columns."""
        pool = bytearray()
        rows = []
        for record in records:
            key_at = len(pool)
            pool += record.key or b""
            value_at = len(pool)
            pool += record.value or b""
            headers_at = len(pool)
            _put_headers(pool, getattr(record, "headers", ()))
            key_size = -1 if record.key is None else value_at - key_at
            value_size = -1 if record.value is None else headers_at - value_at
            rows.append((record.offset, record.timestamp, key_at, key_size, value_at, value_size, headers_at))
        return cls(bytes(pool), np.array(rows, RECORD))

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """Return parts one behind another."""
        if len(parts) == 1:
            return parts[0]
        table = np.concatenate([part.table for part in parts]) if parts else np.empty(0, RECORD)
        begin = at = 0
        for part in parts:
            rows = table[at : at + len(part.table)]
            for name in ("key_at", "value_at", "headers_at"):
                rows[name] += begin
            begin += len(part.raw)
            at += len(rows)
        return cls(b"".join(part.raw for part in parts), table)

    @property
    def pool(self) -> _Bytes:
        """The bytes as an array, (bytes,) uint8, read-only."""
        return np.frombuffer(self.raw, np.uint8)

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """The offsets, (n,) int64."""
        return self.table["offset"]

    @property
    def timestamps(self) -> npt.NDArray[np.int64]:
        """The timestamps, (n,) int64, ms."""
        return self.table["timestamp"]

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, place: int) -> Record: ...

    @overload
    def __getitem__(self, place: slice) -> Records: ...

    def __getitem__(self, place: int | slice) -> Record | Records:
        if isinstance(place, slice):
            return Records(self.raw, self.table[place])
        return self._record(self.table[place].tolist())

    def __iter__(self) -> Iterator[Record]:
        return map(self._record, self.table.tolist())

    def _record(self, row: tuple[int, ...]) -> Record:
        offset, timestamp, key_at, key_size, value_at, value_size, headers_at = row
        raw = self.raw
        return Record(
            offset,
            timestamp,
            None if key_size < 0 else raw[key_at : key_at + key_size],
            None if value_size < 0 else raw[value_at : value_at + value_size],
            () if raw[headers_at] == 0 else _headers(raw, headers_at),
        )


def read_batch(raw: bytes, count: int, base_offset: int, timestamp_ms: int, *, log_append: bool) -> Records:
    """
    Return the records of one batch of Kafka's message format 2, uncompressed.

    Parameters
    ----------
    raw
        What stands behind the batch's head.
    count, base_offset
        As the head says.
    timestamp_ms
        The first record's, or that of all with `log_append`.

    Raises
    ------
    aiokafka.errors.CorruptRecordException
        When the bytes do not hold as many whole records and nothing else.

    """
    if not 0 <= count <= len(raw) // _LEAST_BYTES:
        raise CorruptRecordException(f"{count} records in {len(raw)} bytes")
    table = np.empty(count, RECORD)
    if not _read(np.frombuffer(raw, np.uint8), base_offset, timestamp_ms, log_append, table):
        raise CorruptRecordException(f"the records behind offset {base_offset} are damaged")
    return Records(raw, table)


@compiled
def _read(pool: _Bytes, base_offset: int, timestamp_ms: int, log_append: bool, table: Table) -> bool:  # noqa: FBT001 -- compiled code has no keywords
    """
    Fill the table; False when the bytes are damaged.

    A record is its length and, all numbers zigzag varints, attributes (a byte), timestamp and offset deltas, key and
    value each behind its size, and the number of headers with, for each, name and value.
    """
    at = 0
    for number in range(len(table)):
        size, at = _varint(pool, at, len(pool))
        end = at + size
        if at < 0 or size < 0 or end > len(pool):
            return False
        timestamp, at = _varint(pool, at + 1, end)
        offset, at = _varint(pool, at, end)
        row = table[number]
        row.offset = base_offset + offset
        row.timestamp = timestamp_ms if log_append else timestamp_ms + timestamp
        # The table has 32 bits for a size; what is damaged may say more.
        part, at = _varint(pool, at, end)
        row.key_at, row.key_size = at, part
        at = _behind(at, part, end)
        part, at = _varint(pool, at, end)
        row.value_at, row.value_size = at, part
        at = _behind(at, part, end)
        row.headers_at = at
        headers, at = _varint(pool, at, end)
        for _ in range(2 * headers):
            part, at = _varint(pool, at, end)
            at = _behind(at, part, end)
            if at < 0:
                return False
        if at != end or headers < 0:
            return False
    return at == len(pool)


@compiled
def _varint(pool: _Bytes, at: int, end: int) -> tuple[int, int]:
    """Return a zigzag varint and the place behind it, -1 where it is cut, longer than 64 bits, or `at` was -1."""
    value = np.uint64(0)
    if at < 0:
        return 0, -1
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = np.uint64(pool[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << np.uint64(shift)
        if byte < np.uint64(0x80):
            return int(np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1))), at
    return 0, -1


@compiled
def _behind(at: int, size: int, end: int) -> int:
    """Return the place behind `size` bytes (-1: null, none), -1 where they are cut."""
    if at < 0 or size < -1 or size > end - at:
        return -1
    return at + max(size, 0)


def _headers(raw: bytes, at: int) -> tuple[tuple[str, bytes | None], ...]:
    """Read headers that were found whole."""
    pool = np.frombuffer(raw, np.uint8)

    def part() -> bytes | None:
        nonlocal at
        size, begin = _varint(pool, at, len(raw))
        at = begin + max(size, 0)
        return None if size < 0 else raw[begin:at]

    count, at = _varint(pool, at, len(raw))
    return tuple(((part() or b"").decode(errors="replace"), part()) for _ in range(count))


def _put_headers(pool: bytearray, headers: Sequence[tuple[str, bytes | None]]) -> None:
    def put(number: int) -> None:
        rest = number << 1 if number >= 0 else 1
        while rest >= 0x80:
            pool.append(rest & 0x7F | 0x80)
            rest >>= 7
        pool.append(rest)

    put(len(headers))
    for name, value in headers:
        put(len(name.encode()))
        pool.extend(name.encode())
        put(-1 if value is None else len(value))
        pool.extend(value or b"")
