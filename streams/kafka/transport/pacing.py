"""When the next fetch may be asked for: at once on a quiet topic, after a short pause while records trickle in."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: An answer of so many bytes says that a topic is being caught up with: then nothing waits.
_FULL_BYTES: Final = 65_536


class Pace:
    """
    The pace of one fetcher.

    Kafka answers a fetch with the first record there is. At a thousand records a second that is a thousand answers
    with one record each, and what an answer costs, in the broker and here, is many times what its record does. So the
    fetch after an answer with few records waits a little, and brings the records of that time together; a record that
    comes alone waits for nothing, because the fetch before it is long under way.

    >>> pace = Pace(0.005, clock=lambda: 7.0)
    >>> pace.asks()
    >>> pace.bytes_read += 100
    >>> pace.answered()
    >>> round(pace.wait_s(), 3)
    0.005

    Attributes
    ----------
    bytes_read
        Bytes of records that came since a fetch was asked for last.

    """

    def __init__(self, pause_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_read = 0
        self._pause_s = pause_s
        self._clock = clock
        self._not_before_s = 0.0

    def wait_s(self) -> float:
        """Return how long to wait before the next fetch is asked for."""
        return max(0.0, self._not_before_s - self._clock())

    def asks(self) -> None:
        """Note that a fetch is asked for."""
        self.bytes_read = 0

    def answered(self) -> None:
        """Note that it was answered."""
        if 0 < self.bytes_read < _FULL_BYTES:
            self._not_before_s = self._clock() + self._pause_s
