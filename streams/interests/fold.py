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
    Recents,
    Tallies,
    UInt8,
    UInt64,
    Users,
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

    users: Users
    recents: Recents
    recent_arena: Arena
    tallies: Tallies
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
            store.recent_arena.top[0] + largest_recent > len(store.recents.ts)
            or store.tally_arena.top[0] + largest_tally > len(store.tallies.ts)
        ):  # fmt: skip
            return at
        outcome[at] = _interact(store, rules, items, batch, at, previous[at])
    return len(batch.rows)


@compiled
def _interact(store: Store, rules: Rules, items: Items, batch: Batch, at: int, previous: Int32) -> int:
    """Join one interaction."""
    users, recents = store.users, store.recents
    row, ts, event_hash = batch.rows[at], batch.ts[at], batch.event_hash[at]
    first, used = users.recent_at[row], users.recent_n[row]
    for slot in range(first, first + used):
        if recents.event_hash[slot] == event_hash:
            return _join_copy(store, rules, items, batch, at, slot)
    if ts < users.floor_ts[row] or (ts == users.floor_ts[row] and event_hash <= users.floor_hash[row]):
        return LATE
    slot = _insert(store, row, ts, event_hash, batch.item[at], batch.kind[at])
    _note_previous(store, rules, row, slot, previous)
    users.counts[row, batch.kind[at]] += 1
    if users.first_ts[row] == 0 or ts < users.first_ts[row]:
        users.first_ts[row] = ts
    if not users.stale[row]:
        _follow(store, rules, items, row, ts, batch.item[at], batch.kind[at])
    _trim(store, rules, items, row)
    return APPLIED


@compiled
def _insert(store: Store, row: int, ts: int, event_hash: int, item: int, kind: int) -> int:
    """Put an interaction in its place; return its slot."""
    users, recents = store.users, store.recents
    used = users.recent_n[row]
    if users.recent_class[row] == NO_BLOCK or used == store.recent_arena.sizes[users.recent_class[row]]:
        move_recent(users, recents, store.recent_arena, row, used + 1)
    first = users.recent_at[row]
    slot = first + used
    while slot > first and (
        recents.ts[slot - 1] > ts or (recents.ts[slot - 1] == ts and recents.event_hash[slot - 1] > event_hash)
    ):
        recents.ts[slot] = recents.ts[slot - 1]
        recents.event_hash[slot] = recents.event_hash[slot - 1]
        recents.item[slot] = recents.item[slot - 1]
        recents.kind[slot] = recents.kind[slot - 1]
        slot -= 1
    recents.ts[slot] = ts
    recents.event_hash[slot] = event_hash
    recents.item[slot] = item
    recents.kind[slot] = kind
    users.recent_n[row] = used + 1
    return int(slot)


@compiled
def _note_previous(store: Store, rules: Rules, row: int, slot: int, previous: Int32) -> None:
    recents = store.recents
    first = store.users.recent_at[row]
    for place in range(PREVIOUS):
        before = slot - 1 - place
        if before < first or recents.ts[before + 1] - recents.ts[before] > rules.session_gap_ms:
            return
        previous[place] = recents.item[before]


@compiled
def _join_copy(store: Store, rules: Rules, items: Items, batch: Batch, at: int, slot: int) -> int:
    """Let the newest of several copies stand: once it has left, the floor holds off all of them."""
    users, recents = store.users, store.recents
    row, ts, item = batch.rows[at], batch.ts[at], batch.item[at]
    if recents.ts[slot] == ts and recents.item[slot] == item and recents.kind[slot] == batch.kind[at]:
        return DUPLICATE
    users.first_ts[row] = min(users.first_ts[row], ts)
    users.stale[row] = True
    newer = ts > recents.ts[slot]
    if ts == recents.ts[slot]:
        newer = _sorts_after(items.names, item, recents.item[slot])
    if newer:
        last = users.recent_at[row] + users.recent_n[row] - 1
        for later in range(slot, last):
            recents.ts[later] = recents.ts[later + 1]
            recents.event_hash[later] = recents.event_hash[later + 1]
            recents.item[later] = recents.item[later + 1]
            recents.kind[later] = recents.kind[later + 1]
        users.recent_n[row] -= 1
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
    used = users.recent_n[row]
    excess = used - RECENT_MIN
    if excess <= 0:
        return
    first = users.recent_at[row]
    oldest_kept = recents.ts[first + used - 1] - rules.lateness_ms
    leaving = 0
    while leaving < excess and (recents.ts[first + leaving] < oldest_kept or used - leaving > RECENT_MAX):
        _tally(store, rules, items, row, first + leaving)
        leaving += 1
    if leaving == 0:
        return
    users.floor_ts[row] = recents.ts[first + leaving - 1]
    users.floor_hash[row] = recents.event_hash[first + leaving - 1]
    kept = used - leaving
    for slot in range(first, first + kept):
        recents.ts[slot] = recents.ts[slot + leaving]
        recents.event_hash[slot] = recents.event_hash[slot + leaving]
        recents.item[slot] = recents.item[slot + leaving]
        recents.kind[slot] = recents.kind[slot + leaving]
    users.recent_n[row] = kept


