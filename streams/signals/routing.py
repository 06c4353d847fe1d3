"""
Which partitions of `item-events` an event goes to.

An event is told to the partition of its item, which counts it, and to those of the items before it, each of which
learns what follows its items. So the rules of an item lie with their whole owner and can be cut to the heaviest
there; told to the event's item alone, they would lie where they lead to, and cutting there would lose every rule
of a rare item that leads to popular ones. A reader counts the events whose item is its own, and learns the rules
whose first item is its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from streams.catalogue.ids import ItemNames
from streams.kafka.partitioner import partition_of
from streams.wire.signals import (
    EVENT_BYTES,
    ITEM_EVENTS_HEAD_BYTES,
    MAX_ITEM_EVENTS,
    MAX_ITEM_EVENTS_BYTES,
    PREVIOUS,
    ItemEvents,
    encode_named_events,
    problem_of_columns,
)

_Int32 = npt.NDArray[np.int32]
_Int32s = npt.NDArray[np.int32]
_Int64 = npt.NDArray[np.int64]
_UInt8 = npt.NDArray[np.uint8]

_LINE_FEED: Final = ord("\n")


@lru_cache(maxsize=262_144)
def item_partition(item_id: str, partitions: int) -> int:
    """Return the partition that owns an item."""
    return partition_of(item_id.encode(), partitions)


def item_partitions(ids: Sequence[str], partitions: int) -> npt.NDArray[np.int32]:
    """Return the partitions (m,) int32 that own items."""
    return np.fromiter((item_partition(item_id, partitions) for item_id in ids), np.int32, len(ids))


def routed(
    events: ItemEvents, owners: npt.NDArray[np.int32], names: ItemNames | None = None
) -> list[tuple[int, bytes]]:
    """
    Return (partition, record value) of all records that tell these events, in order within a partition.

    >>> from streams.wire.signals import ItemEvent, item_events
    >>> events = item_events([ItemEvent(7, "b", 1, 5, ("c", "b"))])
    >>> [partition for partition, _ in routed(events, item_partitions(events.ids, 8))]
    [2, 4]

    Parameters
    ----------
    owners
        (m,) int32, the partition that owns each of the ids.
    names
        The ids as bytes; what `events.ids` says when not given.

    Raises
    ------
    ValueError
        See `encode_item_events`.

    """
    count = len(events.item)
    if not count:
        return []
    # Compiled code believes indices.
    if problem := problem_of_columns(events, len(owners)):
        raise ValueError(problem)
    names = names or ItemNames.of(events.ids)
    ends = np.zeros(int(owners.max()) + 1, np.int64)
    _count(events.item, events.previous, owners, ends)
    np.cumsum(ends, out=ends)
    order = np.empty(int(ends[-1]), np.int64)
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    _deal(events.item, events.previous, owners, starts.copy(), order)
    writer = _Writer(events, names)
    return [
        (partition, value)
        for partition, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True))
        for value in writer.records(order[start:end])
    ]


class _Writer:
    """Writes records of some of the events; finds an id's place in a record without searching."""

    def __init__(self, events: ItemEvents, names: ItemNames) -> None:
        self._events = events
        self._names = names
        # Zeros that nobody reads cost nothing: most items of a large catalogue are not in a batch.
        self._mark = np.zeros(len(names.at), np.int64)
        self._place_of = np.zeros(len(names.at), np.int32)
        self._stamp = 0
        most = min(len(events.item), MAX_ITEM_EVENTS)
        self._item = np.empty(most, np.int32)
        self._previous = np.empty((most, PREVIOUS), np.int32)
        self._blob = np.empty(MAX_ITEM_EVENTS_BYTES, np.uint8)

    def records(self, rows: npt.NDArray[np.int64]) -> Iterator[bytes]:
        """Yield as many records as these events need, in order."""
        while len(rows):
            self._stamp += 1
            count, ids, size = _name(
                self._events.item, self._events.previous, rows, self._names, self._mark, self._place_of, self._stamp,
                self._item, self._previous, self._blob,
            )  # fmt: skip
            if not count:
                raise ValueError("the ids of one event are longer than a record may be")
            told, rows = rows[:count], rows[count:]
            columns = ItemEvents(
                [],
                self._events.user[told],
                self._item[:count],
                self._events.type_code[told],
                self._events.ts_ms[told],
                self._previous[:count],
                self._events.device[told],
            )
            yield encode_named_events(columns, ids, self._blob[:size].tobytes())


@compiled
def _is_told(previous: _Int32s, owner: _Int32, at: int, step: int, partition: int) -> bool:
    """Whether something before a step of an event leads to the partition."""
    told = False
    for before in range(step):
        told |= previous[at, before] >= 0 and owner[previous[at, before]] == partition
    return told


@compiled
def _count(item: _Int32, previous: _Int32s, owner: _Int32, counts: _Int64) -> None:
    """Count the events that each partition is told."""
    for at in range(len(item)):
        own = owner[item[at]]
        counts[own] += 1
        for step in range(PREVIOUS):
            if previous[at, step] >= 0:
                partition = owner[previous[at, step]]
                if partition != own and not _is_told(previous, owner, at, step, partition):
                    counts[partition] += 1


@compiled
def _deal(item: _Int32, previous: _Int32s, owner: _Int32, places: _Int64, order: _Int64) -> None:
    """Write the events that each partition is told, from its place on, which moves."""
    for at in range(len(item)):
        own = owner[item[at]]
        order[places[own]] = at
        places[own] += 1
        for step in range(PREVIOUS):
            if previous[at, step] >= 0:
                partition = owner[previous[at, step]]
                if partition != own and not _is_told(previous, owner, at, step, partition):
                    order[places[partition]] = at
                    places[partition] += 1


@compiled
def _name(
    item: _Int32, previous: _Int32s, rows: _Int64, names: ItemNames, mark: _Int64, place_of: _Int32, stamp: int,
    item_out: _Int32, previous_out: _Int32s, blob: _UInt8,
) -> tuple[int, int, int]:  # fmt: skip
    """
    Name the items of as many of the events as one record holds, each id once.

    Return how many events, how many ids, and the bytes of these, joined by line feeds.
    """
    pool, name_at = names
    known = size = 0
    for number in range(min(len(rows), len(item_out))):
        at = rows[number]
        # One more event with its ids, as if none were known yet.
        more = ITEM_EVENTS_HEAD_BYTES + (number + 1) * EVENT_BYTES + size
        for step in range(-1, PREVIOUS):
            row = item[at] if step < 0 else previous[at, step]
            if row >= 0:
                more += 1 + name_at[row + 1] - name_at[row]
        if more > MAX_ITEM_EVENTS_BYTES:
            return number, known, size
        for step in range(-1, PREVIOUS):
            row = item[at] if step < 0 else previous[at, step]
            place = -1
            if row >= 0:
                if mark[row] != stamp:
                    mark[row] = stamp
                    place_of[row] = known
                    if known:
                        blob[size] = _LINE_FEED
                        size += 1
                    known += 1
                    for letter in range(name_at[row], name_at[row + 1]):
                        blob[size] = pool[letter]
                        size += 1
                place = place_of[row]
            if step < 0:
                item_out[number] = place
            else:
                previous_out[number, step] = place
    return min(len(rows), len(item_out)), known, size
