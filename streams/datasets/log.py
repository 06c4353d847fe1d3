"""
A log of events that can be replayed: entries in time order, from a file or from a known data set.

A file is JSON lines in the wire format of events with one more field, `type`: `view`, `click`, `cart`, `purchase`,
`dislike`, `impression`, or the name of the topic. A file of items has one snapshot with its `item_id` a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from streams.errors import ConfigurationError
from streams.settings import EVENT_TYPES
from streams.wire.events import parse_time_ms
from streams.wire.items import Item, decode_item
from streams.wire.limits import Rejected, RejectedError

_TOPICS = {**{name: name for name in EVENT_TYPES}, **{name.removesuffix("s"): name for name in EVENT_TYPES}}


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One event of a log.

    Attributes
    ----------
    topic
        Event topic without namespace, like `clicks`.
    ts_ms
        Event time, ms since the epoch.
    fields
        The event as on the wire, without `ts`.

    """

    topic: str
    ts_ms: int
    fields: dict[str, Any]

    @property
    def key(self) -> bytes:
        """Record key: the user."""
        return str(self.fields["user_id"]).encode()

    def value(self, shift_ms: int = 0) -> bytes:
        """Return the JSON of the record, its time moved by `shift_ms`."""
        return orjson.dumps({**self.fields, "ts": self.ts_ms + shift_ms})


@dataclass(frozen=True, slots=True)
class Log:
    """A named log in time order, and the items it is about (none when the file of items was not given)."""

    name: str
    entries: list[Entry]
    items: list[Item]

    def first(self, limit: int | None) -> Log:
        """Return the log cut to its first `limit` entries."""
        return self if limit is None else Log(self.name, self.entries[:limit], self.items)

    def shift_to(self, now_ms: int) -> int:
        """Return what to add to every time, in ms, so that the last event happens at `now_ms`."""
        return now_ms - self.entries[-1].ts_ms if self.entries else 0


def in_time_order(entries: Iterable[Entry]) -> list[Entry]:
    """Sort by event time; entries of one moment keep the order of the log."""
    return sorted(entries, key=lambda entry: entry.ts_ms)


def read_log(events: Path, items: Path | None = None) -> Log:
    """
    Read a file of events, and of items, into memory.

    An event without `event_id` gets `<file name>-<line>`, so that a second replay is recognised.

    Raises
    ------
    ConfigurationError
        When a file cannot be read or a line is not usable; it names the line.

    """
    return Log(events.stem, in_time_order(read_entries(events)), read_items(items) if items else [])


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the events of a file in its order; see `read_log`."""
    return (_entry(path, number, line) for number, line in _lines(path))


def read_items(path: Path) -> list[Item]:
    """Return the items of a file; see `read_log`."""
    return [_item(path, number, line) for number, line in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"{path}, line {number}: not JSON ({error.msg})") from error
    if not isinstance(fields, dict):
        raise ConfigurationError(f"{path}, line {number}: expected one JSON object")
    return fields


def _entry(path: Path, number: int, line: bytes) -> Entry:
    fields = _object(path, number, line)
    kind = fields.pop("type", None)
    topic = _TOPICS.get(kind) if isinstance(kind, str) else None
    if topic is None:
        raise ConfigurationError(f"{path}, line {number}: type must be one of {', '.join(sorted(_TOPICS))}")
    if not isinstance(fields.get("user_id"), str | int):
        raise ConfigurationError(f"{path}, line {number}: user_id is missing")
    try:
        ts_ms = parse_time_ms(fields.pop("ts", None))
    except RejectedError as error:
        raise ConfigurationError(f"{path}, line {number}: {error}") from error
    return Entry(topic, ts_ms, {"event_id": f"{path.stem}-{number}", **fields})


def _item(path: Path, number: int, line: bytes) -> Item:
    fields = _object(path, number, line)
    item = decode_item(str(fields.get("item_id", "")).encode(), line)
    if isinstance(item, Rejected):
        raise ConfigurationError(f"{path}, line {number}: {item.error}")
    assert isinstance(item, Item)  # only a null value is a tombstone
    return item
