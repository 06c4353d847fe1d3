"""A run of valid events as columns, and what folding it did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.interests.columns import Int32, Int64, UInt8, UInt64
from streams.wire.events import Event


class EventBatch(NamedTuple):
    """
    Events of one partition in order of (time, hash); what is no column is (n,).

    In order of time, because a backlog may hold hours of one topic before the first record of the next: folded as
    they came, the first topic's events would push the others' below the floor of users with many.

    Attributes
    ----------
    users, items, event_ids
        Ids.
    ts, event_hash, kind
        Event time in ms, 64 bits that name the event within its user, type code.
    offset, record_ms
        Of the record each event came in; its topic follows from the type.
    impressions
        Rendered lists, which are no interactions, in order of time as well.

    """

    users: list[str]
    items: list[str]
    event_ids: list[str]
    ts: Int64
    event_hash: UInt64
    kind: UInt8
    offset: Int64
    record_ms: Int64
    impressions: list[Event]


@dataclass(slots=True)
class FoldResult:
    """
    What one run of events did; arrays follow the interactions of the batch.

    Attributes
    ----------
    rows, items, outcome
        (n,) row of the user, row of the item, what became of the event.
    previous
        (n, 3) item rows met just before an applied event, newest first, -1 where none.
    dirty
        Row of each user who is owed a list to the index of the last event that made it so.
    applied, late, duplicates
        Events by type name and outcome, impressions included.

    """

    rows: Int64
    items: Int32
    outcome: UInt8
    previous: Int32
    dirty: dict[int, int]
    applied: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
