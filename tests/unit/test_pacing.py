"""Fetching at a pace: records that trickle in are gathered, from few partitions; whatever else is fetched at once."""

from __future__ import annotations

import pytest

from streams.kafka.transport.pacing import Pace

PAUSE_S = 0.005
CLICKS, VIEWS = ("clicks", 0), ("views", 0)


@pytest.mark.parametrize(
    ("answer_bytes", "expected_s"),
    [pytest.param(0, 0.0, id="empty"), pytest.param(1, PAUSE_S, id="few"), pytest.param(10**6, 0.0, id="full")],
)
def test_what_an_answer_says_of_the_next_fetch(answer_bytes: int, expected_s: float) -> None:
    """An answer with few records has the next fetch wait; one without any, or a full one, does not."""
    pace = Pace(PAUSE_S, lambda: 0.0)
    pace.asks([CLICKS])
    pace.brought(CLICKS, answer_bytes)
    pace.answered()
    assert expected_s == pace.wait_s()


def test_time_since_the_answer_counts() -> None:
    """A fetch that is asked for later waits for the rest of the pause, and after it for nothing."""
    times_s = iter((100.0, 100.0, 100.004, 100.1))
    pace = Pace(PAUSE_S, lambda: next(times_s))
    pace.asks([CLICKS])
    pace.brought(CLICKS, 1)
    pace.answered()
    assert [0.005, 0.001, 0.0] == [round(pace.wait_s(), 6) for _ in range(3)]


def test_each_answer_is_judged_by_itself() -> None:
    """What an earlier answer brought does not count with a later one."""
    pace = Pace(PAUSE_S, lambda: 0.0)
    pace.asks([CLICKS])
    pace.brought(CLICKS, 10**6)
    pace.answered()
    pace.asks([CLICKS])
    pace.brought(CLICKS, 1)
    pace.answered()
    assert PAUSE_S == pace.wait_s()


def _fetches(pace: Pace, answers: list[dict[tuple[str, int], int]]) -> list[list[tuple[str, int]] | None]:
    """Return what each fetch asked for, with such answers: bytes by partition."""
    asked = []
    for answer in answers:
        asked.append(pace.asks([CLICKS, VIEWS]))
        for partition, size in answer.items():
            pace.brought(partition, size)
        pace.answered()
    return asked


def test_narrow_fetches_between_whole_ones() -> None:
    """While records trickle in three fetches of four ask only for partitions that brought some."""
    assert [None, [CLICKS], [CLICKS], [CLICKS], None] == _fetches(Pace(PAUSE_S, lambda: 0.0), [{CLICKS: 1}] * 5)


@pytest.mark.parametrize("bytes_", [pytest.param(0, id="nothing"), pytest.param(10**6, id="much")])
def test_the_next_fetch_is_whole(bytes_: int) -> None:
    """After a narrow fetch that brought nothing, or much, all partitions are asked."""
    answers = [{CLICKS: 1}, {CLICKS: bytes_} if bytes_ else {}, {CLICKS: 1}]
    assert [None, [CLICKS], None] == _fetches(Pace(PAUSE_S, lambda: 0.0), answers)


def test_partitions_that_bring_records_are_asked() -> None:
    """A partition is asked again in narrow fetches as soon as a whole one brought its records."""
    assert [None, [CLICKS, VIEWS]] == _fetches(Pace(PAUSE_S, lambda: 0.0), [{CLICKS: 1, VIEWS: 1}, {}])


def test_partitions_long_quiet_are_left_out() -> None:
    """A partition that brought nothing in a hundred fetches is left to the whole ones."""
    asked = _fetches(Pace(PAUSE_S, lambda: 0.0), [{CLICKS: 1, VIEWS: 1}, *[{CLICKS: 1}] * 110])
    assert ([CLICKS, VIEWS], [CLICKS]) == (asked[1], asked[-1])
