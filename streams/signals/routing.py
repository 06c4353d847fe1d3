"""
Which partitions of `item-events` an event goes to.

An event is told to the partition of its item, which counts it, and to those of the items before it, each of which
learns what follows its items. So the rules of an item lie with their whole owner and can be cut to the heaviest
there; told to the event's item alone, they would lie where they lead to, and cutting there would lose every rule
of a rare item that leads to popular ones. A reader counts the events whose item is its own, and learns the rules
whose first item is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from streams.kafka.partitioner import partition_of
from streams.wire.signals import ItemEvents, item_event_records, part_of


@lru_cache(maxsize=262_144)
def item_partition(item_id: str, partitions: int) -> int:
    """Return the partition that owns an item."""
    return partition_of(item_id.encode(), partitions)


def item_partitions(ids: Sequence[str], partitions: int) -> npt.NDArray[np.int32]:
    """Return the partitions (m,) int32 that own items."""
    return np.fromiter((item_partition(item_id, partitions) for item_id in ids), np.int32, len(ids))


def routed(events: ItemEvents, owners: npt.NDArray[np.int32]) -> list[tuple[int, bytes]]:
    """
    Return (partition, record value) of all records that tell these events, in order within a partition.

    >>> from streams.wire.signals import ItemEvent, item_events
    >>> events = item_events([ItemEvent(7, "b", 1, 5, ("c", "b"))])
    >>> [partition for partition, _ in routed(events, item_partitions(events.ids, 8))]
    [2, 4]

    Parameters
    ----------
    owners
        (m,) int32, the partition that owns each of `events.ids`.

    Raises
    ------
    ValueError
        See `encode_item_events`.

    """
    count = len(events.item)
    if not count:
        return []
    # One more entry, so that -1 (no item) reads as no partition.
    owner = np.append(owners, np.int32(-1))
    told = np.concatenate((owner[events.item][:, None], owner[events.previous]), axis=1)
    told.sort(axis=1)
    told[:, 1:][told[:, 1:] == told[:, :-1]] = -1
    rows, columns = np.nonzero(told >= 0)
    targets = told[rows, columns]
    order = np.argsort(targets, kind="stable")
    starts = np.flatnonzero(np.diff(targets[order], prepend=-1))
    return [
        (int(targets[places[0]]), value)
        for places in np.split(order, starts[1:])
        for value in item_event_records(part_of(events, rows[places]))
    ]
