"""Logs as an evaluation takes them: a known data set or a file of events enters, columns and ids leave."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models.interactions import Int32, Int64, Interactions
from streams.datasets.journey import Purchases, products, purchases
from streams.datasets.log import Entry, read_entries, read_items
from streams.datasets.movielens import movielens
from streams.errors import ConfigurationError
from streams.settings import Settings
from streams.wire.events import IMPRESSION, TYPE_CODES
from streams.wire.items import Item

KNOWN = ("movielens-100k", "complete-journey")


@dataclass(frozen=True, slots=True)
class Impressions:
    """
    What users were shown, in time order: item by item, those of one impression together.

    Attributes
    ----------
    users, items
        (n,) int32, by their numbers in the log.
    ts_ms
        (n,) int64, when the item was shown.

    """

    users: Int32
    items: Int32
    ts_ms: Int64


NOTHING_SHOWN = Impressions(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class EvaluationLog:
    """
    A log as columns.

    Attributes
    ----------
    name
        Name in tables and results.
    interactions
        All of it, in time order, but for impressions.
    users, items
        Ids by number; items that only `cards` name are last.
    cards
        What is told of items, of those that anything is told of.
    impressions
        Of users and items that anybody interacted with, or that `cards` name.
    devices
        Names of devices by number.

    """

    name: str
    interactions: Interactions
    users: list[str]
    items: list[str]
    cards: list[Item]
    impressions: Impressions = NOTHING_SHOWN
    devices: tuple[str, ...] = ()

    def first_users(self, count: int | None) -> EvaluationLog:
        """Return the log cut to the users whose first events come first, at most so many."""
        if count is None or count >= len(self.users):
            return self
        kept = self.interactions.at(self.interactions.users < count)
        shown = self.impressions
        some = shown.users < count
        seen = Impressions(shown.users[some], shown.items[some], shown.ts_ms[some])
        return EvaluationLog(self.name, kept, self.users[:count], self.items, self.cards, seen, self.devices)

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
        When a data set cannot be fetched or read.

    """
    if name in KNOWN:
        if items is not None:
            raise ConfigurationError(f"--items goes with a file of events; {name} brings its own items")
        if name == "complete-journey":
            return _journey(name, purchases(settings.cache_dir), products(settings.cache_dir))
        films = movielens(settings.cache_dir)
        # Every rating tells that the film was met, which is what is foretold; the demo's dislikes would hide it.
        met = (replace(one, topic="views") if one.topic == "dislikes" else one for one in films.entries)
        return columns(name, met, films.items)
    path = Path(name)
    if not path.is_file():
        raise ConfigurationError(f"there is no log {name!r}: name a file of JSON lines, or one of {', '.join(KNOWN)}")
    return columns(path.stem, read_entries(path), read_items(items) if items else [])


def columns(name: str, entries: Iterable[Entry], cards: list[Item]) -> EvaluationLog:
    """
    Return events as columns, some 35 bytes each; they may come in any order, those of one time keep it.

    Raises
    ------
    ConfigurationError
        When an event has no item.

    """
    users, items, sessions, devices = (_Numbers() for _ in range(4))
    kinds, ts_ms = array("B"), array("q")
    shown: list[tuple[int, str, str]] = []
    for entry in entries:
        kind = TYPE_CODES[entry.topic]
        if kind == IMPRESSION:
            shown += ((entry.ts_ms, str(entry.fields["user_id"]), item) for item in _items_of(entry))
            continue
        users.add(str(entry.fields["user_id"]))
        items.add(_item_of(entry))
        sessions.add(_session_of(entry))
        devices.add(_device_of(entry))
        kinds.append(kind)
        ts_ms.append(entry.ts_ms)
    log = Interactions(
        users.column(), items.column(), np.array(kinds, np.uint8), np.array(ts_ms, np.int64), sessions.column(),
        devices.column(),
    )  # fmt: skip
    made = _with_cards(name, _in_time_order(log), users.ids(), items.ids(), cards, shown)
    return replace(made, devices=tuple(devices.ids()))


def _journey(name: str, bought: Purchases, cards: list[Item]) -> EvaluationLog:
    users, user_ids = _first_met(bought.households)
    items, item_ids = _first_met(bought.products)
    sessions, _ = _first_met(bought.baskets)
    kinds, devices = np.full(len(users), TYPE_CODES["purchases"], np.uint8), np.full(len(users), -1, np.int32)
    log = Interactions(users, items, kinds, bought.ts_ms, sessions, devices)
    return _with_cards(name, _in_time_order(log), user_ids, item_ids, cards)


def _in_time_order(log: Interactions) -> Interactions:
    return log.at(np.argsort(log.ts_ms, kind="stable"))


def _with_cards(
    name: str, log: Interactions, users: list[str], items: list[str], cards: list[Item],
    shown: Sequence[tuple[int, str, str]] = (),
) -> EvaluationLog:  # fmt: skip
    """Return the log with what is told of items, and what was shown (time, user, item) in any order."""
    known = set(items)
    items = items + [card.item_id for card in cards if card.item_id not in known]
    return EvaluationLog(name, log, users, items, cards, _impressions(shown, users, items))


def _impressions(shown: Sequence[tuple[int, str, str]], users: list[str], items: list[str]) -> Impressions:
    user_of = {user_id: number for number, user_id in enumerate(users)}
    item_of = {item_id: number for number, item_id in enumerate(items)}
    rows = sorted((one for one in shown if one[1] in user_of and one[2] in item_of), key=lambda one: one[0])
    return Impressions(
        np.array([user_of[user_id] for _, user_id, _ in rows], np.int32),
        np.array([item_of[item_id] for _, _, item_id in rows], np.int32),
        np.array([ts_ms for ts_ms, _, _ in rows], np.int64),
    )


class _Numbers:
    """Numbers for ids in the order in which they are met first; -1 for None."""

    def __init__(self) -> None:
        self._numbers = array("i")
        self._number_of: dict[str, int] = {}

    def add(self, one: str | None) -> None:
        self._numbers.append(-1 if one is None else self._number_of.setdefault(one, len(self._number_of)))

    def column(self) -> Int32:
        return np.array(self._numbers, np.int32)

    def ids(self) -> list[str]:
        return list(self._number_of)


def _first_met(ids: Int64) -> tuple[Int32, list[str]]:
    """Return numbers (n,) int32 of ids in the order in which they are met first, and the ids by number."""
    known, first, place = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(known), np.int32)
    number[order] = np.arange(len(known))
    return number[place], [str(one) for one in known[order].tolist()]


def _item_of(entry: Entry) -> str:
    item_id = entry.fields.get("item_id")
    if not isinstance(item_id, str | int):
        raise ConfigurationError(f"the event {entry.fields.get('event_id')!r} has no item_id")
    return str(item_id)


def _items_of(entry: Entry) -> list[str]:
    items = entry.fields.get("items")
    if not isinstance(items, list) or not all(isinstance(item, str | int) for item in items):
        raise ConfigurationError(f"the impression {entry.fields.get('event_id')!r} has no items")
    return [str(item) for item in items]


def _session_of(entry: Entry) -> str | None:
    session_id = entry.fields.get("session_id")
    return str(session_id) if isinstance(session_id, str | int) and session_id != "" else None


def _device_of(entry: Entry) -> str | None:
    device = entry.fields.get("device")
    return device if isinstance(device, str) and device else None
