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
    kind
        `event`, `restore`, `catalogue` or `rules`, as lists say it.
    topic, offset, event_id
        The newest event behind it; empty when no event is.
    ingested_ms
        Record timestamp of that event.
    oldest_ms
        Record timestamp of the oldest event not yet on a list: what freshness counts from; 0 when no event is
        behind it.

    """

    kind: str
    topic: str = ""
    offset: int = -1
    event_id: str = ""
    ingested_ms: int = 0
    oldest_ms: int = 0

    def trigger(self, partition: int) -> Trigger:
        """Return the cause as lists carry it."""
        if self.kind != "event":
            return Trigger(self.kind, partition=partition)
        return Trigger(self.kind, self.topic, partition, self.offset, self.event_id)


class DirtyUsers(Generic[P]):
    """
    The queue between folding and ranking, over all partitions of a worker.

    >>> dirty = DirtyUsers[int]()
    >>> dirty.mark(0, "u", Cause("event", "clicks", 1, "e1", 10, 10))
    >>> dirty.mark(0, "u", Cause("event", "clicks", 2, "e2", 12, 12))
    >>> [(user, cause.offset, cause.oldest_ms) for _, user, cause in dirty.take(5)]
    [('u', 2, 10)]
    """

    def __init__(self) -> None:
        # A user's partition is the same on every topic, so that the id alone names the user here.
        self._causes: dict[str, tuple[P, Cause]] = {}

    def __len__(self) -> int:
        return len(self._causes)

    def __contains__(self, user_id: Any) -> bool:
        return user_id in self._causes

    def mark(self, partition: P, user_id: str, cause: Cause) -> None:
        """Owe a list; a user already waiting keeps the place and the oldest event, and takes the newest trigger."""
        waiting = self._causes.get(user_id)
        if waiting is not None and waiting[0] == partition and (oldest := waiting[1].oldest_ms):
            cause = cause._replace(oldest_ms=min(oldest, cause.oldest_ms or oldest))
        self._causes[user_id] = (partition, cause)

    def take(self, count: int) -> list[tuple[P, str, Cause]]:
        """Remove and return up to `count` users, those who wait longest first."""
        users = [user_id for user_id, _ in zip(self._causes, range(count), strict=False)]
        return [(partition, user_id, cause) for user_id in users for partition, cause in [self._causes.pop(user_id)]]

    def drop(self, user_id: str) -> None:
        """Owe a user nothing any more."""
        self._causes.pop(user_id, None)

    def forget(self, partition: P) -> None:
        """Drop the users of a partition that is no longer owned."""
        for user_id in [user_id for user_id, (owner, _) in self._causes.items() if owner == partition]:
            del self._causes[user_id]
