"""How far a partition may be committed when its records finish out of order."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from typing import NamedTuple


class Position(NamedTuple):
    """One record's place: Kafka's topic name, partition number, offset."""

    topic: str
    partition: int
    offset: int


class Watermark:
    """
    The contiguous prefix of finished records, per partition.

    Texts are encoded in the order of their length, so a later record may be out before an earlier one. Committing
    past the earlier one would lose it in a crash.

    >>> marks = Watermark()
    >>> marks.add([Position("items", 0, 7), Position("items", 0, 8)])
    >>> marks.finish([Position("items", 0, 8)])
    >>> marks.commits()
    {('items', 0): 7}
    >>> marks.finish([Position("items", 0, 7)])
    >>> marks.commits()
    {('items', 0): 9}
    """

    def __init__(self) -> None:
        self._order: dict[tuple[str, int], deque[int]] = {}
        self._open: dict[tuple[str, int], set[int]] = {}
        self._next: dict[tuple[str, int], int] = {}
        self._committed: dict[tuple[str, int], int] = {}

    def add(self, positions: Iterable[Position]) -> None:
        """
        Take note of records read and not finished; offsets of a partition come in rising order.

        One that comes again means that the partition was read again from an earlier place: it starts anew.
        """
        for topic, partition, offset in positions:
            at = (topic, partition)
            if offset < self._next.get(at, 0):
                self.drop([at])
            self._order.setdefault(at, deque()).append(offset)
            self._open.setdefault(at, set()).add(offset)
            self._next[at] = offset + 1

    def finish(self, positions: Iterable[Position]) -> None:
        """Mark records as out, skipped or refused. Records of a dropped partition are passed over."""
        touched = set()
        for topic, partition, offset in positions:
            at = (topic, partition)
            if at in self._open:
                self._open[at].discard(offset)
                touched.add(at)
        for at in touched:
            order, still_open = self._order[at], self._open[at]
            while order and order[0] not in still_open:
                order.popleft()

    def commits(self) -> dict[tuple[str, int], int]:
        """Return the next offset to read of every partition that has moved since `committed` was told."""
        return {at: offset for at, offset in self.marks().items() if offset != self._committed.get(at)}

    def marks(self) -> dict[tuple[str, int], int]:
        """Return the next offset to read of every partition."""
        return {at: order[0] if order else self._next[at] for at, order in self._order.items()}

    def committed(self, offsets: dict[tuple[str, int], int]) -> None:
        """Take note of what Kafka has accepted."""
        self._committed.update(offsets)

    def drop(self, partitions: Collection[tuple[str, int]]) -> None:
        """Forget partitions that were taken away; whoever has them now reads from the last commit."""
        for at in partitions:
            for table in (self._order, self._open, self._next, self._committed):
                table.pop(at, None)

    @property
    def pending(self) -> int:
        """Records read and not finished."""
        return sum(len(offsets) for offsets in self._open.values())
