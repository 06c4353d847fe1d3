"""
The fold over one user's events and the bytes of the record, in plain Python: the judge of the compiled code.

`streams.interests.fold` states the rules and when they do not depend on order; this says the same one event at a time,
on lists and dicts.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Literal

from models.segments import device_code
from streams.interests.codec import encode_head, encode_margin
from streams.interests.columns import RECENT_MAX, RECENT_MIN, TALLIES_AFTER_PRUNE, TALLIES_MAX
from streams.interests.margin import Margin
from streams.interests.state import EXCLUDING_TYPES, NEGATIVE_TYPES, Interaction, Tally, UserState
from streams.settings import EVENT_TYPES, Settings
from streams.wire.events import IMPRESSION, Event

Outcome = Literal["applied", "duplicate", "late"]


class Reference:
    """Users by plain loops."""

    def __init__(self, settings: Settings) -> None:
        self._lateness_ms = round(settings.lateness_s * 1000)
        self._half_life_ms = settings.half_life_long_s * 1000
        self._weights = tuple(
            0.0 if code in NEGATIVE_TYPES else settings.weights.get(name, 0.0) for code, name in enumerate(EVENT_TYPES)
        )
        self._devices = settings.user_devices
        self.users: dict[str, UserState] = {}
        #: The greatest interaction of each user so far, and its device.
        self._newest: dict[str, tuple[Interaction, int]] = {}
        self._margins: dict[str, Margin] = {}

    def fold(self, events: Iterable[Event]) -> list[Outcome]:
        """Apply events one by one, as they come."""
        return [self._apply(event) for event in events]

    def bodies(self) -> dict[str, bytes]:
        """Return the body of every user's record."""
        return {user_id: body_of(state) for user_id, state in self.users.items()}

    def _apply(self, event: Event) -> Outcome:
        state = self.users.setdefault(event.user_id, UserState())
        margin = self._margins.setdefault(event.user_id, Margin())
        if event.type_code == IMPRESSION:
            outcome, _ = margin.impress(event.ts_ms, event.event_hash, event.items, self._lateness_ms)
            if outcome == "applied":
                _count(state, IMPRESSION, event.ts_ms)
        else:
            if event.type_code in EXCLUDING_TYPES:
                margin.exclude(event.item_id, event.ts_ms)
            interaction = Interaction(event.ts_ms, event.event_hash, event.item_id, event.type_code)
            outcome = self._interact(state, interaction)
            told = interaction, device_code(event.device, self._devices)
            self._newest[event.user_id] = newest = max(self._newest.get(event.user_id, told), told)
            state.device = newest[1]
        state.excluded, state.impressions = margin.excluded, margin.impressions
        state.seen, state.seen_floor = margin.seen, margin.seen_floor
        return outcome

    def _interact(self, state: UserState, interaction: Interaction) -> Outcome:
        recent = state.recent
        if any(known.event_hash == interaction.event_hash for known in recent):
            return self._join_copy(state, interaction)
        if interaction[:2] <= state.floor:
            return "late"
        insort(recent, interaction)
        _count(state, interaction.type_code, interaction.ts_ms)
        self._trim(state)
        return "applied"

    def _join_copy(self, state: UserState, interaction: Interaction) -> Outcome:
        recent = state.recent
        at = bisect_left(recent, interaction)
        if at < len(recent) and recent[at] == interaction:
            return "duplicate"
        state.first_ts_ms = min(state.first_ts_ms, interaction.ts_ms)
        old = next(known for known in recent if known.event_hash == interaction.event_hash)
        if interaction > old:
            recent.remove(old)
            insort(recent, interaction)
            self._trim(state)
        return "duplicate"

    def _trim(self, state: UserState) -> None:
        recent = state.recent
        while len(recent) > RECENT_MIN and (
            recent[0].ts_ms < recent[-1].ts_ms - self._lateness_ms or len(recent) > RECENT_MAX
        ):  # fmt: skip
            oldest = recent.pop(0)
            state.floor = oldest[:2]
            self._tally(state, oldest)

    def _tally(self, state: UserState, interaction: Interaction) -> None:
        ts_ms, _, item_id, type_code = interaction
        known = state.items.get(item_id, Tally((0,) * len(EVENT_TYPES), ts_ms, 0.0))
        counts = list(known.counts)
        counts[type_code] += 1
        mass = known.mass * math.exp2((known.last_ts_ms - ts_ms) / self._half_life_ms)
        state.items[item_id] = Tally(tuple(counts), ts_ms, mass + self._weights[type_code])
        if len(state.items) > TALLIES_MAX:
            self._prune(state, ts_ms)

    def _prune(self, state: UserState, now_ms: int) -> None:
        def mass_now(item_id: str) -> tuple[float, str]:
            tally = state.items[item_id]
            return tally.mass * math.exp2((tally.last_ts_ms - now_ms) / self._half_life_ms), item_id

        for lightest in sorted(state.items, key=mass_now)[: len(state.items) - TALLIES_AFTER_PRUNE]:
            del state.items[lightest]


def _count(state: UserState, type_code: int, ts_ms: int) -> None:
    state.counts[type_code] += 1
    if ts_ms < state.first_ts_ms or not state.first_ts_ms:
        state.first_ts_ms = ts_ms


def body_of(state: UserState) -> bytes:
    """Return the body of a state's record, as `streams.interests.codec` describes it."""
    recent = state.recent
    at: dict[str, int] = {}
    for item_id in (*(interaction.item_id for interaction in recent), *state.items):
        at.setdefault(item_id, len(at))
    fixed = struct.pack(
        "<qqqQq6I4H",
        state.first_ts_ms, state.newest_ts_ms, *state.floor, state.erased_at_ms, *state.counts,
        len(recent), len(state.items), len(at), state.device,
    )  # fmt: skip
    parts = [fixed]
    parts += [bytes([len(item_id.encode())]) + item_id.encode() for item_id in at]
    before = state.first_ts_ms
    for interaction in recent:
        parts.append(_varint(interaction.ts_ms - before))
        before = interaction.ts_ms
    parts += [_varint(at[interaction.item_id]) for interaction in recent]
    parts += [bytes([interaction.type_code]) for interaction in recent]
    parts += [struct.pack("<Q", interaction.event_hash) for interaction in recent]
    for item_id, tally in state.items.items():
        parts += [_varint(at[item_id]), _varint(tally.last_ts_ms - state.first_ts_ms)]
        parts += map(_varint, tally.counts)
    parts += [struct.pack("<d", tally.mass) for tally in state.items.values()]
    parts.append(encode_margin(state.excluded, state.seen_floor, state.seen, state.impressions))
    return b"".join(parts)


def head_of(state: UserState) -> bytes:
    """Return the head of a state's record."""
    return encode_head(state.last_list)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
