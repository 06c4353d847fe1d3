"""One owned partition of the signals worker: what it knows of its items, its changelog, and what is published."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import structlog
from confluent_kafka import Message

from models.heavy_hitters import Counted
from models.segments import Split
from streams import metrics
from streams.errors import RecordFormatError
from streams.kafka.alignment import Slice
from streams.kafka.outgoing import OutRecord
from streams.kafka.owner import Owner
from streams.kafka.work import CONTROL_KEY
from streams.settings import Settings
from streams.signals.codec import (
    FOLLOWERS_PREFIX,
    NEIGHBOURS_PREFIX,
    FollowersState,
    decode_batches,
    decode_followers,
    decode_neighbours,
    decode_signal_state,
    encode_followers,
    encode_neighbours,
    encode_signal_state,
)
from streams.signals.fitting import Fit
from streams.signals.followers import Followers, heaviest
from streams.signals.items import ItemTable
from streams.signals.journal import BATCHES_PREFIX, Journal
from streams.signals.popularity import ItemDemand, Popularity, demand_weights
from streams.topics import full_name
from streams.wire.dead_letters import DeadLetter
from streams.wire.limits import Rejected
from streams.wire.neighbours import ItemNeighbours, encode_item_neighbours
from streams.wire.signals import ItemEvents, ItemSignals, decode_item_events, encode_item_signals

Ints = npt.NDArray[np.int64]

_LOG = structlog.get_logger(__name__)


class _Item(NamedTuple):
    """
    A copy of what is to be written of an item.

    Attributes
    ----------
    demand
        None where the item's record has it already.
    followers
        To be published; `learned` when they are others than were written.
    fitted
        The record of its fitted neighbours, None without any; `refitted` when they are others than were written.

    """

    item_id: str
    demand: ItemDemand | None
    followers: Counted
    learned: bool
    fitted: bytes | None
    refitted: bool


class SignalsPartition:
    """
    The `Work` of one partition of the signals worker.

    Attributes
    ----------
    fit
        The fit that was published last by this owner; None before the first.

    """

    def __init__(
        self, settings: Settings, partition: int, partitions: int, clock: Callable[[], float] = time.time
    ) -> None:
        self.partition = partition
        self.changelog = full_name(settings, "signal-state")
        self.topic_ids: dict[str, str] = {}
        self.fit: Fit | None = None
        self._items = ItemTable(partition, partitions)
        split = Split(settings.day_parts, settings.user_devices)
        self._popularity = Popularity(settings.half_life_popularity_s, split=split)
        self._followers = Followers(settings.half_life_followers_s)
        #: Fitted neighbours by row, as their records: objects would take ten times the room.
        self._neighbours: dict[int, bytes] = {}
        self._signals_topic = full_name(settings, "item-signals")
        self._neighbours_topic = full_name(settings, "item-neighbours")
        self._dead_letters_topic = full_name(settings, "dead-letters")
        self._weights = np.array(demand_weights(settings))
        self._clock = clock
        self._epoch = 0
        self._journal = Journal(self.changelog, partition)
        self._written_at_s = clock()
        #: Rows whose demand has changed since it was published, and since it was written.
        self._untold: set[int] = set()
        self._counted: set[int] = set()
        #: Rows whose followers have changed since they were written, and whose fit may have.
        self._learned: set[int] = set()
        self._refitted: set[int] = set()
        #: Place in `fit` of each row that it holds.
        self._places: dict[int, int] = {}
        self._out: list[OutRecord] = []

    # Taking

    def restore(self, messages: Sequence[Message]) -> None:
        """Take in changelog records; a damaged one is told and costs that part of the item's history."""
        for message in messages:
            key, value = message.key(), message.value()
            if key == CONTROL_KEY:
                control = orjson.loads(value)
                self._epoch, self.topic_ids = int(control["epoch"]), control.get("topics", {})
                continue
            try:
                self._restore(key, value)
            except (RecordFormatError, UnicodeDecodeError, KeyError) as error:
                metrics.STATE_DAMAGED.inc()
                _LOG.error("state_record_damaged", partition=self.partition, offset=message.offset(), error=str(error))
        metrics.RESTORED.inc(len(messages))

    def _restore(self, key: bytes, value: bytes | None) -> None:
        if key.startswith(BATCHES_PREFIX):
            if value is not None:
                self._take_in([decode_item_events(batch) for batch in decode_batches(value)])
                self._journal.restore(key)
        elif key.startswith(FOLLOWERS_PREFIX):
            row = self._items.row(key.removeprefix(FOLLOWERS_PREFIX).decode())
            if value is not None:
                state = decode_followers(value)
                targets = self._items.numbers(state.ids).astype(np.int32)
                self._followers.restore(row, Counted(state.epoch, state.total, targets, state.weights, state.errors))
            self._settle(row, self._learned)
        elif key.startswith(NEIGHBOURS_PREFIX):
            row = self._items.row(key.removeprefix(NEIGHBOURS_PREFIX).decode())
            if value is None:
                self._neighbours.pop(row, None)
            else:
                decode_neighbours(value)
                self._neighbours[row] = value
        else:
            row = self._items.row(key.decode())
            if value is not None:
                self._popularity.restore(row, decode_signal_state(value))
            self._settle(row, self._counted)

    def _settle(self, row: int, changed: set[int]) -> None:
        """Strike a row: its record, which was just restored, stands for all before it."""
        changed.discard(row)
        if row not in self._counted and row not in self._learned:
            self._journal.settle(row)

    def opened(self, owner: Owner) -> Iterable[OutRecord]:
        """Begin a new epoch."""
        del owner
        self._epoch += 1
        control = {"epoch": self._epoch, "topics": self.topic_ids}
        return [OutRecord(self.changelog, CONTROL_KEY, orjson.dumps(control), self.partition)]

    def caught_up(self) -> None:
        """Nothing waits for this role's catching up."""

    # Folding

    def fold(self, pieces: Sequence[Slice]) -> None:
        """Take in batches; one that cannot be read becomes a dead letter."""
        batches: list[ItemEvents] = []
        for piece in pieces:
            for record in piece.records:
                value = record.value or b""
                try:
                    batches.append(decode_item_events(value))
                except RecordFormatError as error:
                    self._refuse(piece.run.topic, record.offset, record.key, record.value, str(error))
                else:
                    self._journal.add(value)
        counted = self._take_in(batches)
        metrics.SIGNAL_EVENTS.inc(len(counted))
        self._untold.update(counted.tolist())

    def _take_in(self, batches: Sequence[ItemEvents]) -> Ints:
        """
        Count and learn; return the row of each event that was counted.

        1. Count the events of this partition's items.
        2. Learn what follows this partition's items, and what they follow.
        """
        if not batches:
            return np.empty(0, np.int64)
        numbers = [self._items.numbers(batch.ids) for batch in batches]
        item = np.concatenate([ids[batch.item] for ids, batch in zip(numbers, batches, strict=True)])
        # One more entry, so that -1 (no item) stays -1.
        previous = np.concatenate(
            [np.append(ids, -1)[batch.previous] for ids, batch in zip(numbers, batches, strict=True)]
        )
        ts_ms = np.concatenate([batch.ts_ms for batch in batches])
        weights = self._weights[np.concatenate([batch.type_code for batch in batches])]
        devices = np.concatenate([batch.device for batch in batches])
        # Step 1.
        rows = self._items.rows(item)
        own = rows >= 0
        self._popularity.add(rows[own], ts_ms[own], weights[own], devices[own])
        counted = rows[own]
        self._counted.update(counted.tolist())
        # Step 2.
        leads = (weights > 0) & (previous >= 0).any(axis=1)
        from_rows = np.where(previous >= 0, self._items.rows(previous), -1)
        learned = self._followers.learn(item[leads], rows[leads], previous[leads], from_rows[leads], ts_ms[leads])
        self._learned.update(learned.tolist())
        self._journal.wait(np.union1d(counted, learned).tolist())
        return counted

    def _refuse(self, topic: str, offset: int, key: bytes | None, value: bytes | None, error: str) -> None:
        metrics.DEAD_LETTERS.labels("item-events", "wrong_type").inc()
        letter = DeadLetter.of(
            Rejected("wrong_type", error), topic, self.partition, offset, round(self._clock() * 1000), key, value
        )
        self._out.append(OutRecord(self._dead_letters_topic, topic.encode(), value, headers=letter.headers()))

    # Committing

    @property
    def waits(self) -> bool:
        """Whether there are items to be written, though nothing came."""
        return bool(len(self._journal))

    def gather(self) -> Iterable[OutRecord]:
        """
        Return what is to be written and published; copied now, made when iterated.

        All of it is in one transaction: what is published is never behind what was counted.

        1. The batches that came, into the changelog.
        2. The demand for the items they changed, for all to read.
        3. The records of the items that waited longest, and what goes with them, for all to read.
        """
        refused, self._out = self._out, []
        # Step 1.
        batches = self._journal.batches()
        # Step 2.
        untold, self._untold = self._untold, set()
        demands = [(self._items.item_id(row), self._popularity.state(row)) for row in untold]
        metrics.SIGNALS_PUBLISHED.inc(len(demands))
        # Step 3.
        now_s = self._clock()
        elapsed_s, self._written_at_s = now_s - self._written_at_s, now_s
        items = [self._copy(row) for row in self._journal.due(elapsed_s)]
        metrics.ITEMS_WAITING.labels(str(self.partition)).set(len(self._journal))
        return itertools.chain(
            refused, batches, itertools.starmap(self._signals_record, demands), *map(self._records, items)
        )

    def _copy(self, row: int) -> _Item:
        before = self._neighbours.get(row)
        fitted = before
        if row in self._refitted:
            fitted = self._fitted(row)
            if fitted is None:
                self._neighbours.pop(row, None)
            else:
                self._neighbours[row] = fitted
        item = _Item(
            self._items.item_id(row),
            self._popularity.state(row) if row in self._counted else None,
            self._followers.state(row),
            row in self._learned,
            fitted,
            fitted != before,
        )
        for changed in (self._counted, self._learned, self._refitted):
            changed.discard(row)
        return item

    def _fitted(self, row: int) -> bytes | None:
        place = self._places.get(row, -1)
        return None if self.fit is None or place < 0 else encode_neighbours(self.fit.neighbours(place))

    def _records(self, item: _Item) -> Iterator[OutRecord]:
        key = item.item_id.encode()
        if item.demand is not None:
            yield OutRecord(self.changelog, key, encode_signal_state(item.demand), self.partition)
        if item.learned:
            epoch, total, targets, weights, errors = item.followers
            ids = [self._items.ids[target] for target in targets.tolist()]
            value = encode_followers(FollowersState(epoch, total, ids, weights, errors))
            yield OutRecord(self.changelog, FOLLOWERS_PREFIX + key, value, self.partition)
        if item.refitted:
            yield OutRecord(self.changelog, NEIGHBOURS_PREFIX + key, item.fitted, self.partition)
        if item.learned or item.refitted:
            metrics.NEIGHBOURS_PUBLISHED.inc()
            told = ItemNeighbours(
                item.item_id,
                heaviest(item.followers, self._items.ids),
                decode_neighbours(item.fitted) if item.fitted is not None else (),
            )
            yield OutRecord(self._neighbours_topic, key, encode_item_neighbours(told))

    def _signals_record(self, item_id: str, demand: ItemDemand) -> OutRecord:
        """Tell the demand for an item, as of its newest event."""
        newest = demand.newest_ms
        signals = ItemSignals(
            item_id,
            self._popularity.value(demand, newest),
            newest,
            self._popularity.trend(demand, newest),
            demand.events,
            self._popularity.in_segments(demand, newest),
            demand.devices,
        )
        return OutRecord(self._signals_topic, item_id.encode(), encode_item_signals(signals))

    # Fitted neighbours

    def take_fit(self, fit: Fit) -> None:
        """
        Take the neighbours of a fit; its items, and those of the one before, are written and published in their turn.

        Items that the fit no longer holds lose their neighbours.
        """
        self.fit = fit
        places = np.flatnonzero(fit.partitions == self.partition).tolist()
        self._places = {self._items.row(fit.ids[place]): place for place in places}
        changed = self._places.keys() | self._neighbours.keys()
        self._refitted.update(changed)
        self._journal.wait(changed)

    def suspend(self) -> None:
        """What was counted stays as it is."""

    def close(self) -> None:
        """Let go: the items are the next owner's."""
        metrics.ITEMS_WAITING.labels(str(self.partition)).set(0)
