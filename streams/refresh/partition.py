"""One owned partition of the interest worker: its users, what their events caused, and the versions of its lists."""

from __future__ import annotations

import hashlib
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import orjson
import structlog
from confluent_kafka import Message

from streams import metrics
from streams.catalogue.matrix import Catalogue
from streams.errors import RecordFormatError
from streams.interests.ingest import Ingest, Ingested
from streams.interests.slab import FoldResult, Slab
from streams.interests.state import UserState
from streams.interests.vectors import InterestVectors
from streams.kafka.alignment import Slice
from streams.kafka.owner import CONTROL_KEY, Owner
from streams.kafka.transactions import OutRecord
from streams.refresh.dirty import Cause
from streams.settings import Settings
from streams.signals.routing import routed
from streams.topics import full_name
from streams.wire.events import IMPRESSION, Event
from streams.wire.recommendations import VERSION_EPOCH, Trigger
from streams.wire.signals import PREVIOUS, ItemEvent, item_events

_LOG = structlog.get_logger(__name__)

#: An epoch is never below the number of these intervals since 2020. Where Kafka's state was lost but Redis was not,
#: lists would otherwise begin again below the versions that Redis holds, and it would refuse them for its keys' whole
#: life. Ten minutes, because versions must stay below 2^53, what JSON readers elsewhere can hold: until 2059.
_EPOCH_INTERVAL_S = 600
_EPOCH_ZERO_S = 1_577_836_800

#: Users whose item has no vector yet; above this the next event of each user is soon enough.
_MAX_WAITING = 100_000


class Refresh(Protocol):
    """Where users who are owed a list are told."""

    def mark(self, partition: InterestPartition, user_id: str, cause: Cause) -> None:
        """Owe a list to a user."""

    def forget(self, partition: InterestPartition) -> None:
        """Drop all that is owed in a partition."""

    def owes(self, partition: InterestPartition, user_id: str) -> bool:
        """Whether a list of the user waits or is being ranked."""


