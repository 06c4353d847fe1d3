"""
How one event changes a user's columns, so that arrival order, duplicates and batching do not matter; compiled.

`recent` is a join: the union of all interactions seen, cut to its newest end. Cutting never brings back what an
earlier cut left out, so any order of the same events gives the same `recent`; what leaves does so in (time, hash)
order, so the tallies are a fold over one fixed sequence.

The exact condition. The body is byte for byte the same for every order, duplication and batching of a set of events if
1. each event first arrives before any event of its user that is newer by more than `lateness_s`,
2. no more than `RECENT_MAX` events of the user lie within `lateness_s` of each other (impressions apart, as many),
3. events with one event_id but different contents reach the worker while the first of them is in `recent` (the newest
   of them counts, all of them exclude), and
4. for `impressions` alone: at most `SHOWN_MAX` items are ever shown to the user, or they arrive in order of time.
Redelivery is harmless at any time. An event that breaks 1 or 2 is either still above the floor, and exact, or it is
counted as late; it is never applied twice.

`tests/support/reference_fold.py` says the same in plain Python, and a property test holds the two together.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from streams.catalogue.ids import ItemNames
from streams.interests.columns import (
    NO_BLOCK,
    RECENT_MAX,
    RECENT_MIN,
    TALLIES_AFTER_PRUNE,
    TALLIES_MAX,
    TYPES,
    Arena,
    Bool,
    Float32,
    Float64,
    Int32,
    Int64,
    Records,
    UInt8,
    UInt64,
)
from streams.interests.compiled import compiled
from streams.interests.sums import LONG, SHORT, add, advance

#: What became of an event: nothing new; joined; too old to be placed; a newer copy of a known one took its place.
DUPLICATE: Final = 0
APPLIED: Final = 1
LATE: Final = 2
REPLACED: Final = 3

#: Items met just before an event that travel with it: sequence rules beyond three steps are noise.
PREVIOUS: Final = 3


class Rules(NamedTuple):
    """
    Settings as the compiled code reads them.

    Attributes
    ----------
    weights
        (types,) what one event adds to the vectors.
    negative
        (types,) whether the type says what is not wanted.
    half_lives_ms
        Short, long, negative.
    session_gap_ms
        Items met before a longer pause do not count as met just before.

    """

    lateness_ms: int
    session_gap_ms: int
    weights: Float64
    negative: Bool
    half_lives_ms: Float64


class Items(NamedTuple):
    """The item vectors: (rows, dim), the revision at which each changed last, the newest revision, and the ids."""

    vectors: Float32
    changed_at: Int64
    revision: int
    names: ItemNames


class Store(NamedTuple):
    """Everything of one partition that a fold changes; `sums` is (rows, 2, dim) float32, short and long."""

    users: Records
    recents: Records
    recent_arena: Arena
    tallies: Records
    tally_arena: Arena
    sums: Float32


class Batch(NamedTuple):
    """Events in order of (time, hash), (n,) each: row of the user, time, hash, row of the item, type code."""

    rows: Int64
    ts: Int64
    event_hash: UInt64
    item: Int32
    kind: UInt8


@compiled
def fold(
    store: Store, rules: Rules, items: Items, batch: Batch, start: int, outcome: UInt8, previous: Int32
) -> int:  # fmt: skip
    """
    Apply events from `start` on; return where it stopped: the end, or the first event an arena had no room for.

    Parameters
    ----------
    outcome
        (n,) out: what became of each event.
    previous
        (n, 3) out: item rows met just before an applied event, newest first, -1 where none.

    """
    largest_recent = store.recent_arena.sizes[-1]
    largest_tally = store.tally_arena.sizes[-1]
    for at in range(start, len(batch.rows)):
        if (
            store.recent_arena.top[0] + largest_recent > len(store.recents)
            or store.tally_arena.top[0] + largest_tally > len(store.tallies)
        ):  # fmt: skip
            return at
        outcome[at] = _interact(store, rules, items, batch, at, previous[at])
    return len(batch.rows)


@compiled
def _interact(store: Store, rules: Rules, items: Items, batch: Batch, at: int, previous: Int32) -> int:
    """Join one interaction."""
    users, recents = store.users, store.recents
    row, ts, event_hash = batch.rows[at], batch.ts[at], batch.event_hash[at]
    first, used = users[row].recent_at, users[row].recent_n
    for slot in range(first, first + used):
        if recents[slot].event_hash == event_hash:
            return _join_copy(store, rules, items, batch, at, slot)
    if ts < users[row].floor_ts or (ts == users[row].floor_ts and event_hash <= users[row].floor_hash):
        return LATE
    slot = _insert(store, row, ts, event_hash, batch.item[at], batch.kind[at])
    _note_previous(store, rules, row, slot, previous)
    users[row].counts[batch.kind[at]] += 1
    if users[row].first_ts == 0 or ts < users[row].first_ts:
        users[row].first_ts = ts
    if not users[row].stale:
        _follow(store, rules, items, row, ts, batch.item[at], batch.kind[at])
    _trim(store, rules, items, row)
    return APPLIED


@compiled
def _insert(store: Store, row: int, ts: int, event_hash: int, item: int, kind: int) -> int:
    """Put an interaction in its place; return its slot."""
    users, recents = store.users, store.recents
    used = users[row].recent_n
    if users[row].recent_class == NO_BLOCK or used == store.recent_arena.sizes[users[row].recent_class]:
        move_recent(users, recents, store.recent_arena, row, used + 1)
    first = users[row].recent_at
    slot = first + used
    while slot > first and (
        recents[slot - 1].ts > ts or (recents[slot - 1].ts == ts and recents[slot - 1].event_hash > event_hash)
    ):
        recents[slot] = recents[slot - 1]
        slot -= 1
    recents[slot].ts = ts
    recents[slot].event_hash = event_hash
    recents[slot].item = item
    recents[slot].kind = kind
    users[row].recent_n = used + 1
    return int(slot)


@compiled
def _note_previous(store: Store, rules: Rules, row: int, slot: int, previous: Int32) -> None:
    recents = store.recents
    first = store.users[row].recent_at
    for place in range(PREVIOUS):
        before = slot - 1 - place
        if before < first or recents[before + 1].ts - recents[before].ts > rules.session_gap_ms:
            return
        previous[place] = recents[before].item


@compiled
def _join_copy(store: Store, rules: Rules, items: Items, batch: Batch, at: int, slot: int) -> int:
    """Let the newest of several copies stand: once it has left, the floor holds off all of them."""
    users, recents = store.users, store.recents
    row, ts, item = batch.rows[at], batch.ts[at], batch.item[at]
    if recents[slot].ts == ts and recents[slot].item == item and recents[slot].kind == batch.kind[at]:
        return DUPLICATE
    users[row].first_ts = min(users[row].first_ts, ts)
    users[row].stale = True
    newer = ts > recents[slot].ts
    if ts == recents[slot].ts:
        newer = _sorts_after(items.names, item, recents[slot].item)
    if newer:
        last = users[row].recent_at + users[row].recent_n - 1
        for later in range(slot, last):
            recents[later] = recents[later + 1]
        users[row].recent_n -= 1
        _insert(store, row, ts, batch.event_hash[at], item, batch.kind[at])
        _trim(store, rules, items, row)
    return REPLACED


@compiled
def _sorts_after(names: ItemNames, one: int, other: int) -> bool:
    """Whether one item's id comes after another's; UTF-8 sorts as its characters do."""
    at, end = names.at[one], names.at[one + 1]
    other_at, other_end = names.at[other], names.at[other + 1]
    while at < end and other_at < other_end:
        if names.pool[at] != names.pool[other_at]:
            return bool(names.pool[at] > names.pool[other_at])
        at += 1
        other_at += 1
    return bool(at < end)


@compiled
def _trim(store: Store, rules: Rules, items: Items, row: int) -> None:
    """Let the oldest interactions leave into the tallies: all but the newest and those within lateness."""
    users, recents = store.users, store.recents
    used = users[row].recent_n
    excess = used - RECENT_MIN
    if excess <= 0:
        return
    first = users[row].recent_at
    oldest_kept = recents[first + used - 1].ts - rules.lateness_ms
    leaving = 0
    while leaving < excess and (recents[first + leaving].ts < oldest_kept or used - leaving > RECENT_MAX):
        _tally(store, rules, items, row, first + leaving)
        leaving += 1
    if leaving == 0:
        return
    users[row].floor_ts = recents[first + leaving - 1].ts
    users[row].floor_hash = recents[first + leaving - 1].event_hash
    kept = used - leaving
    for slot in range(first, first + kept):
        recents[slot] = recents[slot + leaving]
    users[row].recent_n = kept


@compiled
def _tally(store: Store, rules: Rules, items: Items, row: int, slot: int) -> None:
    """Fold an interaction that leaves `recent` into its item's tally."""
    users, recents, tallies = store.users, store.recents, store.tallies
    item, ts, kind = recents[slot].item, recents[slot].ts, recents[slot].kind
    if not users[row].stale:
        _unfollow(store, rules, items, row, slot)
    weight = 0.0 if rules.negative[kind] else rules.weights[kind]
    first, used = users[row].tally_at, users[row].tally_n
    for place in range(first, first + used):
        if tallies[place].item == item:
            aged = math.exp2((tallies[place].ts - ts) / rules.half_lives_ms[LONG])
            tallies[place].mass = tallies[place].mass * aged + weight
            tallies[place].ts = ts
            tallies[place].counts[kind] += 1
            return
    if users[row].tally_class == NO_BLOCK or used == store.tally_arena.sizes[users[row].tally_class]:
        move_tallies(users, tallies, store.tally_arena, row, used + 1)
        first = users[row].tally_at
    place = first + used
    tallies[place].item = item
    tallies[place].ts = ts
    tallies[place].mass = weight
    tallies[place].counts[:] = 0
    tallies[place].counts[kind] = 1
    users[row].tally_n = used + 1
    if used + 1 > TALLIES_MAX:
        _prune(store, rules, items, row, ts)


