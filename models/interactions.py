"""A log of interactions as columns, and what recommends from one: baselines of an evaluation, and Freshet itself."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]


class Interactions(NamedTuple):
    """
    Interactions in time order; those of one moment in the order of the log.

    Attributes
    ----------
    users, items
        (n,) int32, dense numbers, 0 the first.
    kinds
        (n,) uint8, type codes.
    ts_ms
        (n,) int64, event times, never descending.
    sessions
        (n,) int32, dense numbers; -1 where the log names no session.
    devices
        (n,) int32, dense numbers; -1 where the log names no device.

    """

    users: Int32
    items: Int32
    kinds: UInt8
    ts_ms: Int64
    sessions: Int32
    devices: Int32

    def at(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64] | slice) -> Interactions:
        """
        Return some of the interactions.

        >>> log = Interactions(*(np.array([4, 5, 6], np.int32) for _ in range(6)))
        >>> log.at(slice(1, None)).users.tolist()
        [5, 6]
        """
        return Interactions(
            self.users[chosen], self.items[chosen], self.kinds[chosen], self.ts_ms[chosen], self.sessions[chosen],
            self.devices[chosen],
        )  # fmt: skip


class Asking(NamedTuple):
    """
    Who asks for a list, and when.

    Attributes
    ----------
    users, sessions
        (n,) int32; a session is -1 where there is none.
    ts_ms
        (n,) int64: the list is to be one of this moment.

    """

    users: Int32
    sessions: Int32
    ts_ms: Int64


class Recommender(Protocol):
    """
    A system under evaluation.

    Attributes
    ----------
    name
        What it is called in tables.

    """

    name: str

    def learn(self, log: Interactions) -> None:
        """Take in what happened since the last call, in order; from nothing at the first."""

    def fit(self) -> None:
        """Fit what is fitted from time to time, to all that was learned; what is counted as it comes does nothing."""

    def recommend(self, asking: Asking, size: int, *, exclude_seen: bool) -> Int32:
        """
        Return the best items (n, size) int32 of each who asks, best first; -1 behind the last.

        With `exclude_seen` no item that the user interacted with before; a session is not told apart from its user.
        """
