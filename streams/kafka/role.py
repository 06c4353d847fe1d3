"""What a streaming role is to the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from streams.kafka.work import Work

if TYPE_CHECKING:
    from streams.kafka.runtime import Runtime


class Role(Protocol):
    """What a streaming role adds to the runtime."""

    name: str
    #: Kafka's names of the topics it consumes, co-partitioned.
    topics: Sequence[str]
    #: Time between two transactions of a partition, while committing is quick.
    commit_interval_s: float
    #: What the second of two records may wait for while records trickle in: see `Transport.fetch_pause_s`.
    fetch_pause_s: float

    def work(self, partition: int) -> Work:
        """Make the state of one partition, empty."""

    async def start(self, runtime: Runtime) -> None:
        """Begin what runs beside the partitions; called before the app joins its group."""

    async def stop(self) -> None:
        """End what `start` began."""

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether the role itself is ready, with details; called from the health thread."""
