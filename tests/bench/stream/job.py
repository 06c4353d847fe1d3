"""
The one job of every contestant: a click stream in, a decayed vector of each user out.

The log is a function of (name, number of the record), so that every peer, and the oracle, means the same events.
Needs NumPy alone: it is imported in the project's environment and in that of the peers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

#: MiniLM's dimension, which Freshet serves by default.
DIM = 384
ITEMS = 10_000
USERS = 100_000
#: Different items that one user ever meets. Freshet keeps exact tallies of 224 to 256 items a user; a user of this log
#: has fewer, so that the exact answer is also Freshet's.
POOL = 200
PARTITIONS = 4
#: Freshet's own default of the long vector: a lost early event still shows at the end of the log.
HALF_LIFE_S = 60 * 86400.0
#: What a click adds: Freshet's default weight.
WEIGHT = 1.0
#: One event a second in event time; a fixed start, so that the bytes of the log never change.
BASE_MS = 1_735_689_600_000
STEP_MS = 1_000
COMMIT_S = 1.0

LOGS = ("uniform", "zipf")
_CHUNK = 100_000
_SEED = 20_261_122


class Events(NamedTuple):
    """Records [start, start + n) of a log: user numbers, item numbers (n,) int64."""

    start: int
    users: Int64
    items: Int64

    @property
    def ts_ms(self) -> Int64:
        """Event times (n,), one step after the other."""
        return BASE_MS + STEP_MS * np.arange(self.start, self.start + len(self.users), dtype=np.int64)


def _mixed(counter: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014) of a counter."""
    z = counter * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def item_vectors() -> Float32:
    """
    Return the unit vector of every item, (ITEMS, DIM) float32, exact in float16 because that is how Freshet stores it.

    >>> table = item_vectors()
    >>> table.shape, bool(np.allclose(np.linalg.norm(table, axis=1), 1.0, atol=1e-3))
    ((10000, 384), True)
    """
    bits = _mixed(np.arange(1, ITEMS * DIM + 1, dtype=np.uint64)) >> np.uint64(40)
    raw = (bits.astype(np.float64) / 2**23 - 1.0).reshape(ITEMS, DIM)
    raw /= np.linalg.norm(raw, axis=1, keepdims=True)
    return raw.astype(np.float16).astype(np.float32)


@cache
def _zipf_cumulative(users: int) -> npt.NDArray[np.float64]:
    shares: npt.NDArray[np.float64] = np.cumsum(1.0 / np.arange(1, users + 1))
    shares /= shares[-1]
    return shares


def chunks(log: str, records: int, users: int = USERS) -> Iterator[Events]:
    """
    Yield the first `records` records of a log in pieces; a longer log begins with the shorter one.

    >>> [len(events.users) for events in chunks("zipf", 250_000)]
    [100000, 100000, 50000]
    """
    for start in range(0, records, _CHUNK):
        rng = np.random.default_rng([_SEED, LOGS.index(log), start])
        if log == "zipf":
            who = np.searchsorted(_zipf_cumulative(users), rng.random(_CHUNK)).astype(np.int64)
        else:
            who = rng.integers(users, size=_CHUNK)
        taste = who * POOL + rng.integers(POOL, size=_CHUNK)
        what = (_mixed(taste.astype(np.uint64)) % np.uint64(ITEMS)).astype(np.int64)
        size = min(_CHUNK, records - start)
        yield Events(start, who[:size], what[:size])


def whole(log: str, records: int, users: int = USERS) -> Events:
    """Return the first `records` records of a log in one piece."""
    parts = list(chunks(log, records, users))
    return Events(0, np.concatenate([p.users for p in parts]), np.concatenate([p.items for p in parts]))


_TEMPLATE = b'{"event_id":"e0000000000","user_id":"u0000000","item_id":"i00000","ts":0000000000000}'
_EVENT_AT = _TEMPLATE.index(b"e0000000000") + 1
_USER_AT = _TEMPLATE.index(b"u0000000") + 1
_ITEM_AT = _TEMPLATE.index(b"i00000") + 1
_TS_AT = _TEMPLATE.index(b":0000000000000") + 1
USER_ID = slice(_USER_AT - 1, _USER_AT + 7)


def user_id(number: int) -> str:
    """
    Return a user's id.

    >>> user_id(17)
    'u0000017'
    """
    return f"u{number:07d}"


def item_id(number: int) -> str:
    """
    Return an item's id.

    >>> item_id(17)
    'i00017'
    """
    return f"i{number:05d}"


def encoded(events: Events) -> list[bytes]:
    """
    Return the JSON of events; the key of each is its `USER_ID` slice.

    >>> encoded(next(chunks("uniform", 1)))[0]
    b'{"event_id":"e0000000000","user_id":"u0021340","item_id":"i06814","ts":1735689600000}'
    """
    rows = np.empty((len(events.users), len(_TEMPLATE)), np.uint8)
    rows[:] = np.frombuffer(_TEMPLATE, np.uint8)
    numbers = np.arange(events.start, events.start + len(rows))
    columns = ((_EVENT_AT, 10, numbers), (_USER_AT, 7, events.users), (_ITEM_AT, 5, events.items))
    for at, width, values in (*columns, (_TS_AT, 13, events.ts_ms)):
        for place in range(width):
            rows[:, at + width - 1 - place] = 48 + values // 10**place % 10
    blob, size = rows.tobytes(), len(_TEMPLATE)
    return [blob[at : at + size] for at in range(0, len(blob), size)]
