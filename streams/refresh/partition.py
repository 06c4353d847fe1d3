"""One owned partition of the interest worker: its users, what their events caused, and the versions of its lists."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import orjson
import structlog
from confluent_kafka import Message

from streams import metrics
from streams.catalogue.matrix import Catalogue
from streams.errors import RecordFormatError
from streams.interests.batch import EventBatch, FoldResult
from streams.interests.budget import Budget
from streams.interests.columns import Int32, Int64, UInt8, UInt64
from streams.interests.fold import APPLIED
from streams.interests.ingest import Ingest
from streams.interests.slab import Slab
from streams.interests.vectors import InterestVectors
from streams.kafka.alignment import Slice
from streams.kafka.outgoing import OutRecord, OutRecords
from streams.kafka.owner import Owner
from streams.kafka.work import CONTROL_KEY
from streams.refresh.dirty import Cause
from streams.refresh.erasures import Erasures
from streams.settings import Settings
from streams.signals.routing import item_partitions, routed
from streams.topics import EVENT_TOPICS, full_name
from streams.wire.items import Item
from streams.wire.recommendations import VERSION_EPOCH
from streams.wire.signals import ItemEvents

_LOG = structlog.get_logger(__name__)

#: An epoch is never below the number of these intervals since 2020. Where Kafka's state was lost but Redis was not,
#: lists would otherwise begin again below the versions that Redis holds, and it would refuse them for its keys' whole
#: life. Ten minutes, because versions must stay below 2^53, what JSON readers elsewhere can hold: until 2059.
_EPOCH_INTERVAL_S = 600
_EPOCH_ZERO_S = 1_577_836_800

#: Cold users looked at in one commit for being idle too long.
_FORGET_AT_ONCE = 1_000
#: Users whose item has no vector yet; above this the next event of each user is soon enough.
_MAX_WAITING = 100_000


#: Of applied events: user, item row, type, time, the item rows before.
_Told = tuple[UInt64, Int32, UInt8, Int64, Int32, UInt8]


class Refresh(Protocol):
    """Where users who are owed a list are told."""

    def mark(self, partition: InterestPartition, user_id: str, cause: Cause) -> None:
        """Owe a list to a user."""

    def took(self, partition: InterestPartition) -> None:
        """Look after the lists of a partition, which were made elsewhere, from here on."""

    def forget(self, partition: InterestPartition) -> None:
        """Drop all that is owed in a partition, and look after its lists no more."""

    def owes(self, user_ids: Sequence[str]) -> list[bool]:
        """Return whether a list of each user waits or is being ranked, or the cache has still to forget the user."""

    def erase(self, partition: InterestPartition, user_id: str, version: int) -> None:
        """Drop the user's lists of lesser versions, wherever they are, and call `settled` once the cache has."""


