"""The 64-bit names of events, for a whole run at once, compiled; `streams.wire.events.event_hash` defines them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.compiled import compiled
from streams.interests.columns import Int64, UInt8, UInt64


def event_hashes(kinds: UInt8, event_ids: Sequence[str]) -> UInt64:
    """
    Return the names of n events, (n,) uint64.

    >>> from streams.wire.events import event_hash
    >>> event_hashes(np.array([1], np.uint8), ["e1"]).tolist() == [event_hash(1, "e1")]
    True
    """
    encoded = [event_id.encode() for event_id in event_ids]
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    out = np.empty(len(encoded), np.uint64)
    _hash(kinds, np.frombuffer(b"".join(encoded), np.uint8), ends, out)
    return out


@compiled
def _hash(kinds: UInt8, pool: UInt8, ends: Int64, out: UInt64) -> None:
    start = 0
    for number in range(len(out)):
        mixed = np.uint64(0xCBF29CE484222325) ^ np.uint64(kinds[number])
        for at in range(start, ends[number]):
            mixed = (mixed ^ np.uint64(pool[at])) * np.uint64(0x100000001B3)
        mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
        out[number] = mixed ^ (mixed >> np.uint64(33))
        start = ends[number]
