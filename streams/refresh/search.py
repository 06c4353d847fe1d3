"""
Finding lists that hold an item which may be listed no more among those that are not on the shelf.

These are lists made by another worker or before a restart, and those that had to leave the shelf; what is left of them
is in the users' states. They are looked through beside everything else, a few at a time, and ranked again: so nothing
is lost with a worker that dies while it strikes. Lists that an event asks for wait for one batch at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, NamedTuple

import msgspec
import numpy as np
import structlog

from streams.catalogue.matrix import Catalogue
from streams.interests import codec
from streams.refresh.partition import InterestPartition

_LOG = structlog.get_logger(__name__)

#: Users looked at in one go, which takes some milliseconds.
_AT_ONCE: Final = 500
#: Users of each partition between two times at which what was found is put in order.
_TURN: Final = 20_000
#: Rest after each go, for whatever else the loop has to do.
_PAUSE_S: Final = 0.005
#: With more items to look for, lists are read instead of searched as bytes.
_MAX_WANTED: Final = 32


class _Found(NamedTuple):
    partition: InterestPartition
    user_id: str
    newest_ms: int


class Search:
    """
    Looks through states; used from the loop.

    Parameters
    ----------
    owe
        Called with each user whose list holds what may be listed no more, who was active last first.
    is_waited_for
        Whether a user gets a list without this.
    room
        Waits until more may be owed.

    """

    def __init__(
        self,
        catalogue: Catalogue,
        owe: Callable[[InterestPartition, str], None],
        is_waited_for: Callable[[str], bool],
        room: Callable[[], Awaitable[None]],
    ) -> None:
        self._catalogue = catalogue
        self._owe = owe
        self._is_waited_for = is_waited_for
        self._room = room
        #: Items to look for in each partition as they stand in states; None for whatever may not be listed.
        self._due: dict[InterestPartition, set[bytes] | None] = {}
        self._wake = asyncio.Event()
        self._active = False

    @property
    def active(self) -> bool:
        """Whether there is something to look for."""
        return self._active or bool(self._due)

    def add(self, partition: InterestPartition, item_ids: Iterable[str] | None = None) -> None:
        """Look for lists that hold one of some items which were closed, or any closed item, in a partition."""
        known = self._due.setdefault(partition, set())
        if known is not None:
            known.update(item_id.encode() for item_id in item_ids or ())
        if item_ids is None or (known is not None and len(known) > _MAX_WANTED):
            self._due[partition] = None
        self._wake.set()

    def forget(self, partition: InterestPartition) -> None:
        """Look for nothing more in a partition that was given up."""
        self._due.pop(partition, None)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                due, self._due = self._due, {}
                self._active = True
                await self.look_through(due)
                self._active = False

    async def look_through(self, due: dict[InterestPartition, set[bytes] | None]) -> None:
        """Look through partitions: first the users who are hot, then the others, those met last first."""
        users = {partition: partition.slab.latest_first() for partition in due}
        longest = max(len(cold) for _, cold in users.values())
        await self._turn(due, {partition: hot for partition, (hot, _) in users.items()})
        for start in range(0, longest, _TURN):
            await self._turn(due, {partition: cold[start : start + _TURN] for partition, (_, cold) in users.items()})

    async def _turn(
        self, due: dict[InterestPartition, set[bytes] | None], users: dict[InterestPartition, list[str]]
    ) -> None:
        """Find all of some users, then owe them their lists as there is room."""
        found: list[_Found] = []
        for partition, user_ids in users.items():
            for start in range(0, len(user_ids), _AT_ONCE):
                if partition.closed:
                    break
                found.extend(self._holders(partition, user_ids[start : start + _AT_ONCE], due[partition]))
                await asyncio.sleep(_PAUSE_S)
        for one in sorted(found, key=lambda one: -one.newest_ms):
            await self._room()
            if not (one.partition.closed or self._is_waited_for(one.user_id)):
                self._owe(one.partition, one.user_id)

    def _holders(
        self, partition: InterestPartition, user_ids: Sequence[str], wanted: set[bytes] | None
    ) -> Iterator[_Found]:
        """Give the users whose list holds an item that may not be listed."""
        lists: list[tuple[str, codec.Head]] = []
        for user_id, head in zip(user_ids, partition.slab.raw_heads(user_ids), strict=True):
            # Bytes that look like an item's id may be part of another one: the list is read then.
            if wanted is None or any(item in head for item in wanted):
                try:
                    lists.append((user_id, codec.read_head(head)))
                except (msgspec.MsgspecError, ValueError) as error:
                    _LOG.error("state_head_damaged", partition=partition.partition, error=str(error))
        sizes = [len(head.ids) for _, head in lists]
        rows = self._catalogue.find(list(chain.from_iterable([head.ids for _, head in lists])))
        # An item that nobody told of since this worker began is closed too.
        closed = np.flatnonzero((rows < 0) | ~self._catalogue.offer.open[rows])
        for at in np.unique(np.searchsorted(np.cumsum(sizes), closed, side="right")).tolist():
            user_id, head = lists[at]
            if not self._is_waited_for(user_id):
                yield _Found(partition, user_id, head.generated_at - head.newest)
