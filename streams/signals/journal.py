"""
What was taken in and is in no item's record yet: the batches themselves lie in the changelog until all their items do.

The records of an item take some kilobytes, and an item that many look at changes in every commit. So a commit writes
the batches that came, as they came, and the records of those items that have waited longest. A restore takes both in
the changelog's order: an item's records stand for all batches before them, and batches behind them are taken in again.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from typing import Final

from streams.kafka.outgoing import OutRecord
from streams.signals.codec import encode_batches
from streams.wire.signals import MAX_ITEM_EVENTS_BYTES

BATCHES_PREFIX: Final = b"\x00batches:"
#: An item waits about so long, so a restore takes in the batches of so long again, and workers hear of neighbours.
_ROUND_S: Final = 60.0
#: Items that need not wait, however few they are: some 20 ms of a commit.
_AT_LEAST: Final = 50


class Journal:
    r"""
    Batches, and the rows of items whose records are behind, of one partition.

    The keys of batches are used again, so there are never more of them than were needed at once. What lies under a
    key that is free was taken in before the records of all its items were written, and does no harm.

    >>> journal = Journal("signal-state", partition=0)
    >>> journal.add(b"batch")
    >>> journal.wait([3, 5])
    >>> [record.key for record in journal.batches()], journal.due(elapsed_s=1.0), len(journal)
    ([b'\x00batches:0'], [3, 5], 0)
    """

    def __init__(self, topic: str, partition: int) -> None:
        self._topic = topic
        self._partition = partition
        self._added: list[bytes] = []
        #: How many records of batches were written or restored.
        self._written = 0
        #: The number of the record that lies under each key, oldest first, and the keys that are free.
        self._keys: dict[int, int] = {}
        self._free: list[int] = []
        self._next = 0
        #: Rows in the order in which they began to wait, and the number of the first record that may concern them.
        self._waiting: dict[int, int] = {}

    def __len__(self) -> int:
        """Return the number of items that wait."""
        return len(self._waiting)

    def add(self, batch: bytes) -> None:
        """Take a batch, a value of `item-events`."""
        self._added.append(batch)

    def wait(self, rows: Iterable[int]) -> None:
        """Have items wait, whose records are behind what was added last."""
        first = self._written + 1
        for row in rows:
            self._waiting.setdefault(row, first)

    def settle(self, row: int) -> None:
        """Strike an item: its records were restored, and stand for all before them."""
        self._waiting.pop(row, None)

    def restore(self, key: bytes) -> None:
        """Take back the key of a record whose batches were taken in, and for whose items was said that they wait."""
        number = int(key.removeprefix(BATCHES_PREFIX))
        self._written += 1
        self._next = max(self._next, number + 1)
        self._keys.pop(number, None)
        self._keys[number] = self._written

    def batches(self) -> list[OutRecord]:
        """Return what was added, as records of the changelog."""
        self._let_go()
        records: list[OutRecord] = []
        together: list[bytes] = []
        size = 0
        for batch in self._added:
            if together and size + len(batch) > MAX_ITEM_EVENTS_BYTES:
                records.append(self._record(together))
                together, size = [], 0
            together.append(batch)
            size += len(batch)
        if together:
            records.append(self._record(together))
        self._added = []
        return records

    def due(self, elapsed_s: float) -> list[int]:
        """Take off the rows whose records are to be written now; `elapsed_s` after this was asked last."""
        share = min(max(elapsed_s, 0.0) / _ROUND_S, 1.0)
        count = max(_AT_LEAST, math.ceil(len(self._waiting) * share))
        rows = [row for row, _ in zip(self._waiting, range(count), strict=False)]
        for row in rows:
            del self._waiting[row]
        return rows

    def _record(self, batches: list[bytes]) -> OutRecord:
        self._written += 1
        if not self._free:
            heapq.heappush(self._free, self._next)
            self._next += 1
        number = heapq.heappop(self._free)
        self._keys[number] = self._written
        return OutRecord(self._topic, BATCHES_PREFIX + b"%d" % number, encode_batches(batches), self._partition)

    def _let_go(self) -> None:
        """Free the keys of records before the first that a waiting item needs."""
        needed = next(iter(self._waiting.values()), self._written + 1)
        for number, written in list(self._keys.items()):
            if written >= needed:
                return
            del self._keys[number]
            heapq.heappush(self._free, number)
