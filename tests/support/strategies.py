"""
Hypothesis strategies: logs of a few users, and the ways in which the same log can arrive.

A log is drawn as a seed and a few sizes, because several hundred single events are too much to draw one by one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from streams.settings import EVENT_TYPES
from streams.wire.events import TYPE_CODES, Event, event_hash
from streams.wire.signals import ItemEvent, ItemEvents

START_MS = 1_700_000_000_000
LATENESS_MS = 100_000


@dataclass(frozen=True)
class Log:
    """Events in order of time, and the way to shuffle them."""

    events: tuple[Event, ...]
    seed: int

    def arrival(self, seed: int, copies: int = 3) -> list[Event]:
        """
        Return the events disordered within `LATENESS_MS`, each 1 to `copies` times.

        An event first arrives before any that is newer by more than the lateness: each is delayed by at most that.
        Copies after the first come at any later time.
        """
        rng = random.Random(seed)
        stamped = []
        for event in self.events:
            first = event.ts_ms + rng.uniform(0, LATENESS_MS)
            stamped.append((first, rng.random(), event))
            stamped.extend(
                (first + rng.choice((0, LATENESS_MS, 100 * LATENESS_MS)) * rng.random(), rng.random(), event)
                for _ in range(rng.randrange(copies))
            )
        return [event for _, _, event in sorted(stamped, key=lambda row: row[:2])]


def event_of(type_name: str, user_id: str, item_id: str, ts_ms: int, event_id: str, **fields: Any) -> Event:
    """Return an event as the decoder makes it."""
    code = TYPE_CODES[type_name]
    return Event(code, user_id, item_id, ts_ms, event_hash(code, event_id), event_id, **fields)


def wire(event: Event) -> tuple[str, dict[str, Any]]:
    """Return (type name, the decoded JSON) of an event, as the oracle reads it."""
    name = EVENT_TYPES[event.type_code]
    fields: dict[str, Any] = {"event_id": event.event_id, "user_id": event.user_id, "ts": event.ts_ms}
    if name == "impressions":
        return name, {**fields, "items": list(event.items)}
    return name, {**fields, "item_id": event.item_id}


def batches(events: list[Event], seed: int, most: int = 60) -> list[list[Event]]:
    """Split a run of events at random places."""
    rng = random.Random(seed)
    parts = []
    at = 0
    while at < len(events):
        size = rng.randint(1, most)
        parts.append(events[at : at + size])
        at += size
    return parts


def _log(seed: int, count: int, users: int, items: int, gap_ms: int) -> Log:
    rng = random.Random(seed)
    events = []
    now = [START_MS] * users
    for number in range(count):
        user = rng.randrange(users)
        # A gap of 0 makes equal times, where the hash decides the order; now and then a user is away for weeks.
        now[user] += rng.choice((0, gap_ms, gap_ms, 2 * gap_ms)) + (rng.random() < 0.01) * 10**9
        name = rng.choices(EVENT_TYPES, (30, 30, 10, 8, 8, 4))[0]
        device = rng.choice(("", "phone", "tablet", "watch"))
        item_id = f"i{min(rng.randrange(items), rng.randrange(items))}"
        if name == "impressions":
            shown = tuple(f"i{item}" for item in range(rng.randint(1, min(items, 20))))
            events.append(event_of(name, f"u{user}", "", now[user], f"e{number}", items=shown))
        else:
            events.append(event_of(name, f"u{user}", item_id, now[user], f"e{number}", device=device))
    return Log(tuple(events), seed)


def logs(max_events: int = 500) -> st.SearchStrategy[Log]:
    """
    Logs that stay within the bound of `streams.interests.fold`.

    Gaps of 0.6 s on average put some 170 events of a user into `LATENESS_MS`, more than 64 and less than 256; 20 items
    are shown at most.
    """
    return st.builds(
        _log,
        seed=st.integers(0, 2**32),
        count=st.sampled_from((1, 3, 20, max_events // 3, max_events // 2, max_events)),
        users=st.sampled_from((1, 1, 3)),
        items=st.sampled_from((1, 5, 40, 400)),
        gap_ms=st.sampled_from((600, 10_000, 3_600_000)),
    )


seeds = st.integers(0, 2**32)


def item_event_rows(ids: st.SearchStrategy[str], most: int = 30) -> st.SearchStrategy[list[ItemEvent]]:
    """Up to `most` rows of `item-events`, of items drawn from `ids`."""
    row = st.builds(
        ItemEvent,
        st.integers(0, 2**64 - 1),
        ids,
        st.integers(0, 5),
        st.integers(0, 10**13),
        st.lists(ids, max_size=3).map(tuple),
        st.sampled_from((0, 0, 0, 1, 2, 255)),
    )
    return st.lists(row, max_size=most)


def as_rows(events: ItemEvents) -> list[ItemEvent]:
    """Return the columns of `item-events` as rows, in plain loops."""
    columns = (events.user, events.item, events.type_code, events.ts_ms, events.previous, events.device)
    return [
        ItemEvent(user, events.ids[item], code, ts_ms, tuple(events.ids[at] for at in previous if at >= 0), device)
        for user, item, code, ts_ms, previous, device in zip(*(column.tolist() for column in columns), strict=True)
    ]
