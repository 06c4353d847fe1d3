"""
How one event changes a user's columns, so that arrival order, duplicates and batching do not matter; compiled.

`recent` is a join: the union of all interactions seen, cut to its newest end. Cutting never brings back what an
earlier cut left out, so any order of the same events gives the same `recent`; what leaves does so in (time, hash)
order, so the tallies are a fold over one fixed sequence. The user's device is that of the greatest (time, hash, id of
the item, code of the device) of all interactions seen.

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
from typing import Final

from models.compiled import compiled
from streams.catalogue.ids import ItemNames
from streams.interests.arenas import make_room, move_tallies
from streams.interests.columns import (
    NO_BLOCK,
    RECENT_MAX,
    RECENT_MIN,
    TALLIES_AFTER_PRUNE,
    TALLIES_MAX,
    Batch,
    Int32,
    Items,
    Rules,
    Store,
    UInt8,
)
from streams.interests.sums import LONG, SHORT, add, follow

#: What became of an event: nothing new; joined; too old to be placed; a newer copy of a known one took its place.
DUPLICATE: Final = 0
APPLIED: Final = 1
LATE: Final = 2
REPLACED: Final = 3


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
        (n, k) out: item rows met just before an applied event, newest first, -1 where none.

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
    users = store.users
    row, ts, event_hash = batch.rows[at], batch.ts[at], batch.event_hash[at]
    first, used = users[row].recent_at, users[row].recent_n
    for slot in range(first, first + used):
        if store.hashes[slot] == event_hash:
            return _join_copy(store, rules, items, batch, at, slot)
    if ts < users[row].floor_ts or (ts == users[row].floor_ts and event_hash <= users[row].floor_hash):
        return LATE
    slot = _insert(store, row, ts, event_hash, batch.item[at], batch.kind[at], batch.device[at])
    _note_previous(store, rules, row, slot, previous)
    users[row].counts[batch.kind[at]] += 1
    if users[row].first_ts == 0 or ts < users[row].first_ts:
        users[row].first_ts = ts
    if not users[row].stale:
        users[row].folds += 1
        follow(users, store.sums, items, rules, row, ts, batch.item[at], batch.kind[at])
    _trim(store, rules, items, row)
    return APPLIED


@compiled
def _insert(store: Store, row: int, ts: int, event_hash: int, item: int, kind: int, device: int) -> int:
    """Put an interaction in its place; return its slot. The user's device is that of the newest one."""
    users, recents = store.users, store.recents
    hashes = store.hashes
    used = users[row].recent_n
    make_room(store, row)
    first = users[row].recent_at
    slot = first + used
    while slot > first and recents[slot - 1].ts >= ts:
        if recents[slot - 1].ts == ts and hashes[slot - 1] < event_hash:
            break
        recents[slot] = recents[slot - 1]
        hashes[slot] = hashes[slot - 1]
        slot -= 1
    recents[slot].ts = ts
    hashes[slot] = event_hash
    recents[slot].item = item
    recents[slot].kind = kind
    users[row].recent_n = used + 1
    if slot == first + used:
        users[row].device = device
    return int(slot)


@compiled
def _note_previous(store: Store, rules: Rules, row: int, slot: int, previous: Int32) -> None:
    recents = store.recents
    first = store.users[row].recent_at
    for place in range(len(previous)):
        before = slot - 1 - place
        if before < first or recents[before + 1].ts - recents[before].ts > rules.session_gap_ms:
            return
        previous[place] = recents[before].item


@compiled
def _join_copy(store: Store, rules: Rules, items: Items, batch: Batch, at: int, slot: int) -> int:
    """Let the newest of several copies stand: once it has left, the floor holds off all of them."""
    users, recents = store.users, store.recents
    row, ts, item = batch.rows[at], batch.ts[at], batch.item[at]
    last = users[row].recent_at + users[row].recent_n - 1
    if recents[slot].ts == ts and recents[slot].item == item and recents[slot].kind == batch.kind[at]:
        if slot < last or batch.device[at] <= users[row].device:
            return DUPLICATE
        users[row].device = batch.device[at]
        return REPLACED
    users[row].first_ts = min(users[row].first_ts, ts)
    users[row].stale = True
    newer = ts > recents[slot].ts
    if ts == recents[slot].ts:
        newer = _sorts_after(items.names, item, recents[slot].item)
    if newer:
        for later in range(slot, last):
            recents[later] = recents[later + 1]
            store.hashes[later] = store.hashes[later + 1]
        users[row].recent_n -= 1
        _insert(store, row, ts, batch.event_hash[at], item, batch.kind[at], batch.device[at])
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
    users[row].floor_hash = store.hashes[first + leaving - 1]
    users[row].recent_at = first + leaving
    users[row].recent_n = used - leaving


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
        if store.tally_items[place] == item:
            aged = math.exp2((tallies[place].ts - ts) / rules.half_lives_ms[LONG])
            tallies[place].mass = tallies[place].mass * aged + weight
            tallies[place].ts = ts
            tallies[place].counts[kind] += 1
            return
    if users[row].tally_class == NO_BLOCK or used == store.tally_arena.sizes[users[row].tally_class]:
        move_tallies(store, row, used + 1)
        first = users[row].tally_at
    place = first + used
    store.tally_items[place] = item
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
    mass, dropped = store.scratch.mass, store.scratch.dropped
    for place in range(used):
        mass[place] = tallies[first + place].mass * math.exp2(
            (tallies[first + place].ts - now) / rules.half_lives_ms[LONG]
        )
    dropped[:used] = False
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
                    and _sorts_after(items.names, store.tally_items[first + lightest], store.tally_items[first + place])
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
            store.tally_items[kept] = store.tally_items[first + place]
            kept += 1
    users[row].tally_n = kept - first


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
    item = store.tally_items[place]
    if items.changed_at[item] > users[row].items_revision:
        users[row].stale = True
        return
    age = users[row].sums_at - tallies[place].ts
    weight = tallies[place].mass * math.exp2(-age / rules.half_lives_ms[LONG])
    add(users, store.sums, items.vectors, row, LONG, item, -weight)