@compiled
def _tally(store: Store, rules: Rules, items: Items, row: int, slot: int) -> None:
    """Fold an interaction that leaves `recent` into its item's tally."""
    users, recents, tallies = store.users, store.recents, store.tallies
    item, ts, kind = recents.item[slot], recents.ts[slot], recents.kind[slot]
    if not users.stale[row]:
        _unfollow(store, rules, items, row, slot)
    weight = 0.0 if rules.negative[kind] else rules.weights[kind]
    first, used = users.tally_at[row], users.tally_n[row]
    for place in range(first, first + used):
        if tallies.item[place] == item:
            aged = math.exp2((tallies.ts[place] - ts) / rules.half_lives_ms[LONG])
            tallies.mass[place] = tallies.mass[place] * aged + weight
            tallies.ts[place] = ts
            tallies.counts[place, kind] += 1
            return
    if users.tally_class[row] == NO_BLOCK or used == store.tally_arena.sizes[users.tally_class[row]]:
        move_tallies(users, tallies, store.tally_arena, row, used + 1)
        first = users.tally_at[row]
    place = first + used
    tallies.item[place] = item
    tallies.ts[place] = ts
    tallies.mass[place] = weight
    tallies.counts[place, :] = 0
    tallies.counts[place, kind] = 1
    users.tally_n[row] = used + 1
    if used + 1 > TALLIES_MAX:
        _prune(store, rules, items, row, ts)


@compiled
def _prune(store: Store, rules: Rules, items: Items, row: int, now: int) -> None:
    """Give up the lightest tallies as of `now`, ties by the smaller id; the others keep their order."""
    users, tallies = store.users, store.tallies
    first, used = users.tally_at[row], users.tally_n[row]
    mass = np.empty(used, np.float64)
    for place in range(used):
        mass[place] = tallies.mass[first + place] * math.exp2(
            (tallies.ts[first + place] - now) / rules.half_lives_ms[LONG]
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
                    and _sorts_after(items.names, tallies.item[first + lightest], tallies.item[first + place])
                )
            ):
                lightest = place
        dropped[lightest] = True
        if not users.stale[row]:
            _give_up(store, rules, items, row, first + lightest)
    kept = first
    for place in range(used):
        if not dropped[place]:
            tallies.item[kept] = tallies.item[first + place]
            tallies.ts[kept] = tallies.ts[first + place]
            tallies.mass[kept] = tallies.mass[first + place]
            tallies.counts[kept, :] = tallies.counts[first + place, :]
            kept += 1
    users.tally_n[row] = kept - first


@compiled
def _follow(store: Store, rules: Rules, items: Items, row: int, ts: int, item: int, kind: int) -> None:
    """Let the sums take an interaction in; dislikes only move their time."""
    users = store.users
    users.folds[row] += 1
    if ts > users.sums_at[row]:
        advance(users, store.sums, rules.half_lives_ms, row, ts)
    if rules.negative[kind]:
        return
    age = users.sums_at[row] - ts
    for part in (SHORT, LONG):
        weight = rules.weights[kind] * math.exp2(-age / rules.half_lives_ms[part])
        add(users, store.sums, items.vectors, row, part, item, weight)


