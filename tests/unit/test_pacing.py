"""Fetching at a pace: records that trickle in are gathered, whatever else is fetched at once."""

from __future__ import annotations

import pytest

from streams.kafka.transport.pacing import Pace

PAUSE_S = 0.005


@pytest.mark.parametrize(
    ("answer_bytes", "expected_s"),
    [pytest.param(0, 0.0, id="empty"), pytest.param(1, PAUSE_S, id="few"), pytest.param(10**6, 0.0, id="full")],
)
def test_what_an_answer_says_of_the_next_fetch(answer_bytes: int, expected_s: float) -> None:
    """An answer with few records has the next fetch wait; one without any, or a full one, does not."""
    pace = Pace(PAUSE_S, lambda: 0.0)
    pace.asks()
    pace.bytes_read += answer_bytes
    pace.answered()
    assert expected_s == pace.wait_s()


def test_time_since_the_answer_counts() -> None:
    """A fetch that is asked for later waits for the rest of the pause, and after it for nothing."""
    times_s = iter((100.0, 100.0, 100.004, 100.1))
    pace = Pace(PAUSE_S, lambda: next(times_s))
    pace.asks()
    pace.bytes_read += 1
    pace.answered()
    assert [0.005, 0.001, 0.0] == [round(pace.wait_s(), 6) for _ in range(3)]


def test_each_answer_is_judged_by_itself() -> None:
    """What an earlier answer brought does not count with a later one."""
    pace = Pace(PAUSE_S, lambda: 0.0)
    pace.asks()
    pace.bytes_read += 10**6
    pace.answered()
    pace.asks()
    pace.bytes_read += 1
    pace.answered()
    assert PAUSE_S == pace.wait_s()
