"""
How one event changes a user's state, so that arrival order, duplicates and batching do not matter.

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
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any, Literal

from streams.interests.state import EXCLUDING_TYPES, NEGATIVE_TYPES, Interaction, Shown, Tally, UserState
from streams.settings import EVENT_TYPES, Settings
from streams.wire.events import IMPRESSION

#: Interactions kept whatever their age: what a session model and the reasons look at.
RECENT_MIN = 64
#: Interactions kept because they lie within lateness of the newest; beyond it the user is a robot.
RECENT_MAX = 256
#: Tallies kept; when one more comes the lightest leave together, so that the sort is paid once for many events.
TALLIES_MAX = 256
TALLIES_AFTER_PRUNE = 224
EXCLUDED_MAX = 1_024
SHOWN_MAX = 64
#: Impressions remembered whatever their age; older ones are held off by `seen_floor`.
SEEN_MIN = 16
SEEN_MAX = 256

Outcome = Literal["applied", "duplicate", "late"]


class Change:
    """
    What a run of events did to one user's interactions, for sums that follow along.

    Attributes
    ----------
    revision_before
        `UserState.revision` before the run.
    entered, left
        Interactions that joined `recent`, and those that moved from it into the tallies.
    dropped
        Tallies that were given up, by item id.
    replaced
        A copy of an event with another time or item took its place: sums are to be made anew.

    """

    __slots__ = ("dropped", "entered", "left", "replaced", "revision_before")

    def __init__(self, revision_before: int) -> None:
        self.revision_before = revision_before
        self.entered: list[Interaction] = []
        self.left: list[Interaction] = []
        self.dropped: list[tuple[str, Tally]] = []
        self.replaced = False


class Folding:
    """The rules of one set of settings; holds no state."""

    def __init__(self, settings: Settings) -> None:
        self._lateness_ms = round(settings.lateness_s * 1000)
        self._half_life_ms = settings.half_life_long_s * 1000
        self._weights = tuple(
            0.0 if code in NEGATIVE_TYPES else settings.weights.get(name, 0.0) for code, name in enumerate(EVENT_TYPES)
        )

    def interact(self, state: UserState, interaction: Interaction, change: Change) -> Outcome:
        """Join one interaction; an exclusion counts however late it comes."""
        ts_ms, event_hash, item_id, type_code = interaction
        if type_code in EXCLUDING_TYPES:
            _exclude(state, item_id, ts_ms)
        recent = state.recent
        if event_hash in state.hashes:
            return self._join_copy(state, interaction, change)
        if (ts_ms, event_hash) <= state.floor:
            return "late"
        state.hashes.add(event_hash)
        if not recent or interaction > recent[-1]:
            recent.append(interaction)
        else:
            insort(recent, interaction)
        _count(state, type_code, ts_ms)
        state.revision += 1
        change.entered.append(interaction)
        if len(recent) > RECENT_MIN:
            self._trim(state, change)
        return "applied"

    def impress(self, state: UserState, ts_ms: int, event_hash: int, items: tuple[str, ...]) -> Outcome:
        """Join one rendered list: it counts what was shown and changes nothing else."""
        mark = (ts_ms, event_hash)
        seen = state.seen
        known = next((old for old in seen if old[1] == event_hash), None)
        if known is not None and mark <= known:
            return "duplicate"
        if known is None and mark <= state.seen_floor:
            return "late"
        if known is not None:
            seen.remove(known)
        insort(seen, mark)
        if leaving := self._leaving(seen, SEEN_MIN, SEEN_MAX):
            state.seen_floor = seen[leaving - 1]
            del seen[:leaving]
        _show(state, items, ts_ms, 1 if known is None else 0)
        state.revision += 1
        if known is not None:
            return "duplicate"
        _count(state, IMPRESSION, ts_ms)
        return "applied"

    def _join_copy(self, state: UserState, interaction: Interaction, change: Change) -> Outcome:
        """Let the newest of several copies stand: once it has left, the floor holds off all of them."""
        recent = state.recent
        at = bisect_left(recent, interaction)
        if at < len(recent) and recent[at] == interaction:
            return "duplicate"
        state.first_ts_ms = min(state.first_ts_ms, interaction.ts_ms)
        state.revision += 1
        old = next(known for known in recent if known.event_hash == interaction.event_hash)
        change.replaced = True
        if interaction > old:
            recent.remove(old)
            insort(recent, interaction)
            self._trim(state, change)
        return "duplicate"

    def _trim(self, state: UserState, change: Change) -> None:
        recent = state.recent
        leaving = self._leaving(recent, RECENT_MIN, RECENT_MAX)
        if not leaving:
            return
        for interaction in recent[:leaving]:
            state.hashes.discard(interaction.event_hash)
            change.left.append(interaction)
            self._tally(state, interaction, change)
        state.floor = (recent[leaving - 1].ts_ms, recent[leaving - 1].event_hash)
        del recent[:leaving]

    def _leaving(self, marks: Sequence[tuple[Any, ...]], at_least: int, at_most: int) -> int:
        """Return how many of the oldest leave: all but the newest and those within lateness, `at_most` in all."""
        excess = len(marks) - at_least
        oldest_kept_ms = marks[-1][0] - self._lateness_ms
        leaving = 0
        while leaving < excess and (marks[leaving][0] < oldest_kept_ms or len(marks) - leaving > at_most):
            leaving += 1
        return leaving

    def _tally(self, state: UserState, interaction: Interaction, change: Change) -> None:
        ts_ms, _, item_id, type_code = interaction
        known = state.items.get(item_id)
        if known is None:
            counts = [0] * len(EVENT_TYPES)
            mass = 0.0
        else:
            counts = list(known.counts)
            mass = known.mass * 2.0 ** ((known.last_ts_ms - ts_ms) / self._half_life_ms)
        counts[type_code] += 1
        state.items[item_id] = Tally(tuple(counts), ts_ms, mass + self._weights[type_code])
        if len(state.items) > TALLIES_MAX:
            self._prune(state, ts_ms, change)

    def _prune(self, state: UserState, now_ms: int, change: Change) -> None:
        def mass_now(pair: tuple[str, Tally]) -> tuple[float, str]:
            item_id, tally = pair
            return tally.mass * 2.0 ** ((tally.last_ts_ms - now_ms) / self._half_life_ms), item_id

        by_mass = sorted(state.items.items(), key=mass_now, reverse=True)
        state.items = dict(by_mass[:TALLIES_AFTER_PRUNE])
        change.dropped.extend(by_mass[TALLIES_AFTER_PRUNE:])


def _count(state: UserState, type_code: int, ts_ms: int) -> None:
    state.counts[type_code] += 1
    if ts_ms < state.first_ts_ms or not state.first_ts_ms:
        state.first_ts_ms = ts_ms


def _show(state: UserState, items: tuple[str, ...], ts_ms: int, times: int) -> None:
    shown = state.impressions
    for item_id in dict.fromkeys(items):
        before = shown.get(item_id, Shown(0, 0))
        shown[item_id] = Shown(before.times + times, max(before.last_ts_ms, ts_ms))
    if len(shown) > SHOWN_MAX:
        newest = sorted(shown.items(), key=lambda pair: (pair[1].last_ts_ms, pair[0]), reverse=True)
        state.impressions = dict(newest[:SHOWN_MAX])


def _exclude(state: UserState, item_id: str, ts_ms: int) -> None:
    excluded = state.excluded
    if ts_ms <= excluded.get(item_id, -1):
        return
    excluded[item_id] = ts_ms
    if len(excluded) > EXCLUDED_MAX:
        _, oldest = min((ts, item) for item, ts in excluded.items())
        del excluded[oldest]
        if oldest == item_id:
            return
    state.revision += 1
