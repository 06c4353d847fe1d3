"""How much memory the users of all partitions of a worker may take together."""

from __future__ import annotations

import threading


class Budget:
    """
    Counts of one worker, shared by its slabs. Bytes are counted from the threads that restore as well.

    Attributes
    ----------
    max_hot_users
        Users in columns with their vectors; above it those met longest ago become bytes.
    max_state_bytes
        Bytes of all states; above it the users who are idle longest are forgotten.
    hot_users, state_bytes
        What there is now.

    """

    def __init__(self, max_hot_users: int, max_state_bytes: int) -> None:
        self.max_hot_users = max_hot_users
        self.max_state_bytes = max_state_bytes
        self.hot_users = 0
        self.state_bytes = 0
        self._lock = threading.Lock()

    def add_bytes(self, count: int) -> None:
        """Count bytes that came, or with a negative number went."""
        with self._lock:
            self.state_bytes += count

    @property
    def over(self) -> bool:
        """Whether states take more than they may."""
        return self.state_bytes > self.max_state_bytes
