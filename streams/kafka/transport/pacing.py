"""How often to fetch, and from where: at once and everywhere on a quiet topic, at a pace while records trickle in."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

#: An answer of so many bytes says that a topic is being caught up with: then nothing waits.
_FULL_BYTES: Final = 65_536
#: Fetches after which a partition that brought nothing is left out of narrow ones. Long against the gaps between a
#: partition's records that would be missed by then: every few fetches it is asked again.
_LATELY: Final = 100
#: Every so manieth fetch while records trickle asks all partitions: what a rare record waits for, in fetches.
_ALL_EVERY: Final = 4


class Pace:
    """
    The pace of one fetcher.

    Kafka answers a fetch with the first record there is. At a thousand records a second that is a thousand answers
    with one record each, and what an answer costs, in the broker and here, is many times what its record does. So the
    fetch after an answer with few records waits a little, and brings the records of that time together; a record that
    comes alone waits for nothing, because the fetch before it is long under way.

    An answer also costs by the partitions in it, most of them empty: a worker reads seven topics, of which few carry
    the stream. So while records trickle in most fetches are narrow: they ask only for partitions that brought records
    lately. What comes into another one meanwhile waits for the next fetch that asks all, three pauses at most.

    >>> pace = Pace(0.005, clock=lambda: 7.0)
    >>> pace.asks(["clicks-0", "views-0"])
    >>> pace.brought("clicks-0", 100)
    >>> pace.answered()
    >>> round(pace.wait_s(), 3)
    0.005
    >>> pace.asks(["clicks-0", "views-0"])
    ['clicks-0']

    """

    def __init__(self, pause_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.pause_s = pause_s
        self._clock = clock
        self._not_before_s = 0.0
        self._bytes = 0
        self._fetches = 0
        self._narrow_left = 0
        self._last_brought: dict[Any, int] = {}

    def wait_s(self) -> float:
        """Return how long to wait before the next fetch is asked for."""
        return max(0.0, self._not_before_s - self._clock())

    def asks(self, partitions: Sequence[Any]) -> list[Any] | None:
        """Note that a fetch is asked for; return which of the partitions it is to ask for, None for all."""
        self._bytes = 0
        self._fetches += 1
        if self._narrow_left == 0:
            self._narrow_left = _ALL_EVERY - 1
            return None
        self._narrow_left -= 1
        since = self._fetches - _LATELY
        return [partition for partition in partitions if self._last_brought.get(partition, -_LATELY) > since] or None

    def brought(self, partition: Any, size: int) -> None:
        """Note that so many bytes of records came from a partition; it may be told in parts."""
        self._bytes += size
        self._last_brought[partition] = self._fetches

    def answered(self) -> None:
        """Note that the fetch was answered."""
        if 0 < self._bytes < _FULL_BYTES:
            self._not_before_s = self._clock() + self.pause_s
        else:
            self._narrow_left = 0
