"""Making records of many users: their bodies at one moment, compiled, and the records later, in another thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from streams.catalogue.ids import ItemNames
from streams.interests import codec, layout
from streams.interests.columns import Int32, Int64, Store

#: Rows whose bodies are written into one buffer; 4,096 typical users are some 4 MB.
_ROWS: Final = 4_096


class Bodies(NamedTuple):
    """Bodies of users one behind another, without margins, and where each ends."""

    joined: bytes
    ends: list[int]


class Copied(NamedTuple):
    """What the records of n users are made of, as it was at one moment; another thread may make them."""

    user_ids: list[str]
    heads: list[bytes]
    bodies: list[Bodies]
    margins: list[bytes]
    owed: list[bool]
    erased: list[bool]

    def records(self) -> Iterator[tuple[str, bytes]]:
        """Yield each user's id and record."""
        rest = zip(self.user_ids, self.heads, self.margins, self.owed, self.erased, strict=True)
        for joined, ends in self.bodies:
            begin = 0
            for end, (user_id, head, margin, owed, erased) in zip(ends, rest, strict=False):
                body = joined[begin:end]
                begin = end
                yield user_id, codec.seal(head, body + margin if margin else body, pending=owed, erased=erased)


class BodyWriter:
    """Writes bodies; keeps the scratch that finds an item's place among a body's ids without searching."""

    def __init__(self) -> None:
        self._mark: Int64 = np.full(0, -1, np.int64)
        self._index: Int32 = np.zeros(0, np.int32)
        self._stamp = 0

    def write(self, store: Store, names: ItemNames, rows: Int64, erased_at_ms: Int64) -> list[Bodies]:
        """Return the bodies of rows, in parts."""
        if len(self._mark) < len(names.at):
            self._mark = np.full(2 * len(names.at), -1, np.int64)
            self._index = np.zeros(2 * len(names.at), np.int32)
            self._stamp = 0
        starts = range(0, len(rows), _ROWS)
        return [
            self._write(store, names, rows[start : start + _ROWS], erased_at_ms[start : start + _ROWS])
            for start in starts
        ]

    def _write(self, store: Store, names: ItemNames, rows: Int64, erased_at_ms: Int64) -> Bodies:
        out = np.empty(layout.bound(store, names, rows), np.uint8)
        ends = np.empty(len(rows), np.int64)
        layout.write(store, names, rows, erased_at_ms, out, ends, self._mark, self._index, self._stamp)
        self._stamp += len(rows)
        return Bodies(out[: ends[-1]].tobytes(), ends.tolist())
