"""
The users of one owned partition: events in, changed records out.

A user is hot or cold. Hot users have a row in the columns and sums for their vectors; cold users are the bytes of
their record, least recently met first. A restored record stays bytes until its user is met, so that restoring is as
fast as checking checksums and users who stay away cost no more than their record.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from models.ranking import Barred
from streams import metrics
from streams.errors import RecordFormatError
from streams.interests import codec, layout
from streams.interests.arenas import move_recent, move_tallies, release
from streams.interests.batch import EventBatch, FoldResult, Texts
from streams.interests.budget import Budget
from streams.interests.cold import ColdUsers
from streams.interests.columns import Batch, Bool, Int32, Int64, Items, Rules, empty_store, with_room, with_rows
from streams.interests.fold import APPLIED, DUPLICATE, LATE, REPLACED, fold
from streams.interests.index import UserIndex
from streams.interests.items import ItemVectors
from streams.interests.margin import Margin
from streams.interests.marks import Marks
from streams.interests.state import (
    EXCLUDING_TYPES,
    NEGATIVE_TYPES,
    LastList,
    Tally,
    UserState,
    by_type_name,
)
from streams.interests.writing import Copied, RecordWriter
from streams.settings import EVENT_TYPES, Settings
from streams.wire.events import IMPRESSION, Event
from streams.wire.signals import PREVIOUS

#: Items met before a longer pause belong to another session.
SESSION_GAP_MS: Final = 30 * 60_000
#: Rows and slots a slab begins with; everything doubles from there.
_FIRST_ROWS: Final = 256
_FIRST_SLOTS: Final = 4_096
#: Share of the hot users that become cold at once when there are too many: the choice is paid once for many.
_COOL_SHARE: Final = 8

#: What keeps user ids out of `item-events`: the same user reads the same there, the id cannot be read back.
_USER_HASH: Final = b"freshet-item-ev"

_EXCLUDING = np.isin(np.arange(len(EVENT_TYPES)), list(EXCLUDING_TYPES))
_OUTCOMES: Final = {DUPLICATE: "duplicates", APPLIED: "applied", LATE: "late", REPLACED: "duplicates"}


def user_hash(user_id: str) -> int:
    """Return the 64 bits that stand for a user on `item-events`."""
    return int.from_bytes(hashlib.blake2b(user_id.encode(), digest_size=8, person=_USER_HASH).digest(), "little")


class Slab:
    """
    States of the users of one partition, in memory; used from one thread.

    Attributes
    ----------
    user_ids
        Id of the user in each row; empty for rows that are free.
    erased
        When each erased user was erased, ms: records appended up to then are not theirs. A user of whom nothing else
        is left is only here.
    marks
        The same, as they are kept.

    """

    def __init__(self, settings: Settings, items: ItemVectors, budget: Budget | None = None) -> None:
        self.user_ids: list[str] = []
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
        self._hot: dict[str, int] = {}
        self._index = UserIndex()
        self._cold = ColdUsers(self.budget)
        self._free: list[int] = []
        self._heads: list[bytes] = []
        self._margins: dict[int, Margin] = {}
        self._runs = 0
        self._writer = RecordWriter()
        self.store = empty_store(_FIRST_SLOTS, items.dim)

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
        rows = self._find(batch.users, len(batch.impressions))
        items = self._item_rows(batch.items)
        self.fit_vectors()
        # Step 2.
        count = len(rows)
        outcome = np.zeros(count, np.uint8)
        previous = np.full((count, PREVIOUS), -1, np.int32)
        columns = Batch(rows, batch.ts, batch.event_hash, items, batch.kind)
        done = 0
        while (done := fold(self.store, self.rules, self.items(), columns, done, outcome, previous)) < count:
            self.store = with_room(self.store)
        changed = (outcome == APPLIED) | (outcome == REPLACED)
        # Step 3.
        for at in np.flatnonzero(_EXCLUDING[batch.kind]).tolist():
            margin = self._margin(int(rows[at]))
            changed[at] |= margin.exclude(batch.items[at], int(batch.ts[at]))
        self.store.users["changed"][rows[changed]] = True
        result = FoldResult(rows, items, outcome, previous, changed)
        codes = np.bincount(batch.kind.astype(np.int64) * len(_OUTCOMES) + outcome)
        for code in np.flatnonzero(codes).tolist():
            counts: Counter[str] = getattr(result, _OUTCOMES[code % len(_OUTCOMES)])
            counts[EVENT_TYPES[code // len(_OUTCOMES)]] += int(codes[code])
        for event in batch.impressions:
            self._impress(event, result)
        return result

    def _impress(self, event: Event, result: FoldResult) -> None:
        (row,) = self._rows([event.user_id]).tolist()
        users = self.store.users
        outcome, changed = self._margin(row).impress(event.ts_ms, event.event_hash, event.items, self._lateness_ms)
        counts = {"applied": result.applied, "late": result.late, "duplicate": result.duplicates}[outcome]
        counts[EVENT_TYPES[IMPRESSION]] += 1
        users["used_at"][row] = self._runs
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
        if self.store.sums.shape[2] != self._items.dim:
            self.store = self.store._replace(sums=np.zeros((len(self.user_ids), 2, self._items.dim), np.float32))
            self.store.users["stale"] = True

    # Reading and serving

    def row(self, user_id: str) -> int | None:
        """Return the row of a user, making the user hot; None for one never met."""
        row = self._hot.get(user_id)
        if row is None and user_id in self._cold:
            row = self._enter(user_id)
        return row

    def excluded_items(self, rows: Int64) -> Barred:
        """Return the rows of the items that hot users purchased and disliked."""
        margins = [self._margins.get(row) for row in rows.tolist()]
        ids = [list(margin.excluded) if margin is not None else [] for margin in margins]
        found = self._items.find([item_id for of_user in ids for item_id in of_user]).astype(np.int32)
        return Barred(found, np.cumsum([len(of_user) for of_user in ids], dtype=np.int64))

    def events_applied(self, rows: Int64) -> list[dict[str, int]]:
        """Return the distinct events applied of hot users by type name, types without any left out."""
        return list(map(by_type_name, self.store.users["counts"][rows].tolist()))

    def last_list(self, row: int) -> LastList | None:
        """Return the list a hot user was served last."""
        return codec.decode_head(self._heads[row])

    def serve(self, row: int, last_list: LastList) -> None:
        """Remember the list that was published; the user's record changes with it."""
        users = self.store.users
        self._heads[row] = codec.encode_head(last_list)
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
        if user_id in self._hot:
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
        numbers = rows.tolist()
        user_ids = [self.user_ids[row] for row in numbers]
        erased_at_ms = np.zeros(len(rows), np.int64)
        if self.erased:
            erased_at_ms[:] = [self.erased.get(user_id, 0) for user_id in user_ids]
        margins = self._margins
        around = layout.Around(
            self.store.users["owed"][rows],
            erased_at_ms,
            *layout.joined([self._heads[row] for row in numbers]),
            *layout.joined([margins[row].encode() if row in margins else b"" for row in numbers]),
        )
        return Copied(user_ids, self._writer.write(self.store, self._items.names, rows, around))

    def encode(self, user_id: str) -> bytes:
        """
        Return the changelog record of a user, head and body.

        Raises
        ------
        KeyError
            For a user never met.

        """
        row = self._hot.get(user_id)
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

    def _find(self, user_ids: Texts, others: int) -> Int64:
        """Return the row of each user, making rows for those who have none, with room for that and for others."""
        rows = self._index.find(user_ids)
        self.store.users["used_at"][rows[rows >= 0]] = self._runs
        missing = np.flatnonzero(rows < 0).tolist()
        self._make_room(len(missing) + others)
        if missing:
            rows[missing] = self._rows([user_ids[at] for at in missing])
        return rows

    def _item_rows(self, item_ids: Texts) -> Int32:
        """Return the row of each item, making rows for those never met."""
        rows = self._items.look_up(item_ids.pool, item_ids.at, item_ids.size)
        missing = np.flatnonzero(rows < 0).tolist()
        if missing:
            rows[missing] = self._items.rows([item_ids[at] for at in missing])
        return rows

    def _rows(self, user_ids: Sequence[str]) -> Int64:
        """Return the row of each user, making rows for those who have none."""
        found: list[Any] = list(map(self._hot.get, user_ids))
        if None in found:
            for at, row in enumerate(found):
                if row is None:
                    user_id = user_ids[at]
                    known = self._hot.get(user_id)
                    found[at] = self._enter(user_id) if known is None else known
        return np.array(found, np.int64)

    def _enter(self, user_id: str) -> int:
        """Give a user a row: empty, or filled from the cold record."""
        record = self._cold.get(user_id)
        state = None if record is None else codec.decode(record)
        if not self._free:
            self._grow_rows()
        row = self._free.pop()
        self.user_ids[row] = user_id
        self._hot[user_id] = row
        self._index.put(user_id, row)
        self._heads[row] = codec.NO_HEAD
        users = self.store.users
        users["user_hash"][row] = user_hash(user_id)
        users["items_revision"][row] = self._items.revision
        users["used_at"][row] = self._runs
        self.budget.hot_users += 1
        if state is not None:
            self._cold.drop(user_id)
            self._load(row, state)
        return row

    def _load(self, row: int, state: UserState) -> None:
        """Fill an empty row from a state; its vectors are made when they are asked for."""
        users = self.store.users
        self._heads[row] = codec.encode_head(state.last_list)
        users["owed"][row] = state.pending
        users["floor_ts"][row], users["floor_hash"][row] = state.floor
        users["first_ts"][row] = state.first_ts_ms
        users["counts"][row] = state.counts
        users["stale"][row] = True
        if (margin := Margin.of(state)) is not None:
            self._margins[row] = margin
        self.store = with_room(self.store)
        if state.recent:
            move_recent(self.store, row, len(state.recent))
            first = int(users["recent_at"][row])
            span = slice(first, first + len(state.recent))
            recents = self.store.recents
            recents["ts"][span] = [one.ts_ms for one in state.recent]
            self.store.hashes[span] = np.array([one.event_hash for one in state.recent], np.uint64)
            recents["item"][span] = self._items.rows([one.item_id for one in state.recent])
            recents["kind"][span] = [one.type_code for one in state.recent]
            users["recent_n"][row] = len(state.recent)
        if state.items:
            move_tallies(self.store, row, len(state.items))
            first = int(users["tally_at"][row])
            self._load_tallies(slice(first, first + len(state.items)), state.items)
            users["tally_n"][row] = len(state.items)

    def _load_tallies(self, span: slice, items: dict[str, Tally]) -> None:
        tallies = self.store.tallies
        self.store.tally_items[span] = self._items.rows(list(items))
        tallies["ts"][span] = [tally.last_ts_ms for tally in items.values()]
        tallies["mass"][span] = [tally.mass for tally in items.values()]
        tallies["counts"][span] = [tally.counts for tally in items.values()]

    def _margin(self, row: int) -> Margin:
        margin = self._margins.get(row)
        if margin is None:
            margin = self._margins[row] = Margin()
        return margin

    def _make_room(self, coming: int) -> None:
        """Let the hot users met longest ago become cold when those who come may be too many."""
        excess = self.budget.hot_users + coming - self.budget.max_hot_users
        if excess <= 0 or not self._hot:
            return
        users = self.store.users
        rows = np.fromiter(self._hot.values(), np.int64, len(self._hot))
        count = min(len(rows), max(excess, len(rows) // _COOL_SHARE))
        # A changed row's next record is still to be written, which is done from columns; the others are in this run.
        rows = rows[~users["changed"][rows] & (users["used_at"][rows] < self._runs)]
        rows = rows[np.argsort(users["used_at"][rows], kind="stable")][:count]
        owed = users["owed"][rows].tolist()
        copied = self.copy(rows, owed)
        for row, user_id, record in zip(rows.tolist(), copied.user_ids, copied.values(), strict=True):
            self._leave(row, user_id)
            self._cold.put(user_id, record)
        metrics.USERS_COOLED.inc(len(rows))

    def _leave(self, row: int, user_id: str) -> None:
        del self._hot[user_id]
        self._index.drop(user_id)
        self._margins.pop(row, None)
        self.user_ids[row] = ""
        self._heads[row] = codec.NO_HEAD
        release(self.store, row)
        self._free.append(row)
        self.budget.hot_users -= 1

    def forget(self, user_id: str) -> None:
        """Drop all that is held of a user, but for the mark of an erasure."""
        row = self._hot.get(user_id)
        if row is not None:
            self._leave(row, user_id)
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
        self.budget.hot_users -= len(self._hot)
        self._hot.clear()
        self._index.clear()
        self._cold.clear()
        self.marks.clear()

    def _grow_rows(self) -> None:
        before = len(self.user_ids)
        rows = max(_FIRST_ROWS, 2 * before)
        self.store = with_rows(self.store, rows)
        self.user_ids.extend([""] * (rows - before))
        self._heads.extend([codec.NO_HEAD] * (rows - before))
        self._free.extend(range(rows - 1, before - 1, -1))

    def __len__(self) -> int:
        return len(self._hot) + len(self._cold)

    def __iter__(self) -> Iterator[str]:
        yield from self._hot
        yield from self._cold

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._hot or user_id in self._cold
