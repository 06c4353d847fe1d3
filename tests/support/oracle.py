"""
What the final state of every user must be, by plain loops over the log: the judge of the fast code.

Shares nothing with `streams.interests`; reads events as producers wrote them. Knows no lateness: it is right for logs
whose disorder stays within the bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

TYPES = ("views", "clicks", "carts", "purchases", "dislikes", "impressions")

#: (ts_ms, 64-bit hash, item id, type name)
Entry = tuple[int, int, str, str]


def time_ms(ts: int | str) -> int:
    """Return ms since the epoch as the wire format defines it."""
    return ts if isinstance(ts, int) else round(datetime.fromisoformat(ts).timestamp() * 1000)


@lru_cache(maxsize=65_536)
def hash_of(type_name: str, event_id: str) -> int:
    """Return the 64 bits that order events of one time: FNV-1a begun with the type, and murmur3's finisher."""
    mixed = 0xCBF29CE484222325 ^ TYPES.index(type_name)
    for byte in event_id.encode():
        mixed = (mixed ^ byte) * 0x100000001B3 % 2**64
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        mixed = (mixed ^ (mixed >> 33)) * factor % 2**64
    return mixed ^ (mixed >> 33)


class Oracle:
    """
    Everything each user did, once.

    >>> oracle = Oracle()
    >>> event = {"event_id": "e", "user_id": "u", "item_id": 7, "ts": 1_700_000_000_000}
    >>> oracle.add("clicks", event)
    >>> oracle.add("clicks", event)
    >>> oracle.events_applied("u"), [entry[2] for entry in oracle.recent("u")]
    ({'clicks': 1}, ['7'])
    """

    def __init__(self) -> None:
        self._users: dict[str, dict[tuple[str, str], tuple[int, str]]] = {}
        self._excluded: dict[str, dict[str, set[str]]] = {}

    def add(self, type_name: str, event: Mapping[str, Any]) -> None:
        """Take one valid event; of several copies of an event id the newest stands."""
        user_id = str(event["user_id"])
        event_id = str(event["event_id"])
        item_id = str(event.get("item_id", ""))
        events = self._users.setdefault(user_id, {})
        copy = (time_ms(event["ts"]), item_id)
        name = (type_name, event_id)
        if name not in events or copy > events[name]:
            events[name] = copy
        if type_name in {"dislikes", "purchases"}:
            self._excluded.setdefault(user_id, {}).setdefault(type_name, set()).add(item_id)

    def forget(self, user_id: str) -> None:
        """Drop everything that a user did."""
        self._users.pop(user_id, None)
        self._excluded.pop(user_id, None)

    def users(self) -> list[str]:
        """Return everybody who did something, sorted."""
        return sorted(self._users)

    def events_applied(self, user_id: str) -> dict[str, int]:
        """Return distinct events by type, types without any left out, in the order of types."""
        counts = Counter(type_name for type_name, _ in self._users.get(user_id, {}))
        return {type_name: counts[type_name] for type_name in TYPES if counts[type_name]}

    def disliked(self, user_id: str) -> set[str]:
        """Return the items that the user ever disliked."""
        return self._excluded.get(user_id, {}).get("dislikes", set())

    def purchased(self, user_id: str) -> set[str]:
        """Return the items that the user ever bought."""
        return self._excluded.get(user_id, {}).get("purchases", set())

    def interactions(self, user_id: str) -> list[Entry]:
        """Return all interactions in order of (time, hash)."""
        return sorted(
            (ts, hash_of(type_name, event_id), item_id, type_name)
            for (type_name, event_id), (ts, item_id) in self._users.get(user_id, {}).items()
            if type_name != "impressions"
        )

    def recent(self, user_id: str, lateness_ms: int = 600_000, at_least: int = 64, at_most: int = 256) -> list[Entry]:
        """Return what must stand in `recent`: the newest 64, and all within lateness of the newest up to 256."""
        entries = self.interactions(user_id)
        if not entries:
            return []
        newest = entries[-1][0]
        kept = []
        for age, entry in enumerate(reversed(entries)):
            if age < at_least or (age < at_most and entry[0] >= newest - lateness_ms):
                kept.append(entry)
        return kept[::-1]
