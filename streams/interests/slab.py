"""
The users of one owned partition: events in, changed records out.

A user is hot or cold. Hot users have a row in the columns and sums for their vectors; cold users are the bytes of
their record, least recently met first. A restored record stays bytes until its user is met, so that restoring is as
fast as checking checksums and users who stay away cost no more than their record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from models.events import SESSION_GAP_MS
from models.users import Excluded
from streams import metrics
from streams.errors import RecordFormatError
from streams.interests import codec, thawing
from streams.interests.batch import EventBatch, FoldResult, Texts
from streams.interests.budget import Budget
from streams.interests.cold import ColdUsers
from streams.interests.columns import Batch, Bool, Int64, Items, Rules, Store, with_room
from streams.interests.fold import APPLIED, DUPLICATE, LATE, REPLACED, fold
from streams.interests.hot import HotUsers
from streams.interests.items import ItemVectors, item_rows
from streams.interests.marks import Marks
from streams.interests.state import EXCLUDING_TYPES, NEGATIVE_TYPES, LastList, UserState, by_type_name
from streams.interests.writing import Copied, RecordWriter
from streams.settings import EVENT_TYPES, Settings
from streams.wire.events import IMPRESSION, Event
from streams.wire.signals import PREVIOUS

#: Share of the hot users that become cold at once when there are too many: the choice is paid once for many.
_COOL_SHARE: Final = 8
#: But no more than this, which take some 20 ms, unless more are coming.
_COOL_MOST: Final = 2_048

_EXCLUDING = np.isin(np.arange(len(EVENT_TYPES)), list(EXCLUDING_TYPES))
_OUTCOMES: Final = {DUPLICATE: "duplicates", APPLIED: "applied", LATE: "late", REPLACED: "duplicates"}


class Slab:
    """
    States of the users of one partition, in memory; used from one thread.

    Attributes
    ----------
    erased
        When each erased user was erased, ms: records appended up to then are not theirs. A user of whom nothing else
        is left is only here.
    marks
        The same, as they are kept.

    """

    def __init__(self, settings: Settings, items: ItemVectors, budget: Budget | None = None) -> None:
        self._items = items
        self.budget = budget or Budget(settings.max_hot_users, settings.max_state_bytes)
        self.marks = Marks(self.budget)
        self.erased = self.marks.at_ms
        self._lateness_ms = round(settings.lateness_s * 1000)
        self.rules = Rules(
            lateness_ms=self._lateness_ms,
            session_gap_ms=SESSION_GAP_MS,
            weights=np.array([settings.weights.get(name, 0.0) for name in EVENT_TYPES]),
            negative=np.isin(np.arange(len(EVENT_TYPES)), list(NEGATIVE_TYPES)),
            half_lives_ms=1000.0
            * np.array([settings.half_life_short_s, settings.half_life_long_s, settings.half_life_negative_s]),
        )
        self._hot = HotUsers(items, self.budget)
        self._cold = ColdUsers(self.budget)
        self._runs = 0
        self._writer = RecordWriter()
        self._reader = thawing.RecordReader(items)

    @property
    def store(self) -> Store:
        """The columns of the hot users."""
        return self._hot.store

    @property
    def user_ids(self) -> list[str]:
        """Id of the user in each row; empty for rows that are free."""
        return self._hot.user_ids

    # Folding

    def fold(self, batch: EventBatch) -> FoldResult:
        """
        Apply a run of events of this partition, in any order and any number of times.

        1. Find the users' rows: cold users become hot, new ones get a row.
        2. Fold the interactions, compiled, growing the arenas as they fill.
        3. Note exclusions and impressions.
        """
        # Step 1.
        self._runs += 1
        rows, shown_to = self._find(batch.users, [event.user_id for event in batch.impressions])
        items = item_rows(self._items, batch.items)
        self.fit_vectors()
        # Step 2.
        count = len(rows)
        outcome = np.zeros(count, np.uint8)
        previous = np.full((count, PREVIOUS), -1, np.int32)
        columns = Batch(rows, batch.ts, batch.event_hash, items, batch.kind, batch.device)
        done = 0
        while (done := fold(self.store, self.rules, self.items(), columns, done, outcome, previous)) < count:
            self._hot.store = with_room(self.store)
        changed = (outcome == APPLIED) | (outcome == REPLACED)
        # Step 3.
        for at in np.flatnonzero(_EXCLUDING[batch.kind]).tolist():
            margin = self._hot.margin(int(rows[at]))
            changed[at] |= margin.exclude(batch.items[at], int(batch.ts[at]))
        self.store.users["changed"][rows[changed]] = True
        result = FoldResult(rows, items, outcome, previous, changed)
        codes = np.bincount(batch.kind.astype(np.int64) * len(_OUTCOMES) + outcome)
        for code in np.flatnonzero(codes).tolist():
            counts: Counter[str] = getattr(result, _OUTCOMES[code % len(_OUTCOMES)])
            counts[EVENT_TYPES[code // len(_OUTCOMES)]] += int(codes[code])
        for row, event in zip(shown_to.tolist(), batch.impressions, strict=True):
            self._impress(row, event, result)
        return result

    def _impress(self, row: int, event: Event, result: FoldResult) -> None:
        users = self.store.users
        outcome, changed = self._hot.margin(row).impress(event.ts_ms, event.event_hash, event.items, self._lateness_ms)
        counts = {"applied": result.applied, "late": result.late, "duplicate": result.duplicates}[outcome]
        counts[EVENT_TYPES[IMPRESSION]] += 1
        users["changed"][row] |= changed
        if outcome == "applied":
            users["counts"][row, IMPRESSION] += 1
            first_ms = int(users["first_ts"][row])
            users["first_ts"][row] = min(first_ms, event.ts_ms) if first_ms else event.ts_ms

    def items(self) -> Items:
        """Return the item vectors as the compiled code reads them."""
        items = self._items
        return Items(items.vectors, items.changed_at, items.revision, items.names)

    def fit_vectors(self) -> None:
        """Follow another encoder's dimension: nothing of the old space stays."""
        self._hot.fit_vectors()

    # Reading and serving

    def row(self, user_id: str) -> int | None:
        """Return the row of a user, making the user hot; None for one never met."""
        if user_id in self._cold:
            self._enter([user_id])
        return self._hot.row_of.get(user_id)

    def excluded_items(self, rows: Int64) -> Excluded:
        """Return the items that hot users purchased and disliked."""
        margins = [self._hot.margins.get(row) for row in rows.tolist()]
        excluded = [margin.excluded if margin is not None else {} for margin in margins]
        found = self._items.find([item_id for of_user in excluded for item_id in of_user]).astype(np.int32)
        times = np.array([ts_ms for of_user in excluded for ts_ms in of_user.values()], np.int64)
        return Excluded(found, times, np.cumsum([len(of_user) for of_user in excluded], dtype=np.int64))

    def find_items(self, item_ids: Sequence[str]) -> Int64:
        """Return the rows (n,) of items, -1 for those never met."""
        return self._items.find(item_ids)

    def events_applied(self, rows: Int64) -> list[dict[str, int]]:
        """Return the distinct events applied of hot users by type name, types without any left out."""
        return list(map(by_type_name, self.store.users["counts"][rows].tolist()))

    def last_list(self, row: int) -> LastList | None:
        """Return the list a hot user was served last."""
        return codec.decode_head(self._hot.heads[row])

    def heads(self, rows: Int64) -> list[codec.Head]:
        """Return the columns of the lists that hot users were served last; version 0 stands for none."""
        heads = self._hot.heads
        return [codec.read_head(heads[row]) for row in rows.tolist()]

    def raw_heads(self, user_ids: Sequence[str]) -> list[bytes]:
        """Return the encoded list that each user was served last, of any user, who stays as hot or cold as before."""
        row_of, heads, cold = self._hot.row_of, self._hot.heads, self._cold
        return [heads[row_of[user_id]] if user_id in row_of else cold.head(user_id) for user_id in user_ids]

    def latest_first(self) -> tuple[list[str], list[str]]:
        """Return the hot users and the cold ones, those met last first."""
        rows = np.fromiter(self._hot.row_of.values(), np.int64, len(self._hot.row_of))
        rows = rows[np.argsort(-self.store.users["used_at"][rows], kind="stable")]
        return list(map(self.user_ids.__getitem__, rows.tolist())), list(self._cold)[::-1]

    def list_version(self, row: int) -> int:
        """Return the version of the list a hot user was served last, 0 for none."""
        return codec.read_head(self._hot.heads[row]).version

    def serve(self, row: int, last_list: LastList) -> None:
        """Remember the list that was published; the user's record changes with it."""
        users = self.store.users
        self._hot.heads[row] = codec.encode_head(last_list)
        users["owed"][row] = False
        users["changed"][row] = True

    def get(self, user_id: str) -> UserState | None:
        """
        Return a copy of the state of a user, None for one never met.

        Raises
        ------
        RecordFormatError
            When the restored record passed its checksum but does not hold a state.

        """
        if user_id in self._hot.row_of:
            return codec.decode(self.encode(user_id))
        record = self._cold.get(user_id)
        if record is None and user_id in self.erased:
            record = self.mark(user_id, pending=False)
        return None if record is None else codec.decode(record)

    # Records

    def restore(self, key: bytes, value: bytes | None) -> None:
        """
        Take one changelog record; the last one of a user wins and None forgets the user.

        Raises
        ------
        RecordFormatError
            When the record or its key is damaged, or of an unknown version.

        """
        try:
            user_id = key.decode()
        except UnicodeDecodeError as error:
            raise RecordFormatError("the key of a user record is not UTF-8") from error
        if value is not None:
            codec.check(value)
        # Behind the others: the changelog's order is the order in which users were written last.
        self.forget(user_id)
        self.marks.drop(user_id)
        if value is None:
            return
        mark = codec.is_mark(value)
        if erased_at_ms := codec.erased_at_ms(value):
            self.marks.put(user_id, erased_at_ms, cache_owed=mark and codec.is_pending(value))
        if not mark:
            self._cold.put(user_id, value)

    def take_changed(self) -> Int64:
        """Return the rows whose record is due, and take them as written."""
        changed = self.store.users["changed"]
        rows: Int64 = np.flatnonzero(changed)
        changed[rows] = False
        return rows

    def copy(self, rows: Int64, owed: Sequence[bool] | Bool) -> Copied:
        """Copy what the records of these rows are made of; `owed` says whose list is, and is kept for `pending`."""
        self.store.users["owed"][rows] = owed
        user_ids = [self.user_ids[row] for row in rows.tolist()]
        around = self._hot.around(rows, user_ids, self.store.users["owed"][rows], self.erased)
        return Copied(user_ids, self._writer.write(self.store, self._items.names, rows, around))

    def encode(self, user_id: str) -> bytes:
        """
        Return the changelog record of a user, head and body.

        Raises
        ------
        KeyError
            For a user never met.

        """
        row = self._hot.row_of.get(user_id)
        if row is None:
            return self._cold[user_id]
        rows = np.array([row], np.int64)
        (record,) = self.copy(rows, [bool(self.store.users["owed"][row])]).values()
        return record

    def pending(self) -> list[str]:
        """Return the users who are owed a list by what their records say."""
        hot = [self.user_ids[row] for row in np.flatnonzero(self.store.users["owed"]).tolist()]
        return hot + self._cold.pending()

    # Rows

    def _find(self, user_ids: Texts, others: Sequence[str]) -> tuple[Int64, Int64]:
        """Return the row of each user of a run, and of each other one, making rows for those who have none."""
        rows = self._hot.find(user_ids)
        row_of, used_at = self._hot.row_of, self.store.users["used_at"]
        used_at[rows[rows >= 0]] = self._runs
        used_at[[row_of[user_id] for user_id in others if user_id in row_of]] = self._runs
        missing = np.flatnonzero(rows < 0).tolist()
        self._make_room(len(missing) + len(others))
        if missing:
            rows[missing] = self._rows([user_ids[at] for at in missing])
        return rows, self._rows(others)

    def _rows(self, user_ids: Sequence[str]) -> Int64:
        """Return the row of each user, making rows for those who have none."""
        row_of = self._hot.row_of
        self._enter([user_id for user_id in dict.fromkeys(user_ids) if user_id not in row_of])
        return np.array([row_of[user_id] for user_id in user_ids], np.int64)

    def _enter(self, user_ids: Sequence[str]) -> None:
        """Give users who are not hot, each named once, a row: empty, or filled from the cold record."""
        for first in range(0, len(user_ids), thawing.AT_ONCE):
            entering = user_ids[first : first + thawing.AT_ONCE]
            records = list(map(self._cold.get, entering))
            cold = [record for record in records if record is not None]
            thawed = self._reader.read(cold) if cold else None
            rows = self._hot.enter(entering, self._runs)
            if thawed is not None:
                self._hot.fill(rows[[record is not None for record in records]], thawed)
                self._cold.drop_all(entering)

    def _make_room(self, coming: int) -> None:
        """Let the hot users met longest ago become cold when those who come may be too many."""
        excess = self.budget.hot_users + coming - self.budget.max_hot_users
        if excess <= 0:
            return
        hot = len(self._hot.row_of)
        rows = self._hot.idle(self._runs, max(excess, min(hot // _COOL_SHARE, _COOL_MOST)))
        if len(rows):
            copied = self.copy(rows, self.store.users["owed"][rows])
            self._cold.put_all(copied.user_ids, copied.values())
            self._hot.leave(rows)
            metrics.USERS_COOLED.inc(len(rows))

    def forget(self, user_id: str) -> None:
        """Drop all that is held of a user, but for the mark of an erasure."""
        row = self._hot.row_of.get(user_id)
        if row is not None:
            self._hot.leave(np.array([row], np.int64))
        else:
            self._cold.drop(user_id)

    def erase(self, user_id: str, at_ms: int) -> bytes:
        """
        Forget a user but for the mark that records appended up to `at_ms` are not theirs; return its record.

        The record says that the cache has still to forget the user.
        """
        self.forget(user_id)
        self.marks.put(user_id, max(at_ms, self.erased.get(user_id, 0)))
        return self.mark(user_id, pending=True)

    def mark(self, user_id: str, *, pending: bool) -> bytes:
        """Return the record of an erased user of whom nothing else is held; raises KeyError for another."""
        return codec.mark(self.erased[user_id], pending=pending)

    def marks_owed(self) -> list[str]:
        """Return, once, the users whose marks said when they were restored that the cache has to forget them."""
        return [user_id for user_id in self.marks.owed() if user_id not in self]

    def expire_marks(self, before_ms: int, most: int) -> list[str]:
        """
        Take away the marks of erasures up to a time, the oldest first, `most` at once.

        Return the users of whom nothing is held any more; the others' records are due without the mark.
        """
        expired = self.marks.expire(before_ms, most)
        for user_id in expired:
            if (row := self.row(user_id)) is not None:
                self.write_again(row)
        return [user_id for user_id in expired if user_id not in self]

    def write_again(self, row: int) -> None:
        """Let the next commit write a hot user's record, though nothing was folded."""
        self.store.users["changed"][row] = True

    def forget_idle(self, before_ms: int, most: int) -> list[str]:
        """Forget cold users; see `ColdUsers.drop_idle`."""
        return self._cold.drop_idle(before_ms, most)

    def close(self) -> None:
        """Give everything back to the budget."""
        self._hot.clear()
        self._cold.clear()
        self.marks.clear()

    def __len__(self) -> int:
        return len(self._hot.row_of) + len(self._cold)

    def __iter__(self) -> Iterator[str]:
        yield from self._hot.row_of
        yield from self._cold

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._hot.row_of or user_id in self._cold
