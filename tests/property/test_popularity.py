"""Popularity is a function of the set of events; its record gives it back bit by bit."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from streams.signals.codec import decode_signal_state, encode_signal_state
from streams.signals.popularity import Popularity

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000
# Up to 60 half-lives apart, so that epochs are dropped in every order.
EVENTS = st.lists(
    st.tuples(st.integers(0, 60 * DAY_MS), st.sampled_from([0.5, 1.0, 3.0, 5.0])), min_size=1, max_size=30
)


def counted(events: list[tuple[int, float]]) -> Popularity:
    """Count events of one item with half-lives of a day and of six hours."""
    popularity = Popularity(86_400.0, 21_600.0)
    for age_ms, weight in events:
        popularity.add("i", START_MS + age_ms, weight)
    return popularity


@given(EVENTS, st.integers(0, 2**32 - 1))
def test_order_does_not_matter(events: list[tuple[int, float]], seed: int) -> None:
    """Any order gives the same record bytes, dropped epochs included."""
    shuffled = list(events)
    random.Random(seed).shuffle(shuffled)
    expected = encode_signal_state(counted(events).state("i"))
    assert expected == encode_signal_state(counted(shuffled).state("i"))


@given(EVENTS, EVENTS)
def test_a_restored_state_goes_on_as_if_never_stopped(
    before: list[tuple[int, float]], after: list[tuple[int, float]]
) -> None:
    """Stop, store, restore and go on gives what going on without a stop gives."""
    restored = Popularity(86_400.0, 21_600.0)
    restored.restore("i", decode_signal_state(encode_signal_state(counted(before).state("i"))))
    for age_ms, weight in after:
        restored.add("i", START_MS + age_ms, weight)
    assert counted(before + after).signals("i") == restored.signals("i")


@given(EVENTS)
def test_states_are_bounded(events: list[tuple[int, float]]) -> None:
    """No more epochs are kept than matter, however far apart the events lie."""
    state = counted(events).state("i")
    assert max(len(state.long), len(state.short)) <= 24
    assert state.events == len(events)