class InterestPartition:
    """
    The `Work` of one partition of the interest worker.

    Attributes
    ----------
    slab, vectors
        The users' states, and their interest vectors in memory.
    epoch
        Greater each time the partition is taken; the upper part of list versions.

    """

    def __init__(
        self,
        settings: Settings,
        partition: int,
        partitions: Mapping[str, int],
        catalogue: Catalogue,
        refresh: Refresh,
        budget: Budget | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.partition = partition
        self.changelog = full_name(settings, "user-state")
        self.topic_ids: dict[str, str] = {}
        self.slab = Slab(settings, catalogue, budget)
        self.vectors = InterestVectors(self.slab)
        self.epoch = 0
        self._clock = clock
        self._settings = settings
        self._catalogue = catalogue
        self._refresh = refresh
        self._partitions = dict(partitions)
        self._ingest = Ingest(settings, partition, partitions["clicks"], self.slab.marks)
        self._erasures = Erasures(settings, partition, partitions["clicks"], self.slab, clock)
        self._topics = [full_name(settings, name) for name in EVENT_TOPICS]
        self._lists_topic = full_name(settings, "recommendations")
        self._sightings_topic = full_name(settings, "item-sightings")
        self._item_events_topic = full_name(settings, "item-events")
        self._owner: Owner | None = None
        self._lists = 0
        self._out: list[OutRecord] = []
        self._told: list[_Told] = []
        self._item_owners: Int32 = np.zeros(0, np.int32)
        self._owed_on_start: dict[str, Cause] = {}
        self._live = False
        self._sighted: set[str] = set()
        self._waiting: defaultdict[str, set[str]] = defaultdict(set)
        self._waiting_count = 0

    @property
    def owner(self) -> Owner:
        """The owner that feeds this partition."""
        assert self._owner is not None
        return self._owner

    @property
    def closed(self) -> bool:
        """Whether the partition was given up."""
        return self._owner is None or self._owner.state == "closed"

    # Taking

    def restore(self, messages: Sequence[Message]) -> None:
        """Take in changelog records; a damaged one is told and costs that user's history, no one else's."""
        damaged = 0
        for message in messages:
            key, value = message.key(), message.value()
            if key == CONTROL_KEY:
                self._restore_control(value)
                continue
            try:
                self.slab.restore(key, value)
            except (RecordFormatError, UnicodeDecodeError) as error:
                damaged += 1
                _LOG.error("state_record_damaged", partition=self.partition, offset=message.offset(), error=str(error))
        metrics.RESTORED.inc(len(messages))
        if damaged:
            metrics.STATE_DAMAGED.inc(damaged)

    def _restore_control(self, value: bytes | None) -> None:
        if value is not None:
            control = orjson.loads(value)
            self.epoch, self.topic_ids = int(control["epoch"]), control.get("topics", {})

    def opened(self, owner: Owner) -> Iterable[OutRecord]:
        """Begin a new epoch: every list from here on has a greater version than any before."""
        self._owner = owner
        self.epoch = max(self.epoch + 1, int(self._clock() - _EPOCH_ZERO_S) // _EPOCH_INTERVAL_S)
        control = {"epoch": self.epoch, "partitions": self._partitions["clicks"], "topics": self.topic_ids}
        return [OutRecord(self.changelog, CONTROL_KEY, orjson.dumps(control), self.partition)]

    def caught_up(self) -> None:
        """Owe lists: to those the restored records name, and to everybody whose events came in the meantime."""
        self._live = True
        for user_id in self.slab.marks_owed():
            self._refresh.erase(self, user_id, self.next_version())
        for user_id in self.slab.pending():
            self._owed_on_start.setdefault(user_id, Cause("restore"))
        for user_id, cause in self._owed_on_start.items():
            self._refresh.mark(self, user_id, cause)
        self._owed_on_start.clear()
        if self._settings.make_lists:
            self._refresh.took(self)

    # Folding

    def fold(self, pieces: Sequence[Slice]) -> None:
        """
        Take in records.

        1. Erase users, decode and check the events; refused records become dead letters.
        2. Fold the events into their users' states, and these into the interest vectors.
        3. Keep each applied event for the signals role, and tell the encoder of items seen for the first time.
        4. Owe lists to the users whose interactions changed.
        """
        # Step 1.
        requests, pieces = self._erasures.split(pieces)
        if requests:
            self._erase(requests)
        ingested = self._ingest.decode(pieces)
        self._out.extend(ingested.dead_letters)
        # Step 2.
        batch = ingested.batch
        result = self.slab.fold(batch)
        _count(result)
        # Step 3.
        self._told.append(_tell(batch, result, self.slab))
        if self._settings.accept_items_from_events:
            self._out.extend(self._sightings(ingested.snapshots))
        # Step 4.
        if self._settings.make_lists:
            self._wait_for_vectors(batch, result)
            self._owe(batch, result)

    def _erase(self, requests: Sequence[Any]) -> None:
        """Forget users; sent at once, so that what a new user causes stands behind it on every topic."""
        forgotten = self._erasures.erase(requests)
        for user_id in forgotten.users:
            self._owed_on_start.pop(user_id, None)
            for users in self._waiting.values():
                self._waiting_count -= user_id in users
                users.discard(user_id)
            self._refresh.erase(self, user_id, self.next_version())
        self.owner.send(forgotten.records)

    def settled(self, user_id: str) -> None:
        """Note that the cache holds nothing from before the user's erasure."""
        if not self.closed:
            self.owner.send(self._erasures.settle(user_id))

    def _owe(self, batch: EventBatch, result: FoldResult) -> None:
        user_ids, topics, event_ids = self.slab.user_ids, self._topics, batch.event_ids
        kinds, offsets, times = batch.kind.tolist(), batch.offset.tolist(), batch.record_ms.tolist()
        for row, at in result.dirty.items():
            ms = times[at]
            cause = Cause("event", topics[kinds[at]], offsets[at], event_ids[at], ms, ms)
            if self._live:
                self._refresh.mark(self, user_ids[row], cause)
            else:
                self._owed_on_start[user_ids[row]] = cause

    def _sightings(self, snapshots: Iterable[Item]) -> list[OutRecord]:
        sightings = []
        for item in snapshots:
            if item.item_id in self._sighted or self._catalogue.card(item.item_id) is not None:
                continue
            self._sighted.add(item.item_id)
            sightings.append(OutRecord(self._sightings_topic, item.item_id.encode(), item.encode()))
        if len(self._sighted) > _MAX_WAITING:
            self._sighted.clear()
        return sightings

    def _wait_for_vectors(self, batch: EventBatch, result: FoldResult) -> None:
        """Remember whose items have no vector yet, so that they get a new list when it comes."""
        missing = (result.outcome == APPLIED) & ~self._catalogue.has_vector[result.items]
        for at in np.flatnonzero(missing).tolist():
            if self._waiting_count >= _MAX_WAITING:
                return
            users = self._waiting[batch.items[at]]
            self._waiting_count += batch.users[at] not in users
            users.add(batch.users[at])

    def vectors_came(self, item_ids: Iterable[str]) -> None:
        """Owe lists to the users who met these items before their vectors were there."""
        for item_id in item_ids:
            for user_id in self._waiting.pop(item_id, ()):
                self._waiting_count -= 1
                if self._live:
                    self._refresh.mark(self, user_id, Cause("catalogue"))

    # Publishing

    def next_version(self) -> int:
        """Return a list version greater than any before, of this owner or an earlier one."""
        self._lists += 1
        return self.epoch * VERSION_EPOCH + self._lists

    # Committing

    @property
    def waits(self) -> bool:
        """A commit writes all that was folded."""
        return False

    def gather(self) -> Iterable[OutRecord | OutRecords]:
        """Return the changed users' records, and what the folded events caused; copied now, made when iterated."""
        records, self._out = self._out, []
        records.extend(self._item_events())
        metrics.HOT_USERS.set(self.slab.budget.hot_users)
        metrics.STATE_BYTES.set(self.slab.budget.state_bytes)
        records.extend(self._forgotten())
        records.extend(self._erasures.expire())
        rows = self.slab.take_changed()
        if not len(rows):
            return records
        copied = self.slab.copy(rows, self._owed(rows))
        return [*records, OutRecords(self.changelog, self.partition, copied.records())]

    def _owed(self, rows: Int64) -> list[bool]:
        """Return whose list is owed."""
        user_ids = list(map(self.slab.user_ids.__getitem__, rows.tolist()))
        owed = self._refresh.owes(user_ids)
        if not self._owed_on_start:
            return owed
        return [is_owed or user_id in self._owed_on_start for is_owed, user_id in zip(owed, user_ids, strict=True)]

    def _item_events(self) -> Iterator[OutRecord]:
        """Give what was applied since the last commit to the partitions that count it."""
        told, self._told = self._told, []
        if not told:
            return
        events = ItemEvents(self._catalogue.ids, *(np.concatenate(column) for column in zip(*told, strict=True)))
        for partition, value in routed(events, self._owners_of_items(), self._catalogue.names):
            yield OutRecord(self._item_events_topic, None, value, partition)

    def _owners_of_items(self) -> Int32:
        """Return the partition of `item-events` that owns each item row; rows never move."""
        known = len(self._item_owners)
        if known < len(self._catalogue):
            new = item_partitions(self._catalogue.ids[known:], self._partitions["item-events"])
            self._item_owners = np.concatenate((self._item_owners, new))
        return self._item_owners

    def _forgotten(self) -> Iterator[OutRecord]:
        """Give up the users who are idle too long: their state and their list."""
        idle_ms = round((self._clock() - self._settings.state_ttl_s) * 1000)
        reason = "memory" if self.slab.budget.over else "idle"
        gone = self.slab.forget_idle(idle_ms, _FORGET_AT_ONCE)
        if gone:
            metrics.USERS_FORGOTTEN.labels(reason).inc(len(gone))
        for user_id in gone:
            mark = self.slab.mark(user_id, pending=False) if user_id in self.slab.erased else None
            yield OutRecord(self.changelog, user_id.encode(), mark, self.partition)
            yield OutRecord(self._lists_topic, user_id.encode(), None, self.partition)

    def suspend(self) -> None:
        """Publish nothing more; the users stay, with what is owed to them."""
        self._live = False
        self._refresh.forget(self)

    def close(self) -> None:
        """Let go of the users."""
        self.suspend()
        self.slab.close()


def _tell(batch: EventBatch, result: FoldResult, slab: Slab) -> _Told:
    """Return what the signals role is told of the applied events, as columns."""
    applied = np.flatnonzero(result.outcome == APPLIED)
    users = slab.store.users["user_hash"][result.rows[applied]]
    kinds, times, devices = batch.kind[applied], batch.ts[applied], batch.device[applied]
    return users, result.items[applied], kinds, times, result.previous[applied], devices


def _count(result: FoldResult) -> None:
    for outcome, counts in (
        ("applied", result.applied),
        ("late_or_duplicate", result.late),
        ("duplicate", result.duplicates),
    ):
        for name, count in counts.items():
            metrics.EVENTS.labels(name, outcome).inc(count)
