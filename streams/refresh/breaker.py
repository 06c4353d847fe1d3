"""A circuit breaker: after some failures in a row a dependency is left alone for a while."""

from __future__ import annotations

from collections.abc import Callable


class Breaker:
    """
    Opens after `threshold` failures in a row, for `first_s`, then twice as long each time, up to `longest_s`.

    When the time is over one attempt is let through; it closes the breaker or opens it again.

    >>> now = 0.0
    >>> breaker = Breaker(lambda: now)
    >>> for _ in range(3):
    ...     breaker.failed()
    >>> breaker.closed
    False
    >>> now = 1.0
    >>> breaker.closed
    True
    """

    def __init__(
        self, clock: Callable[[], float], *, threshold: int = 3, first_s: float = 1.0, longest_s: float = 30.0
    ) -> None:
        self._clock = clock
        self._threshold = threshold
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0
        self._wait_s = first_s
        self._open_until = 0.0

    @property
    def closed(self) -> bool:
        """Whether the dependency may be tried."""
        return self._failures < self._threshold or self._clock() >= self._open_until

    def succeeded(self) -> None:
        """Note that it answered."""
        self._failures = 0
        self._wait_s = self._first_s

    def failed(self) -> None:
        """Note that it did not."""
        self._failures += 1
        if self._failures >= self._threshold:
            self._open_until = self._clock() + self._wait_s
            self._wait_s = min(2 * self._wait_s, self._longest_s)
