"""The consumer thread: aiokafka with the settings that Faust has no names for, and fetches that no seek can confuse."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.kafka.transport.fetching import fetch_columns

#: Longest long poll at the broker. Records end it at once; it only bounds how long a partition that has been drained
#: in the meantime waits to join the next request (Faust's 1,500 ms would be seen in freshness).
_FETCH_MAX_WAIT_MS = 100

#: While records of one partition wait to be taken over, no other partition of that broker is fetched for so long:
#: topics then advance together even when the event loop is busy. aiokafka's own 0.1 s let one topic run hundreds of
#: records ahead under load. It also is how long a held partition can delay the others, once, after a rebalance.
_PREFETCH_BACKOFF_S = 1.0


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # Faust ships no types
    """Faust's consumer thread for `Consumer`, on an event loop of the app's own kind."""

    _seeks = 0

    def __init__(self, *args: Any, loop: asyncio.AbstractEventLoop, **kwargs: Any) -> None:
        # mode would take asyncio's own, whose wake-ups from another thread cost a third of a millisecond more than
        # uvloop's.
        super().__init__(*args, loop=loop, thread_loop=type(loop)(), **kwargs)
        # It leaves a loop that it was given open: this one is nobody else's.
        self._close_thread_loop_on_stop = True

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust has no setting for the first, and ties the second to its own, defective transactions.
        consumer._fetch_max_wait_ms = _FETCH_MAX_WAIT_MS  # noqa: SLF001 -- aiokafka reads it when it starts
        consumer._isolation_level = "read_committed"  # noqa: SLF001 -- the same
        return consumer

    async def on_start(self) -> None:
        """Start the client and set what it takes only then."""
        await super().on_start()
        fetcher = self._ensure_consumer()._fetcher  # noqa: SLF001 -- no API
        fetcher._prefetch_backoff = _PREFETCH_BACKOFF_S  # noqa: SLF001 -- no API
        transport = self.consumer.transport
        fetch_columns(fetcher, transport.batched, transport.fetch_pause_s)

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TP, int]) -> None:
        self._seeks += 1
        await super()._seek_wait(consumer, partitions)

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Fetch, but not across a rebalance or a seek.

        A fetch that waits meanwhile goes on with records of the new place, and would hand them over as if they were
        of the old one; the main thread, which does not expect them, would drop them. They are put back instead:
        aiokafka returns them in the same step in which it takes them, so that nothing comes between.
        """
        before = (_assignment(consumer), self._seeks)
        fetched = await super()._fetch_records(consumer, *args, **kwargs)
        if before == (_assignment(consumer), self._seeks):
            return fetched
        for tp, records in fetched.items():
            consumer.seek(tp, records[0].offset)
        return {}

    def partition_state(self, tp: TP) -> Any:
        """Return aiokafka's state of a partition, None unless it is assigned; readable from any thread."""
        consumer = self._consumer
        assignment = None if consumer is None else _assignment(consumer)
        # Its own accessors assert that the partition is assigned, which a rebalance may change between two steps.
        return None if assignment is None else assignment.state_value(tp)


def _assignment(consumer: Any) -> Any:
    """Return the current assignment, a new object after every rebalance."""
    subscription = consumer._subscription.subscription  # noqa: SLF001 -- no API
    return None if subscription is None else subscription.assignment