@compiled
def _prune(store: Store, rules: Rules, items: Items, row: int, now: int) -> None:
    """Give up the lightest tallies as of `now`, ties by the smaller id; the others keep their order."""
    users, tallies = store.users, store.tallies
    first, used = users[row].tally_at, users[row].tally_n
    mass = np.empty(used, np.float64)
    for place in range(used):
        mass[place] = tallies[first + place].mass * math.exp2(
            (tallies[first + place].ts - now) / rules.half_lives_ms[LONG]
        )
    dropped = np.zeros(used, np.bool_)
    for _ in range(used - TALLIES_AFTER_PRUNE):
        lightest = -1
        for place in range(used):
            if dropped[place]:
                continue
            if (
                lightest < 0
                or mass[place] < mass[lightest]
                or (
                    mass[place] == mass[lightest]
                    and _sorts_after(items.names, tallies[first + lightest].item, tallies[first + place].item)
                )
            ):
                lightest = place
        dropped[lightest] = True
        if not users[row].stale:
            _give_up(store, rules, items, row, first + lightest)
    kept = first
    for place in range(used):
        if not dropped[place]:
            tallies[kept] = tallies[first + place]
            kept += 1
    users[row].tally_n = kept - first


@compiled
def _follow(store: Store, rules: Rules, items: Items, row: int, ts: int, item: int, kind: int) -> None:
    """Let the sums take an interaction in; dislikes only move their time."""
    users = store.users
    users[row].folds += 1
    if ts > users[row].sums_at:
        advance(users, store.sums, rules.half_lives_ms, row, ts)
    if rules.negative[kind]:
        return
    age = users[row].sums_at - ts
    for part in (SHORT, LONG):
        weight = rules.weights[kind] * math.exp2(-age / rules.half_lives_ms[part])
        add(users, store.sums, items.vectors, row, part, item, weight)


