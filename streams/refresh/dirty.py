"""Users who are owed a list: oldest first, each once; events that come while a user waits coalesce."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

from streams.wire.recommendations import Trigger

P = TypeVar("P")


class Cause(NamedTuple):
    """
    Why a list is owed.

    Attributes
    ----------
    trigger
        The newest event behind it.
    ingested_ms
        Record timestamp of that event.
    oldest_ms
        Record timestamp of the oldest event not yet on a list: what freshness counts from; 0 when no event is
        behind it.

    """

    trigger: Trigger
    ingested_ms: int = 0
    oldest_ms: int = 0


class DirtyUsers(Generic[P]):
    """
    The queue between folding and ranking, over all partitions of a worker.

    >>> dirty = DirtyUsers[int]()
    >>> dirty.mark(0, "u", Cause(Trigger("event", offset=1), 10, 10))
    >>> dirty.mark(0, "u", Cause(Trigger("event", offset=2), 12, 12))
    >>> [(user, cause.trigger.offset, cause.oldest_ms) for _, user, cause in dirty.take(5)]
    [('u', 2, 10)]
    """

    def __init__(self) -> None:
        self._causes: dict[tuple[P, str], Cause] = {}

    def __len__(self) -> int:
        return len(self._causes)

    def __contains__(self, entry: Any) -> bool:
        return entry in self._causes

    def mark(self, partition: P, user_id: str, cause: Cause) -> None:
        """Owe a list; a user already waiting keeps the place and the oldest event, and takes the newest trigger."""
        entry = (partition, user_id)
        waiting = self._causes.get(entry)
        if waiting is not None and waiting.oldest_ms:
            cause = cause._replace(oldest_ms=min(waiting.oldest_ms, cause.oldest_ms or waiting.oldest_ms))
        self._causes[entry] = cause

    def take(self, count: int) -> list[tuple[P, str, Cause]]:
        """Remove and return up to `count` users, those who wait longest first."""
        entries = [entry for entry, _ in zip(self._causes, range(count), strict=False)]
        return [(*entry, self._causes.pop(entry)) for entry in entries]

    def forget(self, partition: P) -> None:
        """Drop the users of a partition that is no longer owned."""
        for entry in [entry for entry in self._causes if entry[0] == partition]:
            del self._causes[entry]
