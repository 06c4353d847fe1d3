"""One deadline shared by the steps of a path."""

from __future__ import annotations

from streams.kafka.deadline import Deadline


def test_remaining_time_falls_and_never_reads_as_forever() -> None:
    """Clients take 0 for "no limit" or "do not try": a passed deadline still leaves a millisecond."""
    now = [0.0]
    deadline = Deadline(5.0, lambda: now[0])
    now[0] = 4.0

    assert 1.0 == deadline.remaining_s()
    assert not deadline.passed

    now[0] = 9.0

    assert 0.001 == deadline.remaining_s()
    assert deadline.passed
