"""Popularity is a function of the set of events; its record gives it back bit by bit."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.decay import KEPT_EPOCHS, epoch_share
from models.segments import Split
from streams.signals.codec import decode_signal_state, encode_signal_state
from streams.signals.popularity import Popularity

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000
_SPLIT = Split(3, ("phone",))
# Up to 60 half-lives apart, so that epochs are dropped in every order.
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 60 * DAY_MS), st.sampled_from([0.5, 1.0, 3.0, 5.0]), st.sampled_from([0, 1, 255])
    ),
    min_size=1, max_size=30,
)  # fmt: skip
Event = tuple[int, float, int]


def count(popularity: Popularity, *events: Event) -> None:
    """Count events (age in ms, weight, device) of row 0 in one batch."""
    ts_ms = np.array([START_MS + age_ms for age_ms, _, _ in events], np.int64)
    weights = np.array([weight for _, weight, _ in events])
    devices = np.array([device for _, _, device in events], np.uint8)
    popularity.add(np.zeros(len(events), np.int64), ts_ms, weights, devices)


# Compiled here, before Hypothesis looks at the clock.
count(Popularity(1.0), (0, 1.0, 0))


def counted(events: list[Event]) -> Popularity:
    """Count events of one item with half-lives of a day and of six hours, in each third of the day and by device."""
    popularity = Popularity(86_400.0, 21_600.0, _SPLIT)
    count(popularity, *events)
    return popularity


@given(EVENTS, st.integers(0, 2**32 - 1))
def test_order_does_not_matter(events: list[Event], seed: int) -> None:
    """Any order gives the same record bytes, dropped epochs included."""
    shuffled = list(events)
    random.Random(seed).shuffle(shuffled)
    expected = encode_signal_state(counted(events).state(0))
    assert expected == encode_signal_state(counted(shuffled).state(0))


@given(EVENTS, EVENTS)
def test_a_restored_state_goes_on_as_if_never_stopped(before: list[Event], after: list[Event]) -> None:
    """Stop, store, restore and go on gives what going on without a stop gives."""
    restored = Popularity(86_400.0, 21_600.0, _SPLIT)
    restored.restore(0, decode_signal_state(encode_signal_state(counted(before).state(0))))
    count(restored, *after)

    assert counted(before + after).state(0) == restored.state(0)


@given(EVENTS)
def test_sums_are_those_of_plain_loops(events: list[Event]) -> None:
    """Every share is that of `epoch_share`, bit by bit, and epochs far behind the newest are dropped."""
    sums: defaultdict[int, int] = defaultdict(int)
    for age_ms, weight, _ in events:
        epoch, share = epoch_share(START_MS + age_ms, weight, 86_400.0)
        sums[epoch] += share
    expected = {epoch: share for epoch, share in sums.items() if epoch > max(sums) - KEPT_EPOCHS}

    assert expected == counted(events).state(0).long


@given(EVENTS)
def test_segments_are_items_of_their_own(events: list[Event]) -> None:
    """What is told of a segment is what would be told of all with nothing but the events in it."""
    segments = [(part, device) for part in range(3) for device in (0, 1, 255)]
    for segment, sums in zip(segments, counted(events).state(0).in_segments, strict=True):
        inside = [event for event in events if ((START_MS + event[0]) % DAY_MS // 28_800_000, event[2]) == segment]
        assert sums == (counted(inside).state(0).long if inside else {})


@given(EVENTS)
def test_states_are_bounded(events: list[Event]) -> None:
    """No more epochs are kept than matter, however far apart the events lie."""
    state = counted(events).state(0)
    assert max(map(len, (state.long, state.short, *state.in_segments))) <= 24
    assert state.events == len(events)
