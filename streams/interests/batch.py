"""A run of valid events as columns, and what folding it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple, final

import numpy as np

from streams.interests.columns import Bool, Int32, Int64, Records, UInt8, UInt64
from streams.wire.events import Event

#: One interaction as it was read: time, name within its user, the record it came in, where its ids stand, its type and
#: the code of the device it came from.
EVENT: Final = np.dtype(
    [
        ("ts", np.int64),
        ("event_hash", np.uint64),
        ("offset", np.int64),
        ("record_ms", np.int64),
        ("user_at", np.int32),
        ("user_size", np.int32),
        ("item_at", np.int32),
        ("item_size", np.int32),
        ("event_at", np.int32),
        ("event_size", np.int32),
        ("kind", np.uint8),
        ("device", np.uint8),
    ],
    align=True,
)


@final
class Texts:
    """
    n texts that stand somewhere in one buffer.

    >>> texts = Texts.of(["a", "bc"])
    >>> list(texts), texts.at.tolist(), texts.size.tolist()
    (['a', 'bc'], [0, 1], [1, 2])

    Attributes
    ----------
    raw
        The buffer; what stands there is UTF-8.
    at, size
        (n,) int32, where each begins and its bytes.

    """

    __slots__ = ("at", "raw", "size")

    def __init__(self, raw: bytes, at: Int32, size: Int32) -> None:
        self.raw = raw
        self.at = at
        self.size = size

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Return texts in a buffer of their own."""
        encoded = [text.encode() for text in texts]
        size = np.fromiter(map(len, encoded), np.int32, len(encoded))
        return cls(b"".join(encoded), np.cumsum(size, dtype=np.int32) - size, size)

    @property
    def pool(self) -> UInt8:
        """The buffer as an array, (bytes,) uint8, read-only."""
        return np.frombuffer(self.raw, np.uint8)

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, place: int) -> str:
        at = int(self.at[place])
        return self.raw[at : at + int(self.size[place])].decode()

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))


class EventBatch(NamedTuple):
    """
    Events of one partition in order of (time, hash); what is no column is (n,).

    In order of time, because a backlog may hold hours of one topic before the first record of the next: folded as
    they came, the first topic's events would push the others' below the floor of users with many.

    Attributes
    ----------
    users, items, event_ids
        Ids.
    ts, event_hash, kind, device
        Event time in ms, 64 bits that name the event within its user, type code, code of the device it came from.
    offset, record_ms
        Of the record each event came in; its topic follows from the type.
    impressions
        Rendered lists, which are no interactions, in order of time as well.

    """

    users: Texts
    items: Texts
    event_ids: Texts
    ts: Int64
    event_hash: UInt64
    kind: UInt8
    device: UInt8
    offset: Int64
    record_ms: Int64
    impressions: list[Event]

    @classmethod
    def of(cls, raw: bytes, events: Records, impressions: list[Event]) -> EventBatch:
        """Return interactions `EVENT`, in any order, whose ids stand in `raw`, and impressions, as a batch."""
        ts, names = events["ts"], events["event_hash"]
        # Of one topic they mostly are in order already.
        if (ts[:-1] >= ts[1:]).any():
            events = events[np.lexsort((names, ts))]
        impressions.sort(key=lambda event: (event.ts_ms, event.event_hash))
        columns = {name: np.ascontiguousarray(events[name]) for name in EVENT.names or ()}
        return cls(
            users=Texts(raw, columns["user_at"], columns["user_size"]),
            items=Texts(raw, columns["item_at"], columns["item_size"]),
            event_ids=Texts(raw, columns["event_at"], columns["event_size"]),
            ts=columns["ts"],
            event_hash=columns["event_hash"],
            kind=columns["kind"],
            device=columns["device"],
            offset=columns["offset"],
            record_ms=columns["record_ms"],
            impressions=impressions,
        )


@dataclass
class FoldResult:
    """
    What one run of events did; arrays follow the interactions of the batch.

    Attributes
    ----------
    rows, items, outcome
        (n,) row of the user, row of the item, what became of the event.
    previous
        (n, 3) item rows met just before an applied event, newest first, -1 where none.
    changed
        (n,) whether the event changed what its user's list is made of.
    applied, late, duplicates
        Events by type name and outcome, impressions included.

    """

    rows: Int64
    items: Int32
    outcome: UInt8
    previous: Int32
    changed: Bool
    applied: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)

    @cached_property
    def dirty(self) -> dict[int, int]:
        """Row of each user who is owed a list to the index of the last event that made it so."""
        at_changed = np.flatnonzero(self.changed)
        return dict(zip(self.rows[at_changed].tolist(), at_changed.tolist(), strict=True))
