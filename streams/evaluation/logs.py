"""Logs as an evaluation takes them: a known data set or a file of events enters, columns and ids leave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.interactions import Int32, Interactions
from streams.datasets.log import Entry, Log, read_log
from streams.datasets.movielens import movielens
from streams.errors import ConfigurationError
from streams.settings import Settings
from streams.wire.events import IMPRESSION, TYPE_CODES
from streams.wire.items import Item

KNOWN = ("movielens-100k",)


@dataclass(frozen=True, slots=True)
class EvaluationLog:
    """
    A log as columns.

    Attributes
    ----------
    name
        Name in tables and results.
    interactions
        All of it, in time order; impressions, which are no interactions, are left out.
    users, items
        Ids by number; items that only `cards` name are last.
    cards
        What is told of items, of those that anything is told of.

    """

    name: str
    interactions: Interactions
    users: list[str]
    items: list[str]
    cards: list[Item]

    def first_users(self, count: int | None) -> EvaluationLog:
        """Return the log cut to the users whose first events come first, at most so many."""
        if count is None or count >= len(self.users):
            return self
        kept = self.interactions.at(self.interactions.users < count)
        return EvaluationLog(self.name, kept, self.users[:count], self.items, self.cards)

    def categories(self) -> Int32:
        """Return the category (items,) int32 of each item, a dense number; -1 where it has none."""
        numbers: dict[str, int] = {}
        of_item = {card.item_id: card.category for card in self.cards if card.category}
        found = [numbers.setdefault(of_item[item], len(numbers)) if item in of_item else -1 for item in self.items]
        return np.array(found, np.int32)


def find_log(settings: Settings, name: str, items: Path | None = None) -> EvaluationLog:
    """
    Return a known data set, or a file of events in the wire format with a `type` each, as JSON lines.

    Raises
    ------
    ConfigurationError
        When there is no such log, or a file cannot be used; it names the line.
    DependencyError
        When a data set cannot be fetched.

    """
    if name in KNOWN:
        if items is not None:
            raise ConfigurationError(f"--items goes with a file of events; {name} brings its own items")
        return columns(name, movielens(settings.cache_dir))
    path = Path(name)
    if not path.is_file():
        raise ConfigurationError(f"there is no log {name!r}: name a file of JSON lines, or one of {', '.join(KNOWN)}")
    return columns(path.stem, read_log(path, items))


def columns(name: str, log: Log) -> EvaluationLog:
    """
    Return a log in time order as columns.

    Raises
    ------
    ConfigurationError
        When an event has no item.

    """
    entries = [entry for entry in log.entries if TYPE_CODES[entry.topic] != IMPRESSION]
    users, user_ids = _numbered(str(entry.fields["user_id"]) for entry in entries)
    items, item_ids = _numbered(_item_of(entry) for entry in entries)
    sessions, _ = _numbered(_session_of(entry) for entry in entries)
    kinds = np.array([TYPE_CODES[entry.topic] for entry in entries], np.uint8)
    ts_ms = np.array([entry.ts_ms for entry in entries], np.int64)
    known = set(item_ids)
    item_ids += [card.item_id for card in log.items if card.item_id not in known]
    return EvaluationLog(name, Interactions(users, items, kinds, ts_ms, sessions), user_ids, item_ids, log.items)


def _item_of(entry: Entry) -> str:
    item_id = entry.fields.get("item_id")
    if not isinstance(item_id, str | int):
        raise ConfigurationError(f"the event {entry.fields.get('event_id')!r} has no item_id")
    return str(item_id)


def _session_of(entry: Entry) -> str | None:
    session_id = entry.fields.get("session_id")
    return str(session_id) if isinstance(session_id, str | int) and session_id != "" else None


def _numbered(ids: Iterable[str | None]) -> tuple[Int32, list[str]]:
    """Return numbers (n,) int32 in the order in which ids are met first, -1 for None, and the ids by number."""
    number_of: dict[str, int] = {}
    found = [-1 if one is None else number_of.setdefault(one, len(number_of)) for one in ids]
    return np.array(found, np.int32), list(number_of)
