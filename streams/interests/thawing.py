"""
Users back from their records into the columns, many at once.

What `layout` wrote is read by compiled code. For any other record `codec.decode` says what it holds, or that it holds
nothing: one of version 1, and one that passes its checksum and still is no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from streams.interests import codec, layout, reading
from streams.interests.arenas import move_recent, move_tallies
from streams.interests.batch import Texts
from streams.interests.columns import Int32, Int64, Store, with_room
from streams.interests.items import ItemVectors, item_rows
from streams.interests.margin import Margin
from streams.interests.state import Tally, UserState

#: Users thawed at once: their records, some 2 MB, stay in a core's cache between the first look and the last.
AT_ONCE: Final = 1_024


class Thawed(NamedTuple):
    """
    n records that were read and hold states.

    Attributes
    ----------
    items
        (ids,) int32, row of each id in `parts`.
    heads, margins
        Of each record; None for a user without a margin.
    states
        Place among the records to the state, for those that compiled code does not read.

    """

    content: reading.Content
    parts: reading.Parts
    items: Int32
    heads: list[bytes]
    margins: list[Margin | None]
    states: dict[int, UserState]


class RecordReader:
    """Reads records; keeps the scratch that finds what a record names twice."""

    def __init__(self, items: ItemVectors) -> None:
        self._items = items
        self._seen: Int64 = np.full(reading.MAX_IDS + 1, -1, np.int64)
        self._mark: Int64 = np.empty(0, np.int64)
        self._stamp = 0

    def read(self, records: Sequence[bytes]) -> Thawed:
        """
        Read checked records, `AT_ONCE` at most; items never met get a row.

        Raises
        ------
        RecordFormatError
            When one of them passed its checksum but does not hold a state.

        """
        raw = b"".join((*records, bytes(2 * layout.SLACK)))
        sizes = np.fromiter(map(len, records), np.int64, len(records))
        content, parts = reading.content(raw, sizes), reading.empty_parts(len(records))
        ids = reading.scan(content, parts, self._seen, self._stamp)
        try:
            items = item_rows(self._items, Texts(raw, parts.id_at[:ids], parts.id_size[:ids]))
        except UnicodeDecodeError:
            # The definition finds in which of them, and says so.
            items = np.empty(0, np.int32)
            parts.refused[:] = True
        else:
            if len(self._mark) < len(self._items.names.at):
                self._mark = np.full(2 * len(self._items.names.at), -1, np.int64)
            reading.refuse_repeated(parts, items, self._mark, self._stamp)
        self._stamp += len(records)
        heads, margins = self._read_around(records, content.ends - sizes, parts)
        states = {at: codec.decode(records[at]) for at in np.flatnonzero(parts.refused).tolist()}
        for at, state in states.items():
            heads[at], margins[at] = codec.encode_head(state.last_list), Margin.of(state)
        return Thawed(content, parts, items, heads, margins, states)

    def _read_around(
        self, records: Sequence[bytes], starts: Int64, parts: reading.Parts
    ) -> tuple[list[bytes], list[Margin | None]]:
        """Read the heads and margins, and refuse the records in which they are none."""
        body_at, margin_at = (parts.bodies - starts).tolist(), (parts.margins - starts).tolist()
        heads = [codec.NO_HEAD] * len(records)
        margins: list[Margin | None] = [None] * len(records)
        for at in np.flatnonzero(~parts.refused).tolist():
            record = records[at]
            try:
                heads[at] = head = record[codec.START : body_at[at]]
                codec.read_head(head)
                if margin_at[at] < len(record):
                    margins[at] = Margin.read(record[margin_at[at] :])
            except (msgspec.MsgspecError, ValueError):
                parts.refused[at] = True
        return heads, margins


def fill(store: Store, items: ItemVectors, rows: Int64, thawed: Thawed) -> Store:
    """Fill empty rows (n,) from what was read; return the store with room for it. Vectors are made when asked for."""
    done = 0
    while True:
        masses = store.tallies["mass"].view(np.uint64)
        done = reading.fill(store, masses, rows, thawed.content, thawed.parts, thawed.items, done)
        if done == len(rows):
            break
        store = with_room(store)
    for at, state in thawed.states.items():
        store = with_room(store)
        _fill_plainly(store, items, int(rows[at]), state)
    return store


def _fill_plainly(store: Store, items: ItemVectors, row: int, state: UserState) -> None:
    users = store.users
    users["owed"][row] = state.pending
    users["floor_ts"][row], users["floor_hash"][row] = state.floor
    users["first_ts"][row] = state.first_ts_ms
    users["counts"][row] = state.counts
    users["device"][row] = state.device
    users["stale"][row] = True
    if state.recent:
        move_recent(store, row, len(state.recent))
        first = int(users["recent_at"][row])
        span = slice(first, first + len(state.recent))
        recents = store.recents
        recents["ts"][span] = [one.ts_ms for one in state.recent]
        store.hashes[span] = np.array([one.event_hash for one in state.recent], np.uint64)
        recents["item"][span] = items.rows([one.item_id for one in state.recent])
        recents["kind"][span] = [one.type_code for one in state.recent]
        users["recent_n"][row] = len(state.recent)
    if state.items:
        move_tallies(store, row, len(state.items))
        first = int(users["tally_at"][row])
        _fill_tallies_plainly(store, items, slice(first, first + len(state.items)), state.items)
        users["tally_n"][row] = len(state.items)


def _fill_tallies_plainly(store: Store, items: ItemVectors, span: slice, tallied: dict[str, Tally]) -> None:
    tallies = store.tallies
    store.tally_items[span] = items.rows(list(tallied))
    tallies["ts"][span] = [tally.last_ts_ms for tally in tallied.values()]
    tallies["mass"][span] = [tally.mass for tally in tallied.values()]
    tallies["counts"][span] = [tally.counts for tally in tallied.values()]