@compiled
def _unfollow(store: Store, rules: Rules, items: Items, row: int, slot: int) -> None:
    """Take what leaves `recent` out of the short sum; the long one keeps it, as its tally decays alike."""
    users, recents = store.users, store.recents
    item, kind = recents[slot].item, recents[slot].kind
    if items.changed_at[item] > users[row].items_revision:
        users[row].stale = True
        return
    if rules.negative[kind]:
        return
    age = users[row].sums_at - recents[slot].ts
    weight = rules.weights[kind] * math.exp2(-age / rules.half_lives_ms[SHORT])
    add(users, store.sums, items.vectors, row, SHORT, item, -weight)


@compiled
def _give_up(store: Store, rules: Rules, items: Items, row: int, place: int) -> None:
    """Take a dropped tally out of the long sum."""
    users, tallies = store.users, store.tallies
    item = tallies[place].item
    if items.changed_at[item] > users[row].items_revision:
        users[row].stale = True
        return
    age = users[row].sums_at - tallies[place].ts
    weight = tallies[place].mass * math.exp2(-age / rules.half_lives_ms[LONG])
    add(users, store.sums, items.vectors, row, LONG, item, -weight)


@compiled
def _take_block(arena: Arena, slots: Records, least: int) -> tuple[int, int]:
    """Return (first slot, size class) of a block of at least so many slots; the caller made sure there is room."""
    size_class = 0
    while arena.sizes[size_class] < least:
        size_class += 1
    first = arena.free[size_class]
    if first == NO_BLOCK:
        first = arena.top[0]
        arena.top[0] += arena.sizes[size_class]
    else:
        arena.free[size_class] = slots[first].ts
    return first, size_class


