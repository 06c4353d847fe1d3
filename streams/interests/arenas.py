"""Giving out and taking back blocks of the arenas, compiled; `columns` says what a block is."""

from __future__ import annotations

from models.compiled import compiled
from streams.interests.columns import NO_BLOCK, TYPES, Arena, Int64, Records, Store


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
def _slide(store: Store, source: int, target: int, count: int) -> None:
    """Copy interactions to a place before theirs, or to another block."""
    for place in range(count):
        store.recents[target + place] = store.recents[source + place]
        store.hashes[target + place] = store.hashes[source + place]


@compiled
def make_room(store: Store, row: int) -> None:
    """See to it that one more interaction fits behind the newest: slide to the front, or move to a larger block."""
    user = store.users[row]
    if user.recent_class == NO_BLOCK:
        move_recent(store, row, 1)
        return
    size = store.recent_arena.sizes[user.recent_class]
    if user.recent_at + user.recent_n < user.recent_block + size:
        return
    if user.recent_at > user.recent_block:
        _slide(store, user.recent_at, user.recent_block, user.recent_n)
        user.recent_at = user.recent_block
    else:
        move_recent(store, row, user.recent_n + 1)


@compiled
def move_recent(store: Store, row: int, least: int) -> None:
    """Give a user a block for at least so many interactions, and what it had before to others."""
    user = store.users[row]
    first, size_class = _take_block(store.recent_arena, store.recents, least)
    _slide(store, user.recent_at, first, user.recent_n)
    if user.recent_class != NO_BLOCK:
        _give_block(store.recent_arena, store.recents, user.recent_block, user.recent_class)
    user.recent_block = first
    user.recent_at = first
    user.recent_class = size_class


@compiled
def move_tallies(store: Store, row: int, least: int) -> None:
    """Give a user a block for at least so many tallies, and what it had before to others."""
    user = store.users[row]
    first, size_class = _take_block(store.tally_arena, store.tallies, least)
    for place in range(user.tally_n):
        store.tallies[first + place] = store.tallies[user.tally_at + place]
        store.tally_items[first + place] = store.tally_items[user.tally_at + place]
    if user.tally_class != NO_BLOCK:
        _give_block(store.tally_arena, store.tallies, user.tally_at, user.tally_class)
    user.tally_at = first
    user.tally_class = size_class


@compiled
def release(store: Store, rows: Int64) -> None:
    """Empty users' rows and give their blocks back."""
    for row in rows:
        _release(store, row)


@compiled
def _release(store: Store, row: int) -> None:
    user = store.users[row]
    if user.recent_class != NO_BLOCK:
        _give_block(store.recent_arena, store.recents, user.recent_block, user.recent_class)
    if user.tally_class != NO_BLOCK:
        _give_block(store.tally_arena, store.tallies, user.tally_at, user.tally_class)
    user.recent_class = NO_BLOCK
    user.tally_class = NO_BLOCK
    user.recent_n = 0
    user.tally_n = 0
    user.floor_ts = 0
    user.floor_hash = 0
    user.first_ts = 0
    user.changed = False
    user.owed = False
    user.sums_at = 0
    user.folds = 0
    user.stale = False
    user.device = 0
    for kind in range(TYPES):
        user.counts[kind] = 0
    for part in range(2):
        user.peak[part] = 0.0
    store.sums[row, :, :] = 0.0
