"""
Reading the body of a `user-state` record of version 1: MessagePack columns with one table of ids.

Its events are named by another hash than version 2's: a copy of an event that was folded before the upgrade and is
redelivered after it counts once more, unless the floor holds it off. Offsets are committed with the state, so only a
producer's own duplicates across the upgrade can do that.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import accumulate

import msgspec

from streams.interests.state import Interaction, Shown, Tally, UserState
from streams.settings import EVENT_TYPES


class _Body(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Columns. `*_at` index the id table; times are ms after `first_ts`, in ordered lists after the one before."""

    first_ts: int
    counts: list[int]
    ids: list[str]
    floor: tuple[int, int]
    recent_ts: list[int]
    recent_hash: bytes
    recent_at: list[int]
    recent_type: bytes
    item_at: list[int]
    item_ts: list[int]
    item_mass: bytes
    item_counts: list[tuple[int, ...]]
    excluded_at: list[int]
    excluded_ts: list[int]
    seen_floor: tuple[int, int]
    seen_ts: list[int]
    seen_hash: bytes
    shown_at: list[int]
    shown_ts: list[int]
    shown_times: list[int]


_DECODER = msgspec.msgpack.Decoder(_Body)


def decode_body(record: bytes) -> UserState:
    """Read a body; raises ValueError, IndexError, struct.error or msgspec's errors for anything else."""
    body = _DECODER.decode(record)
    state = UserState()
    first, ids = body.first_ts, body.ids
    state.first_ts_ms = first
    if len(body.counts) != len(EVENT_TYPES):
        raise ValueError(f"{len(body.counts)} event types, {len(EVENT_TYPES)} are known")
    state.counts = body.counts
    state.floor, state.seen_floor = body.floor, body.seen_floor

    hashes = _unpack_hashes(body.recent_hash, len(body.recent_ts))
    recent_ids = _names(ids, body.recent_at)
    if not len(recent_ids) == len(hashes) == len(body.recent_type):
        raise ValueError("the columns of the interactions do not fit")
    state.recent = list(map(Interaction, _times(first, body.recent_ts), hashes, recent_ids, body.recent_type))

    item_ids = _names(ids, body.item_at)
    masses = struct.unpack(f"<{len(item_ids)}d", body.item_mass)
    times = [first + after for after in body.item_ts]
    state.items = dict(zip(item_ids, map(Tally, body.item_counts, times, masses), strict=True))
    if {len(counts) for counts in body.item_counts} - {len(EVENT_TYPES)} or len(times) != len(body.item_counts):
        raise ValueError("the columns of the tallies do not fit")

    excluded_ts = [first + after for after in body.excluded_ts]
    state.excluded = dict(zip(_names(ids, body.excluded_at), excluded_ts, strict=True))

    seen_hashes = _unpack_hashes(body.seen_hash, len(body.seen_ts))
    state.seen = list(zip(_times(first, body.seen_ts), seen_hashes, strict=True))
    shown = zip(_names(ids, body.shown_at), body.shown_times, body.shown_ts, strict=True)
    state.impressions = {item_id: Shown(times, first + after) for item_id, times, after in shown}
    return state


def _times(first: int, steps: Iterable[int]) -> list[int]:
    times = list(accumulate(steps, initial=first))
    return times[1:]


def _names(ids: list[str], at: list[int]) -> list[str]:
    return [ids[index] for index in at]


def _unpack_hashes(column: bytes, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}Q", column)