@compiled
def _give_block(arena: Arena, slots: Records, first: int, size_class: int) -> None:
    slots[first].ts = arena.free[size_class]
    arena.free[size_class] = first


@compiled
def move_recent(users: Records, recents: Records, arena: Arena, row: int, least: int) -> None:
    """Give a user a block for at least so many interactions, and what it had before to others."""
    first, size_class = _take_block(arena, recents, least)
    old, used = users[row].recent_at, users[row].recent_n
    for place in range(used):
        recents[first + place] = recents[old + place]
    if users[row].recent_class != NO_BLOCK:
        _give_block(arena, recents, old, users[row].recent_class)
    users[row].recent_at = first
    users[row].recent_class = size_class


@compiled
def move_tallies(users: Records, tallies: Records, arena: Arena, row: int, least: int) -> None:
    """Give a user a block for at least so many tallies, and what it had before to others."""
    first, size_class = _take_block(arena, tallies, least)
    old, used = users[row].tally_at, users[row].tally_n
    for place in range(used):
        tallies[first + place] = tallies[old + place]
    if users[row].tally_class != NO_BLOCK:
        _give_block(arena, tallies, old, users[row].tally_class)
    users[row].tally_at = first
    users[row].tally_class = size_class


@compiled
def release(store: Store, row: int) -> None:
    """Empty a user's row and give its blocks back."""
    users = store.users
    if users[row].recent_class != NO_BLOCK:
        _give_block(store.recent_arena, store.recents, users[row].recent_at, users[row].recent_class)
    if users[row].tally_class != NO_BLOCK:
        _give_block(store.tally_arena, store.tallies, users[row].tally_at, users[row].tally_class)
    users[row].recent_class = NO_BLOCK
    users[row].tally_class = NO_BLOCK
    users[row].recent_n = 0
    users[row].tally_n = 0
    users[row].floor_ts = 0
    users[row].floor_hash = 0
    users[row].first_ts = 0
    users[row].changed = False
    users[row].owed = False
    users[row].sums_at = 0
    users[row].folds = 0
    users[row].stale = False
    for kind in range(TYPES):
        users[row].counts[kind] = 0
    for part in (SHORT, LONG):
        users[row].peak[part] = 0.0
    store.sums[row, :, :] = 0.0
