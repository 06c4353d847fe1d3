"""The circuit breaker: when it opens, for how long, what closes it."""

from __future__ import annotations

from streams.refresh.breaker import Breaker


class Clock:
    """A clock set by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        """Return the time, s."""
        return self.now_s


def test_it_opens_after_three_failures_in_a_row() -> None:
    """A success in between counts from the start again."""
    breaker = Breaker(Clock())
    breaker.failed()
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    breaker.failed()
    assert breaker.closed
    breaker.failed()
    assert not breaker.closed


def test_it_stays_open_longer_each_time_up_to_a_limit() -> None:
    """1, 2, 4, 8, 16, 30, 30 seconds; one attempt is let through after each."""
    clock = Clock()
    breaker = Breaker(clock)
    breaker.failed()
    breaker.failed()
    for open_s in (1, 2, 4, 8, 16, 30, 30):
        breaker.failed()
        clock.now_s += open_s - 0.001
        assert not breaker.closed
        clock.now_s += 0.001
        assert breaker.closed


def test_a_success_closes_it_for_good() -> None:
    """The next opening is short again."""
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(5):
        breaker.failed()
    breaker.succeeded()
    for _ in range(3):
        breaker.failed()
    clock.now_s += 1.0
    assert breaker.closed
