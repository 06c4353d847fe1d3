"""A stranger's Faust app on the batched transport, in this process, and what it meets: topics, records, a rival."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from faust.types import TP
from yarl import URL

from streams.kafka.transport import Run, batched_topic

#: A first join takes two seconds here; a loaded machine takes longer.
PATIENCE_S = 60.0

_NUMBERS = itertools.count(1)


class Broker:
    """What a test does with Kafka beside the app."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._config: dict[str, Any] = {"bootstrap.servers": bootstrap, "log_level": 4}

    def topic(self, partitions: int = 1) -> str:
        """Make a topic of its own for a test."""
        name = f"stranger-{next(_NUMBERS)}"
        admin = AdminClient(self._config)
        (made,) = admin.create_topics([NewTopic(name, partitions, 1)]).values()
        made.result(20)
        return name

    def produce(self, topic: str, values: Sequence[bytes | None], partition: int = 0) -> None:
        """Append values to a partition."""
        producer = Producer(self._config | {"enable.idempotence": True, "linger.ms": 0})
        for value in values:
            producer.produce(topic, value, partition=partition)
        assert producer.flush(20) == 0

    def produce_in_transactions(self, topic: str, values: Sequence[bytes], *, abort: Sequence[bytes] = ()) -> None:
        """Append each value in a transaction of its own, so that a marker follows it; those in `abort` are aborted."""
        producer = Producer(self._config | {"transactional.id": f"of-{topic}"})
        producer.init_transactions(20)
        for value in values:
            producer.begin_transaction()
            producer.produce(topic, value, partition=0)
            if value in abort:
                producer.flush(20)
                producer.abort_transaction(20)
            else:
                producer.commit_transaction(20)

    def committed(self, group: str, topic: str, partition: int = 0) -> int | None:
        """Return the group's committed offset, None without one."""
        consumer = Consumer(self._config | {"group.id": group})
        try:
            (found,) = consumer.committed([TopicPartition(topic, partition)], 20)
        finally:
            consumer.close()
        return found.offset if found.offset >= 0 else None


class Stranger:
    """
    An app whose agent collects runs.

    Attributes
    ----------
    app
        The Faust app; its group is `app.conf.id`.
    runs
        The runs its agent has taken, in order.

    """

    def __init__(self, broker: Broker, group: str, **settings: Any) -> None:
        self.broker = broker
        self.runs: list[Run] = []
        self._folder = tempfile.TemporaryDirectory(prefix="stranger-")
        defaults: dict[str, Any] = {
            "broker_session_timeout": 10.0,
            "broker_heartbeat_interval": 0.3,
            # Faust's own timer must not commit unless a test asks for it.
            "broker_commit_interval": 600.0,
            "consumer_auto_offset_reset": "earliest",
            "topic_disable_leader": True,
            "topic_allow_declare": False,
            # With it Faust takes Kafka's round robin, which `Rival` speaks too.
            "table_standby_replicas": 0,
            "web_enabled": False,
            "store": "memory://",
            "datadir": Path(self._folder.name),
        }
        self.app = faust.App(
            group, broker=[URL(f"freshet://{broker.bootstrap}")], loop=asyncio.get_running_loop(), **defaults | settings
        )

    def collect(self, *topics: str, each: Callable[[Run], Awaitable[None]] | None = None, **options: Any) -> None:
        """Let an agent take the runs of these topics; `each` is awaited for a run, without it the run is done."""

        async def agent(runs: Any) -> None:
            async for run in runs:
                self.runs.append(run)
                if each is None:
                    run.done()
                else:
                    await each(run)

        self.app.agent(batched_topic(self.app, *topics, **options), name=f"of-{topics[0]}")(agent)

    @property
    def values(self) -> list[bytes | None]:
        """The values its agent has seen, in order."""
        return [record.value for run in self.runs for record in run.records]

    @property
    def consumer(self) -> Any:
        """The app's consumer."""
        return self.app.consumer

    def committed(self, topic: str, partition: int = 0) -> int | None:
        """Return what the app's group has committed."""
        return self.broker.committed(self.app.conf.id, topic, partition)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Stranger]:
        """Run the app; it leaves its group at the end."""
        await self.app.start()
        try:
            yield self
        finally:
            await self.app.stop()
            self._folder.cleanup()


@asynccontextmanager
async def rival(broker: Broker, group: str, *topics: str) -> AsyncIterator[Callable[[], set[TP]]]:
    """Another member of a group, which takes its share of the partitions and leaves in order; yields what it owns."""
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=broker.bootstrap,
        group_id=group,
        partition_assignment_strategy=[RoundRobinPartitionAssignor],
        enable_auto_commit=False,
        heartbeat_interval_ms=300,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        yield lambda: {TP(tp.topic, tp.partition) for tp in consumer.assignment()}
    finally:
        await consumer.stop()


async def until(said: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait until `said()` is true."""
    end = time.monotonic() + patience_s
    while not said():
        assert time.monotonic() < end, f"not within {patience_s:g} s: {what}"
        await asyncio.sleep(0.02)