def _user_hash(user_id: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(user_id.encode(), digest_size=8, person=b"freshet-item-ev").digest(), "little"
    )


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
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.partition = partition
        self.changelog = full_name(settings, "user-state")
        self.slab = Slab(settings)
        self.vectors = InterestVectors(catalogue, settings)
        self.epoch = 0
        self._clock = clock
        self._settings = settings
        self._catalogue = catalogue
        self._refresh = refresh
        self._partitions = dict(partitions)
        self._ingest = Ingest(settings, partition, partitions["clicks"], self.slab)
        self._sightings_topic = full_name(settings, "item-sightings")
        self._item_events_topic = full_name(settings, "item-events")
        self._owner: Owner | None = None
        self._lists = 0
        self._changed: dict[str, None] = {}
        self._out: list[OutRecord] = []
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
                self.epoch = int(orjson.loads(value)["epoch"]) if value else self.epoch
                continue
            try:
                self.slab.restore(key, value)
            except (RecordFormatError, UnicodeDecodeError) as error:
                damaged += 1
                _LOG.error("state_record_damaged", partition=self.partition, offset=message.offset(), error=str(error))
        metrics.RESTORED.inc(len(messages))
        if damaged:
            metrics.STATE_DAMAGED.inc(damaged)

    def opened(self, owner: Owner) -> Iterable[OutRecord]:
        """Begin a new epoch: every list from here on has a greater version than any before."""
        self._owner = owner
        self.epoch = max(self.epoch + 1, int(self._clock() - _EPOCH_ZERO_S) // _EPOCH_INTERVAL_S)
        control = {"epoch": self.epoch, "partitions": self._partitions["clicks"]}
        return [OutRecord(self.changelog, CONTROL_KEY, orjson.dumps(control), self.partition)]

    def caught_up(self) -> None:
        """Owe lists: to those the restored records name, and to everybody whose events came in the meantime."""
        self._live = True
        for user_id in self.slab.pending():
            self._owed_on_start.setdefault(user_id, Cause(Trigger("restore", partition=self.partition)))
        for user_id, cause in self._owed_on_start.items():
            self._refresh.mark(self, user_id, cause)
        self._owed_on_start.clear()

    # Folding

    def fold(self, pieces: Sequence[Slice]) -> None:
        """
        Take in records.

        1. Decode and check; refused records become dead letters.
        2. Fold the events into their users' states, and these into the interest vectors.
        3. Tell the signals role of each applied event, and the encoder of items seen for the first time.
        4. Owe lists to the users whose interactions changed.
        """
        # Step 1.
        ingested = self._ingest.decode(pieces)
        self._out.extend(ingested.dead_letters)
        # Step 2.
        result = self.slab.fold(ingested.events)
        self.vectors.fold(result)
        self._changed.update(dict.fromkeys(result.touched))
        _count(result)
        # Step 3.
        self._out.extend(self._item_events(ingested.events, result))
        if self._settings.accept_items_from_events:
            self._out.extend(self._sightings(ingested.events))
        # Step 4.
        self._wait_for_vectors(ingested.events, result)
        self._owe(ingested, result)

    def _owe(self, ingested: Ingested, result: FoldResult) -> None:
        for user_id, index in result.dirty.items():
            source = ingested.sources[index]
            trigger = Trigger("event", source.topic, self.partition, source.offset, ingested.events[index].event_id)
            cause = Cause(trigger, source.timestamp_ms, source.timestamp_ms)
            if self._live:
                self._refresh.mark(self, user_id, cause)
            else:
                self._owed_on_start[user_id] = cause

    def _item_events(self, events: Sequence[Event], result: FoldResult) -> list[OutRecord]:
        rows: list[ItemEvent] = []
        for index in result.accepted:
            event = events[index]
            if event.type_code == IMPRESSION:
                continue
            previous = _items_before(result.touched[event.user_id], event)
            rows.append(ItemEvent(_user_hash(event.user_id), event.item_id, event.type_code, event.ts_ms, previous))
        return [
            OutRecord(self._item_events_topic, None, record, partition)
            for partition, record in routed(item_events(rows), self._partitions["item-events"])
        ]

    def _sightings(self, events: Sequence[Event]) -> list[OutRecord]:
        sightings = []
        for event in events:
            item = event.item
            if item is None or item.item_id in self._sighted or self._catalogue.card(item.item_id) is not None:
                continue
            self._sighted.add(item.item_id)
            sightings.append(OutRecord(self._sightings_topic, item.item_id.encode(), item.encode()))
        if len(self._sighted) > _MAX_WAITING:
            self._sighted.clear()
        return sightings

    def _wait_for_vectors(self, events: Sequence[Event], result: FoldResult) -> None:
        """Remember whose items have no vector yet, so that they get a new list when it comes."""
        items = {events[index].item_id for index in result.accepted} - {""}
        ordered = sorted(items)
        rows = self._catalogue.rows(ordered)
        missing = {item for item, row in zip(ordered, rows, strict=True) if not self._catalogue.has_vector[row]}
        if not missing:
            return
        for index in result.accepted:
            event = events[index]
            if event.item_id in missing and self._waiting_count < _MAX_WAITING:
                users = self._waiting[event.item_id]
                self._waiting_count += event.user_id not in users
                users.add(event.user_id)

    def vectors_came(self, item_ids: Iterable[str]) -> None:
        """Owe lists to the users who met these items before their vectors were there."""
        for item_id in item_ids:
            for user_id in self._waiting.pop(item_id, ()):
                self._waiting_count -= 1
                if self._live:
                    self._refresh.mark(self, user_id, Cause(Trigger("catalogue", partition=self.partition)))

    # Publishing

    def next_version(self) -> int:
        """Return a list version greater than any before, of this owner or an earlier one."""
        self._lists += 1
        return self.epoch * VERSION_EPOCH + self._lists

    def published(self, user_id: str) -> None:
        """Note that the user's record changed with its list."""
        self._changed[user_id] = None

    # Committing

    def gather(self) -> Sequence[OutRecord]:
        """Return the changed users' records, and what the folded events caused."""
        records, self._out = self._out, []
        changed, self._changed = self._changed, {}
        for user_id in changed:
            state = self.slab.get(user_id)
            assert state is not None
            state.pending = user_id in self._owed_on_start or self._refresh.owes(self, user_id)
            records.append(OutRecord(self.changelog, user_id.encode(), self.slab.encode(user_id), self.partition))
        return records

    def close(self) -> None:
        """Let go of the users."""
        self._live = False
        self._refresh.forget(self)


def _items_before(state: UserState, event: Event) -> tuple[str, ...]:
    """Return the items the user met just before an event, newest first."""
    recent = state.recent
    at = bisect_left(recent, (event.ts_ms, event.event_hash))
    return tuple(interaction.item_id for interaction in reversed(recent[max(0, at - PREVIOUS) : at]))


def _count(result: FoldResult) -> None:
    for outcome, counts in (
        ("applied", result.applied),
        ("late_or_duplicate", result.late),
        ("duplicate", result.duplicates),
    ):
        for name, count in counts.items():
            metrics.EVENTS.labels(name, outcome).inc(count)
