"""What every user's state must be at the end of a log: the judge of all contestants, by array operations alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tests.bench.stream.job import BASE_MS, HALF_LIFE_S, USERS, WEIGHT, Events, Float32, Int64, user_id
from tests.bench.stream.records import COMPACT_EVENTS, compact_entries, count_of, vector_of

#: Users whose whole vector is compared; the number of events is compared for all users.
_SAMPLED = 2_000
_HOTTEST = 50
#: 1 - cosine. A length may be off by more: half a million float32 additions round half a million times.
_ANGLE = 1e-6
_LENGTH = 1e-4


class Reader(NamedTuple):
    """
    How a kind of record is read.

    Attributes
    ----------
    count
        Events ever applied.
    content
        The vector (dim,), or the newest events as `records.ENTRIES`.
    holds_vector
        Which of the two.

    """

    count: Callable[[bytes], int]
    content: Callable[[bytes], Any]
    holds_vector: bool


READERS = {
    "vector": Reader(count_of, vector_of, holds_vector=True),
    "compact": Reader(count_of, compact_entries, holds_vector=False),
}


class Oracle:
    """
    The end of one log.

    Parameters
    ----------
    events
        The whole log, in one piece.
    table
        Item vectors (items, dim) float32.

    """

    def __init__(self, events: Events, table: Float32, users: int = USERS) -> None:
        self._events = events
        self._table = table
        self._counts = np.bincount(events.users, minlength=users)
        self._order = np.argsort(events.users, kind="stable")
        self._starts = np.concatenate(([0], np.cumsum(self._counts)))
        hottest = np.argsort(self._counts, kind="stable")[::-1][:_HOTTEST]
        present = np.flatnonzero(self._counts)
        drawn = np.random.default_rng(1).choice(present, min(_SAMPLED, len(present)), replace=False)
        self.sampled = sorted({int(user) for user in (*hottest, *drawn) if self._counts[user]})

    def checksum(self) -> tuple[int, int]:
        """Return the number of events, and the sum of their item numbers: what a consumer without state can tell."""
        return len(self._events.users), int(self._events.items.sum())

    def of(self, user: int) -> Int64:
        """Return the record numbers of a user's events, in order."""
        return self._order[self._starts[user] : self._starts[user + 1]]

    def vector(self, user: int) -> npt.NDArray[np.float64]:
        """Return a user's decayed sum at the user's newest event, float64."""
        mine = self.of(user)
        ts_ms = self._events.ts_ms[mine]
        left = WEIGHT * np.exp2((ts_ms - ts_ms[-1]) / (1000.0 * HALF_LIFE_S))
        total: npt.NDArray[np.float64] = left @ self._table[self._events.items[mine]].astype(np.float64)
        return total

    def wrong(self, records: Mapping[bytes, bytes], reader: Reader) -> list[str]:
        """Return a sentence for each way in which the users' last records, by user id, are not what they must be."""
        found = {user: records.get(user_id(user).encode()) for user in np.flatnonzero(self._counts).tolist()}
        kept = {user: record for user, record in found.items() if record is not None}
        if missing := found.keys() - kept.keys():
            return [f"{len(missing)} of {len(found)} users have no state, {user_id(min(missing))} for one"]
        off = [
            f"{user_id(user)} has {count} events, not {self._counts[user]}"
            for user, record in kept.items()
            if (count := reader.count(record)) != self._counts[user]
        ]
        if off:
            return [f"{len(off)} of {len(kept)} users have a wrong number of events: {'; '.join(off[:3])}"]
        differs = self._vector_differs if reader.holds_vector else self._entries_differ
        return [
            f"{user_id(user)}: {sentence}"
            for user in self.sampled
            if (sentence := differs(user, reader.content(kept[user])))
        ]

    def memory_wrong(self, sample: Float32) -> list[str]:
        """Return a sentence for each first user whose vector (n, dim) as of `BASE_MS` is not what it must be."""
        found = []
        for user in np.flatnonzero(self._counts[: len(sample)]).tolist():
            age_s = (int(self._events.ts_ms[self.of(user)[-1]]) - BASE_MS) / 1000.0
            if sentence := self._vector_differs(user, sample[user] * 2.0 ** (-age_s / HALF_LIFE_S)):
                found.append(f"{user_id(user)} in memory: {sentence}")
        return found

    def _vector_differs(self, user: int, vector: np.ndarray) -> str:
        expected, actual = self.vector(user), vector.astype(np.float64)
        lengths = float(np.linalg.norm(expected)), float(np.linalg.norm(actual))
        cosine = float(expected @ actual) / (lengths[0] * lengths[1]) if lengths[1] else 0.0
        if 1.0 - cosine > _ANGLE or abs(lengths[1] / lengths[0] - 1.0) > _LENGTH:
            return f"cosine {cosine:.9f}, length {lengths[1]:.6f} and not {lengths[0]:.6f}"
        return ""

    def _entries_differ(self, user: int, entries: np.ndarray) -> str:
        mine = self.of(user)[-COMPACT_EVENTS:]
        same = np.array_equal(self._events.ts_ms[mine], entries["ts_ms"]) and np.array_equal(
            self._events.items[mine], entries["item"]
        )
        return "" if same else "the newest events differ"
