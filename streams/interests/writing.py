"""Making records of many users: copied at one moment and sealed later, in another thread; both compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from streams.catalogue.ids import ItemNames
from streams.interests import layout, sealing
from streams.interests.columns import Int64, Store, UInt8

#: Bytes of the buffer that records are written into: it stays in a core's cache.
_BUFFER_BYTES: Final = 1 << 20


class Part(NamedTuple):
    """Records one behind another, without checksums, and (n,) the place behind each."""

    records: UInt8
    ends: Int64


class Copied(NamedTuple):
    """The records of n users as they were at one moment, still to be sealed; another thread may do that, once."""

    user_ids: list[str]
    parts: list[Part]

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Seal; give each user's id in UTF-8 and record."""
        return zip(map(str.encode, self.user_ids), self.values(), strict=True)

    def values(self) -> Iterator[bytes]:
        """Seal; yield each user's record."""
        for records, ends in self.parts:
            sealing.seal(records, layout.words(records), ends)
            sealed = records.tobytes()
            begin = 0
            for end in ends.tolist():
                yield sealed[begin:end]
                begin = end


class RecordWriter:
    """Writes records; keeps the scratch that finds an item's place among a record's ids without searching."""

    def __init__(self) -> None:
        self._scratch = layout.empty_scratch(0)
        self._stamp = 0
        self._buffer: UInt8 = np.empty(0, np.uint8)

    def write(self, store: Store, names: ItemNames, rows: Int64, around: layout.Around) -> list[Part]:
        """Return the records of rows, in parts."""
        if len(self._scratch.mark) < len(names.at):
            self._scratch = layout.empty_scratch(2 * len(names.at))
            self._stamp = 0
        if not len(self._buffer):
            self._buffer = np.empty(_BUFFER_BYTES, np.uint8)
        source = layout.source(store, names)
        ends = np.empty(len(rows), np.int64)
        parts: list[Part] = []
        done = 0
        while done < len(rows):
            buffer, before = self._buffer, done
            wide = layout.words(buffer)
            done = layout.write(source, rows, around, before, buffer, wide, ends, self._scratch, self._stamp)
            if done > before:
                parts.append(Part(buffer[: ends[done - 1]].copy(), ends[before:done]))
            else:
                self._buffer = np.empty(2 * len(buffer), np.uint8)
        self._stamp += len(rows)
        return parts
