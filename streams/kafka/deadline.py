"""One monotonic deadline handed down a path, so that the sum of its steps is bounded, not each step."""

from __future__ import annotations

import time
from collections.abc import Callable


class Deadline:
    """
    A moment by which everything must be over.

    >>> Deadline(2.0, clock=lambda: 100.0).remaining_s()
    2.0
    """

    __slots__ = ("_at", "_clock")

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock() + seconds

    def remaining_s(self) -> float:
        """Seconds left, never below a millisecond: clients read 0 as "forever" or "do not even try"."""
        return max(0.001, self._at - self._clock())

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self._clock() >= self._at
