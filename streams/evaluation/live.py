"""
Freshet under evaluation: what the worker and the signals role run, in virtual time, without Kafka or Redis.

Every step is theirs: events are records in the wire format, folded by `InterestPartition`; its `item-events` records
go to `SignalsPartition` and to the fitter's histories; their `item-signals` and `item-neighbours` records are decoded
and applied to the catalogue as the follower does it, and `Ranker` makes the lists. Only what carries the records is
missing: there is one partition of everything, and signals are published when a list is asked for next, no more often in
virtual time than the role does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import orjson

from models.compiled import compiled
from models.consistency import Previous
from models.interactions import Asking, Int32, Int64, Interactions
from models.ranking import RankingParameters
from models.segments import Split
from models.users import Excluded, Users, nothing_excluded
from streams.catalogue.matrix import Catalogue
from streams.catalogue.records import StageSpace, SwitchSpace, decode_record
from streams.errors import ConfigurationError
from streams.evaluation.seen import SeenItems
from streams.experiments.assignment import Experiments
from streams.experiments.definitions import load_file, load_ranking
from streams.kafka.alignment import Slice
from streams.kafka.outgoing import OutRecord
from streams.kafka.transport import Record, Records, Run
from streams.refresh.dirty import Cause
from streams.refresh.partition import InterestPartition
from streams.refresh.rank import Ranked, Ranker
from streams.settings import EVENT_TYPES, Settings
from streams.signals.fitting import Fitter, fit_histories
from streams.signals.partition import SignalsPartition
from streams.topics import full_name
from streams.wire.dead_letters import DeadLetter
from streams.wire.items import Item
from streams.wire.models import Served

#: Events of one fold, as much as a busy worker takes at once.
_RUN = 8_192


class _NoLists:
    """`Refresh` of a partition whose users are ranked when they are asked for: nobody is ever owed a list."""

    def mark(self, partition: InterestPartition, user_id: str, cause: Cause) -> None:
        """Owe nothing."""

    def took(self, partition: InterestPartition) -> None:
        """Look after nothing."""

    def forget(self, partition: InterestPartition) -> None:
        """Drop nothing."""

    def owes(self, user_ids: Sequence[str]) -> list[bool]:
        """Nobody waits."""
        return [False] * len(user_ids)

    def erase(self, partition: InterestPartition, user_id: str, version: int) -> None:
        """Nobody is erased."""


class Live:
    """
    A `models.interactions.Recommender` that is Freshet itself.

    A user's events must be in order for the state, which orders those of one time by a hash. So events of one user
    at one time are moved apart, by 1 ms each, in the order of the log; nothing else of their times changes.

    A list is as of the user's newest event, as the worker makes it: vectors decay to that moment, whenever it is
    asked for. With `exclude_seen` every item that the user ever met is barred, not only those of the recent events;
    without it nothing is barred, not even what was purchased or disliked.

    Parameters
    ----------
    users, items
        Ids, by the numbers of the log.
    cards
        What the shop says of items; those it says nothing of are listed all the same.
    devices
        Names, by the numbers of the log.

    Attributes
    ----------
    name
        Name in tables.
    catalogue, partition, signals
        The parts that are driven.

    """

    def __init__(
        self, settings: Settings, users: Sequence[str], items: Sequence[str], cards: Iterable[Item] = (),
        devices: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.name = "freshet"
        # Nobody is owed a list, and the log's own times say who is idle.
        self._settings = settings.model_copy(update={"make_lists": False, "accept_items_from_events": False})
        self._items = list(items)
        self._users = list(users)
        self._user_json = [orjson.dumps(user_id) for user_id in users]
        self._item_json = [orjson.dumps(item_id) for item_id in items]
        # Last, where the -1 of an event without a device finds it; and nothing else where nobody looks at them.
        told = devices if settings.user_devices else [""] * len(devices)
        self._device_json = [b',"device":' + orjson.dumps(name) if name else b"" for name in (*told, "")]
        self._number_of = {item_id: number for number, item_id in enumerate(items)}
        self._topics = [full_name(settings, name) for name in EVENT_TYPES]
        self._events_topic = full_name(settings, "item-events")
        self._refused_topic = full_name(settings, "dead-letters")
        self._told_in = {full_name(settings, name): name for name in ("item-signals", "item-neighbours")}
        definitions = load_file(settings.experiments_file) if settings.experiments_file else []
        self._experiments = Experiments(definitions, load_ranking(settings.ranking_file))
        self._rankers: dict[int, Ranker] = {}
        self._newest_ms = np.full(len(users), -1, np.int64)
        self._now_ms = 0
        self._committed_ms = -1
        self._interval_ms = round(settings.signals_publish_interval_s * 1000)
        self._events = self._batches = 0
        self._seen = SeenItems(len(users))
        self.catalogue = Catalogue(
            half_life_popularity_s=settings.half_life_popularity_s,
            split=Split(settings.day_parts, settings.user_devices),
        )
        self.partition = InterestPartition(
            self._settings, 0, {"clicks": 1, "item-events": 1}, self.catalogue, _NoLists(), clock=self._clock
        )
        self.signals = SignalsPartition(self._settings, 0, 1, clock=self._clock)
        self._fitter = Fitter(self._settings, 1)
        self._stock(cards)

    def _clock(self) -> float:
        return self._now_ms / 1000

    def _stock(self, cards: Iterable[Item]) -> None:
        """List every item; a row is the item's number."""
        self.catalogue.rows(self._items)
        told = {item_id: Item(item_id) for item_id in self._items}
        told.update({card.item_id: card for card in cards if card.item_id in told})
        self._apply("items", ((card.item_id.encode(), card.encode()) for card in told.values()))

    def serve(self, served: Served, vectors: Iterable[tuple[bytes, bytes]]) -> None:
        """Take the records (key, value) of a vector space, and rank in it from here on."""
        self.catalogue.apply([StageSpace(served)])
        decoded = (decode_record("item-vectors", key, value, None, served) for key, value in vectors)
        self.catalogue.apply(record for record in decoded if record is not None)
        self.catalogue.apply([SwitchSpace()])

    def rank_by(self, parameters: RankingParameters) -> None:
        """Make lists by other ranking parameters from here on."""
        self._experiments = Experiments(base=parameters)

    def parameters(self, users: Int32) -> list[RankingParameters]:
        """Return by what parameters the lists of users are made."""
        return [self._parameters(self._users[user]) for user in users.tolist()]

    # Learning

    def learn(self, log: Interactions) -> None:
        """
        Take in what happened since the last call, in order.

        Raises
        ------
        ConfigurationError
            When the worker would refuse an event.

        """
        ts_ms = np.empty(len(log.users), np.int64)
        move_apart(log.users, log.ts_ms, self._newest_ms, ts_ms)
        for start in range(0, len(log.users), _RUN):
            part = slice(start, start + _RUN)
            self._fold(log.at(part), ts_ms[part])
        self._seen.add(log.users, log.items)

    def fit(self) -> None:
        """Publish all that is known of items, and fit item-to-item weights to it unless the settings turn fits off."""
        if self._settings.neighbours_refit_interval_s and len(self._fitter.histories):
            self.signals.take_fit(fit_histories(self._fitter.histories, self._settings, 1))
        self._publish(self.signals.gather())
        while self.signals.waits:
            self._publish(self.signals.gather())

    def _commit_signals(self, now_ms: int) -> None:
        """Publish what is known of items where that was last done as long ago as the signals role waits."""
        if now_ms >= self._committed_ms + self._interval_ms:
            self._publish(self.signals.gather())
            self._committed_ms = now_ms

    def _fold(self, log: Interactions, ts_ms: Int64) -> None:
        """Fold events, and tell the signals role of them."""
        self._now_ms = max(self._now_ms, int(ts_ms.max(initial=0)))
        self.partition.fold([self._slice(log, ts_ms, kind) for kind in np.unique(log.kinds).tolist()])
        values = []
        for record in self.partition.gather():
            if isinstance(record, OutRecord) and record.topic == self._refused_topic:
                letter = DeadLetter.from_record(list(record.headers or ()), record.value)
                raise ConfigurationError(f"an event of {(letter.key or b'').decode()!r} is refused: {letter.error}")
            if isinstance(record, OutRecord) and record.topic == self._events_topic and record.value is not None:
                values.append(record.value)
        if values:
            self._batches += len(values)
            first = self._batches - len(values)
            batch = Records.of(Record(first + place, self._now_ms, None, value) for place, value in enumerate(values))
            self.signals.fold([Slice(Run(self._events_topic, 0, batch), batch, last=True)])
            for value in values:
                self._fitter.join(value, 0)

    def _slice(self, log: Interactions, ts_ms: Int64, kind: int) -> Slice:
        """Return the events of one type as they would be fetched from their topic."""
        users, items = self._user_json, self._item_json
        places = np.flatnonzero(log.kinds == kind)
        columns = (column[places].tolist() for column in (log.users, log.items, ts_ms, log.devices))
        records = []
        for number, (user, item, ts, device) in enumerate(zip(*columns, strict=True), start=self._events):
            value = b'{"event_id":"%d","user_id":%b,"item_id":%b,"ts":%d%b}' % (
                number, users[user], items[item], ts, self._device_json[device]
            )  # fmt: skip
            records.append(Record(number, ts, self._users[user].encode(), value))
        self._events += len(records)
        batch = Records.of(records)
        return Slice(Run(self._topics[kind], 0, batch), batch, last=True)

    def _publish(self, records: Iterable[OutRecord]) -> None:
        """Apply what is published of items; the changelog is for a restart, which never comes."""
        told = [(self._told_in.get(record.topic), record.key, record.value) for record in records]
        for name in self._told_in.values():
            self._apply(name, ((key, value) for topic, key, value in told if topic == name))

    def _apply(self, topic: str, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        decoded = (decode_record(topic, key, value, None) for key, value in records)
        self.catalogue.apply(record for record in decoded if record is not None)

    # Ranking

    def recommend(self, asking: Asking, size: int, *, exclude_seen: bool) -> Int32:
        """Return the best items (n, size) int32 of each who asks, best first; -1 behind the last."""
        found = np.full((len(asking.users), size), -1, np.int32)
        for place, ranked in enumerate(self.ranked(asking, size, exclude_seen=exclude_seen)):
            numbers = [self._number_of[item_id] for item_id in ranked.item_ids]
            found[place, : len(numbers)] = numbers
        return found

    def refreshed(
        self, users: Int64, size: int, parameters: Sequence[RankingParameters], previous: Previous
    ) -> Int32:  # fmt: skip
        """
        Return the best items (n, size) int32 of users with events, without items they met; -1 behind the last.

        Parameters
        ----------
        parameters, previous
            Of each user, who may be named more than once: how to rank, and the list before.

        """
        self._commit_signals(self._now_ms)
        known = [(user, row) for user in users.tolist() if (row := self._row(user)) is not None]
        asked = self._asked(known, exclude_seen=True)._replace(parameters=parameters, previous=previous)
        found = np.full((len(users), size), -1, np.int32)
        for place, ranked in enumerate(self._ranker(size).rank(asked)):
            found[place, : len(ranked.item_ids)] = [self._number_of[item_id] for item_id in ranked.item_ids]
        return found

    def ranked(self, asking: Asking, size: int, *, exclude_seen: bool) -> Iterator[Ranked]:
        """Yield the list of each who asks, as it would be published; users without events get the default list."""
        ranker = self._ranker(size)
        self._commit_signals(max(self._now_ms, int(asking.ts_ms.max(initial=0))))
        view = self.catalogue.view()
        for start in range(0, len(asking.users), self._settings.rank_batch):
            part = slice(start, start + self._settings.rank_batch)
            users, times_ms = asking.users[part].tolist(), asking.ts_ms[part].tolist()
            rows = [self._row(user) for user in users]
            known = [(user, row) for user, row in zip(users, rows, strict=True) if row is not None]
            lists = iter(ranker.rank(self._asked(known, exclude_seen=exclude_seen), view) if known else ())
            for row, now_ms in zip(rows, times_ms, strict=True):
                yield ranker.default(self._parameters(""), view, now_ms) if row is None else next(lists)

    def interests(self, users: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the vectors (3, n, d) float32 of users as ranking reads them now; zeros of who did nothing yet."""
        rows = [self._row(user) for user in users]
        known = np.array([place for place, row in enumerate(rows) if row is not None], np.int64)
        found = np.zeros((3, len(rows), self.catalogue.dim), np.float32)
        if len(known):
            found[:, known] = self.partition.vectors.gather(
                np.array([row for row in rows if row is not None], np.int64)
            )
        return found

    def _ranker(self, size: int) -> Ranker:
        ranker = self._rankers.get(size)
        if ranker is None:
            settings = self._settings.model_copy(update={"list_size": size})
            ranker = self._rankers[size] = Ranker(self.catalogue, settings)
        return ranker

    def _row(self, user: int) -> int | None:
        """Return the row of a user; None for who did nothing yet, or was silent until the worker forgot them."""
        return self.partition.slab.row(self._users[user])

    def _asked(self, known: Sequence[tuple[int, int]], *, exclude_seen: bool) -> Users:
        """Return what the lists of users, by number and row, are decided from, under the mask."""
        users = [user for user, _ in known]
        parameters = [self._parameters(self._users[user], exclude_seen=exclude_seen) for user in users]
        asked = self.partition.vectors.users(np.array([row for _, row in known], np.int64), parameters)
        if not exclude_seen:
            return asked._replace(excluded=nothing_excluded(len(users)))
        seen, ends = self._seen.of(users)
        return asked._replace(excluded=Excluded(seen, np.zeros(len(seen), np.int64), ends))

    def _parameters(self, user_id: str, *, exclude_seen: bool = True) -> RankingParameters:
        experiments = self._experiments
        parameters = experiments.parameters(experiments.assign(user_id) if user_id else {})
        return parameters if exclude_seen else dataclasses.replace(parameters, exclude_seen=False)


@compiled
def move_apart(users: Int32, ts_ms: Int64, newest_ms: Int64, moved: Int64) -> None:
    """
    Move events of one user apart that happened at one time, by 1 ms each, in their order.

    Parameters
    ----------
    newest_ms
        (users,) time of each user's newest event so far, -1 before the first; goes on.
    moved
        (n,) out: the times, growing for each user.

    """
    for at in range(len(users)):
        moved[at] = max(ts_ms[at], newest_ms[users[at]] + 1)
        newest_ms[users[at]] = moved[at]
