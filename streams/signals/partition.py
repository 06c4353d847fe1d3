"""One owned partition of the signals worker: what it knows of its items, its changelog, and what is published."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import orjson
import structlog
from confluent_kafka import Message

from models.heavy_hitters import Counted
from streams import metrics
from streams.errors import RecordFormatError
from streams.kafka.alignment import Slice
from streams.kafka.owner import CONTROL_KEY, Owner
from streams.kafka.transactions import OutRecord
from streams.settings import Settings
from streams.signals.codec import (
    FOLLOWERS_PREFIX,
    NEIGHBOURS_PREFIX,
    FollowersState,
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
from streams.signals.popularity import ItemDemand, Popularity, demand_weights
from streams.topics import full_name
from streams.wire.dead_letters import DeadLetter
from streams.wire.limits import Rejected
from streams.wire.signals import ItemEvents, ItemSignals, decode_item_events, encode_item_signals

_LOG = structlog.get_logger(__name__)

#: Items of a fit that are published in one go: some 10 ms on the loop.
_FIT_CHUNK = 200


class _Item(NamedTuple):
    """A copy of what is kept of an item; its fitted neighbours as their record."""

    item_id: str
    demand: ItemDemand
    followers: Counted
    neighbours: bytes | None


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
        self.fit: Fit | None = None
        self._items = ItemTable(partition, partitions)
        self._popularity = Popularity(settings.half_life_popularity_s)
        self._followers = Followers(settings.half_life_followers_s)
        #: Fitted neighbours by row, as their records: objects would take ten times the room.
        self._neighbours: dict[int, bytes] = {}
        self._signals_topic = full_name(settings, "item-signals")
        self._dead_letters_topic = full_name(settings, "dead-letters")
        self._weights = np.array(demand_weights(settings))
        self._clock = clock
        self._epoch = 0
        self._counted: set[int] = set()
        self._learned: set[int] = set()
        self._out: list[OutRecord] = []

    # Taking

    def restore(self, messages: Sequence[Message]) -> None:
        """Take in changelog records; a damaged one is told and costs that part of the item's history."""
        for message in messages:
            key, value = message.key(), message.value()
            if key == CONTROL_KEY:
                self._epoch = int(orjson.loads(value)["epoch"])
                continue
            try:
                self._restore(key, value)
            except (RecordFormatError, UnicodeDecodeError, KeyError) as error:
                metrics.STATE_DAMAGED.inc()
                _LOG.error("state_record_damaged", partition=self.partition, offset=message.offset(), error=str(error))
        metrics.RESTORED.inc(len(messages))

    def _restore(self, key: bytes, value: bytes | None) -> None:
        if key.startswith(FOLLOWERS_PREFIX):
            row = self._items.row(key.removeprefix(FOLLOWERS_PREFIX).decode())
            if value is not None:
                state = decode_followers(value)
                targets = self._items.numbers(state.ids).astype(np.int32)
                self._followers.restore(row, Counted(state.epoch, state.total, targets, state.weights, state.errors))
        elif key.startswith(NEIGHBOURS_PREFIX):
            row = self._items.row(key.removeprefix(NEIGHBOURS_PREFIX).decode())
            if value is None:
                self._neighbours.pop(row, None)
            else:
                decode_neighbours(value)
                self._neighbours[row] = value
        elif value is not None:
            self._popularity.restore(self._items.row(key.decode()), decode_signal_state(value))

    def opened(self, owner: Owner) -> Iterable[OutRecord]:
        """Begin a new epoch."""
        del owner
        self._epoch += 1
        return [OutRecord(self.changelog, CONTROL_KEY, orjson.dumps({"epoch": self._epoch}), self.partition)]

    def caught_up(self) -> None:
        """Nothing waits for this role's catching up."""

    # Folding

    def fold(self, pieces: Sequence[Slice]) -> None:
        """
        Take in batches.

        1. Decode; a batch that cannot be read becomes a dead letter.
        2. Count the events of this partition's items.
        3. Learn what follows this partition's items, and what they follow.
        """
        # Step 1.
        batches: list[ItemEvents] = []
        for piece in pieces:
            for record in piece.records:
                try:
                    batches.append(decode_item_events(record.value or b""))
                except RecordFormatError as error:
                    self._refuse(piece.run.topic, record.offset, record.key, record.value, str(error))
        if not batches:
            return
        numbers = [self._items.numbers(batch.ids) for batch in batches]
        item = np.concatenate([ids[batch.item] for ids, batch in zip(numbers, batches, strict=True)])
        # One more entry, so that -1 (no item) stays -1.
        previous = np.concatenate(
            [np.append(ids, -1)[batch.previous] for ids, batch in zip(numbers, batches, strict=True)]
        )
        ts_ms = np.concatenate([batch.ts_ms for batch in batches])
        weights = self._weights[np.concatenate([batch.type_code for batch in batches])]
        # Step 2.
        rows = self._items.rows(item)
        own = rows >= 0
        self._popularity.add(rows[own], ts_ms[own], weights[own])
        self._counted.update(np.unique(rows[own]).tolist())
        metrics.SIGNAL_EVENTS.inc(int(own.sum()))
        # Step 3.
        leads = (weights > 0) & (previous >= 0).any(axis=1)
        from_rows = np.where(previous >= 0, self._items.rows(previous), -1)
        learned = self._followers.learn(item[leads], rows[leads], previous[leads], from_rows[leads], ts_ms[leads])
        self._learned.update(learned.tolist())

    def _refuse(self, topic: str, offset: int, key: bytes | None, value: bytes | None, error: str) -> None:
        metrics.DEAD_LETTERS.labels("item-events", "wrong_type").inc()
        letter = DeadLetter.of(
            Rejected("wrong_type", error), topic, self.partition, offset, round(self._clock() * 1000), key, value
        )
        self._out.append(OutRecord(self._dead_letters_topic, topic.encode(), value, headers=letter.headers()))

    # Committing

    def gather(self) -> Iterable[OutRecord]:
        """Return the changed items' state and their signals; copied now, made when iterated."""
        records, self._out = self._out, []
        counted, self._counted = self._counted, set()
        learned, self._learned = self._learned, set()
        changed = [(self._copy(row), row in counted, row in learned) for row in counted | learned]
        metrics.SIGNALS_PUBLISHED.inc(len(changed))
        # In one transaction: what is published is never behind what was counted.
        return itertools.chain(
            records, *(self._records(copied, counted=was, learned=had) for copied, was, had in changed)
        )

    def _copy(self, row: int) -> _Item:
        return _Item(
            self._items.item_id(row), self._popularity.state(row), self._followers.state(row), self._neighbours.get(row)
        )

    def _records(self, item: _Item, *, counted: bool, learned: bool) -> Iterator[OutRecord]:
        key = item.item_id.encode()
        if counted:
            yield OutRecord(self.changelog, key, encode_signal_state(item.demand), self.partition)
        if learned:
            epoch, total, targets, weights, errors = item.followers
            ids = [self._items.ids[target] for target in targets.tolist()]
            value = encode_followers(FollowersState(epoch, total, ids, weights, errors))
            yield OutRecord(self.changelog, FOLLOWERS_PREFIX + key, value, self.partition)
        yield self._signals_record(item)

    def _signals_record(self, item: _Item) -> OutRecord:
        """Tell what is known of an item, as of its newest event."""
        demand, newest = item.demand, item.demand.newest_ms
        signals = ItemSignals(
            item.item_id,
            self._popularity.value(demand, newest),
            newest,
            self._popularity.trend(demand, newest),
            demand.events,
            heaviest(item.followers, self._items.ids),
            decode_neighbours(item.neighbours) if item.neighbours is not None else (),
        )
        return OutRecord(self._signals_topic, item.item_id.encode(), encode_item_signals(signals))

    # Fitted neighbours

    def fitted(self, fit: Fit) -> Iterator[list[OutRecord]]:
        """
        Take the neighbours of a fit; yield what is to be sent, in pieces between which others may run.

        Items that the fit no longer holds lose their neighbours.
        """
        self.fit = fit
        places = np.flatnonzero(fit.partitions == self.partition).tolist()
        kept = {fit.ids[place] for place in places}
        gone = [row for row in self._neighbours if self._items.item_id(row) not in kept]
        for begin in range(0, len(places), _FIT_CHUNK):
            records: list[OutRecord] = []
            for place in places[begin : begin + _FIT_CHUNK]:
                records.extend(self._fitted(self._items.row(fit.ids[place]), encode_neighbours(fit.neighbours(place))))
            metrics.SIGNALS_PUBLISHED.inc(len(records) // 2)
            yield records
        for begin in range(0, len(gone), _FIT_CHUNK):
            yield [record for row in gone[begin : begin + _FIT_CHUNK] for record in self._fitted(row, None)]

    def _fitted(self, row: int, value: bytes | None) -> Iterator[OutRecord]:
        if value == self._neighbours.get(row):
            return
        if value is None:
            del self._neighbours[row]
        else:
            self._neighbours[row] = value
        yield OutRecord(self.changelog, NEIGHBOURS_PREFIX + self._items.item_id(row).encode(), value, self.partition)
        yield self._signals_record(self._copy(row))

    def suspend(self) -> None:
        """What was counted stays as it is."""

    def close(self) -> None:
        """Let go: the items are the next owner's."""
        self._counted.clear()
        self._learned.clear()