@compiled
def _unfollow(store: Store, rules: Rules, items: Items, row: int, slot: int) -> None:
    """Take what leaves `recent` out of the short sum; the long one keeps it, as its tally decays alike."""
    users, recents = store.users, store.recents
    item, kind = recents.item[slot], recents.kind[slot]
    if items.changed_at[item] > users.items_revision[row]:
        users.stale[row] = True
        return
    if rules.negative[kind]:
        return
    age = users.sums_at[row] - recents.ts[slot]
    weight = rules.weights[kind] * math.exp2(-age / rules.half_lives_ms[SHORT])
    add(users, store.sums, items.vectors, row, SHORT, item, -weight)


@compiled
def _give_up(store: Store, rules: Rules, items: Items, row: int, place: int) -> None:
    """Take a dropped tally out of the long sum."""
    users, tallies = store.users, store.tallies
    item = tallies.item[place]
    if items.changed_at[item] > users.items_revision[row]:
        users.stale[row] = True
        return
    age = users.sums_at[row] - tallies.ts[place]
    weight = tallies.mass[place] * math.exp2(-age / rules.half_lives_ms[LONG])
    add(users, store.sums, items.vectors, row, LONG, item, -weight)


@compiled
def _take_block(arena: Arena, times: Int64, least: int) -> tuple[int, int]:
    """Return (first slot, size class) of a block of at least so many slots; the caller made sure there is room."""
    size_class = 0
    while arena.sizes[size_class] < least:
        size_class += 1
    first = arena.free[size_class]
    if first == NO_BLOCK:
        first = arena.top[0]
        arena.top[0] += arena.sizes[size_class]
    else:
        arena.free[size_class] = times[first]
    return first, size_class


@compiled
def _give_block(arena: Arena, times: Int64, first: int, size_class: int) -> None:
    times[first] = arena.free[size_class]
    arena.free[size_class] = first


@compiled
def move_recent(users: Users, recents: Recents, arena: Arena, row: int, least: int) -> None:
    """Give a user a block for at least so many interactions, and what it had before to others."""
    first, size_class = _take_block(arena, recents.ts, least)
    old, used = users.recent_at[row], users.recent_n[row]
    for place in range(used):
        recents.ts[first + place] = recents.ts[old + place]
        recents.event_hash[first + place] = recents.event_hash[old + place]
        recents.item[first + place] = recents.item[old + place]
        recents.kind[first + place] = recents.kind[old + place]
    if users.recent_class[row] != NO_BLOCK:
        _give_block(arena, recents.ts, old, users.recent_class[row])
    users.recent_at[row] = first
    users.recent_class[row] = size_class


@compiled
def move_tallies(users: Users, tallies: Tallies, arena: Arena, row: int, least: int) -> None:
    """Give a user a block for at least so many tallies, and what it had before to others."""
    first, size_class = _take_block(arena, tallies.ts, least)
    old, used = users.tally_at[row], users.tally_n[row]
    for place in range(used):
        tallies.item[first + place] = tallies.item[old + place]
        tallies.ts[first + place] = tallies.ts[old + place]
        tallies.mass[first + place] = tallies.mass[old + place]
        tallies.counts[first + place, :] = tallies.counts[old + place, :]
    if users.tally_class[row] != NO_BLOCK:
        _give_block(arena, tallies.ts, old, users.tally_class[row])
    users.tally_at[row] = first
    users.tally_class[row] = size_class


@compiled
def release(store: Store, row: int) -> None:
    """Empty a user's row and give its blocks back."""
    users = store.users
    if users.recent_class[row] != NO_BLOCK:
        _give_block(store.recent_arena, store.recents.ts, users.recent_at[row], users.recent_class[row])
    if users.tally_class[row] != NO_BLOCK:
        _give_block(store.tally_arena, store.tallies.ts, users.tally_at[row], users.tally_class[row])
    users.recent_class[row] = NO_BLOCK
    users.tally_class[row] = NO_BLOCK
    users.recent_n[row] = 0
    users.tally_n[row] = 0
    users.floor_ts[row] = 0
    users.floor_hash[row] = 0
    users.first_ts[row] = 0
    users.changed[row] = False
    users.owed[row] = False
    users.sums_at[row] = 0
    users.folds[row] = 0
    users.stale[row] = False
    for kind in range(TYPES):
        users.counts[row, kind] = 0
    for part in (SHORT, LONG):
        users.peak[row, part] = 0.0
    store.sums[row, :, :] = 0.0
