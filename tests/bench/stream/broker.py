"""The broker's side of a benchmark: a Kafka and a Redis off the consumer's core, logs, and states read back."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from streams.kafka.bulk_read import read_to_end
from streams.kafka.deadline import Deadline
from streams.kafka.partitioner import LIBRDKAFKA_PARTITIONER
from streams.settings import Settings
from tests.bench.stream import job
from tests.support.services import SettingsFactory, forget_environment, running_kafka, running_redis

_TIMEOUT_S = 60.0
_READ_S = 1_800.0


class Bench(NamedTuple):
    """What every benchmark runs on: a folder for its files and settings of new namespaces."""

    folder: Path
    settings_for: SettingsFactory
    bootstrap: str
    redis_url: str
    cache_dir: Path


@contextmanager
def services() -> Iterator[Bench]:
    """Run a Kafka and a Redis of their own; they end and their files go, on SIGTERM as well."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    forget_environment()
    with (
        tempfile.TemporaryDirectory(prefix="freshet-bench-") as name,
        running_kafka(Path(name) / "kafka") as kafka,
        running_redis(Path(name) / "redis") as redis,
    ):
        factory = SettingsFactory(kafka, redis, Path(name) / "state")
        yield Bench(Path(name), factory, kafka.bootstrap, redis.url, Settings.from_env().cache_dir)


class StateRead(NamedTuple):
    """The last record of each key, and the mean size of a record ever written: key and value, bytes."""

    last: dict[bytes, bytes]
    bytes_per_record: float


def create(bench: Bench, topic: str, *, compact: bool = False) -> None:
    """Create a topic as every contestant finds it."""
    config = {"cleanup.policy": "compact" if compact else "delete", "file.delete.delay.ms": "1000"}
    admin = AdminClient({"bootstrap.servers": bench.bootstrap})
    made = admin.create_topics([NewTopic(topic, job.PARTITIONS, 1, config=config)])
    made[topic].result(_TIMEOUT_S)


def remove(bench: Bench, part: str) -> None:
    """Delete the topics of a run: those whose name holds `part`. Vectors fill a disk fast."""
    admin = AdminClient({"bootstrap.servers": bench.bootstrap})
    doomed = [name for name in admin.list_topics(timeout=_TIMEOUT_S).topics if part in name]
    for done in admin.delete_topics(doomed).values() if doomed else ():
        done.result(_TIMEOUT_S)


def produce_log(bench: Bench, topic: str, log: str, records: int, users: int = job.USERS) -> None:
    """Write the first records of a log into a topic, partitioned as every Freshet producer must."""
    producer = Producer(
        {
            "bootstrap.servers": bench.bootstrap,
            "partitioner": LIBRDKAFKA_PARTITIONER,
            "compression.type": "lz4",
            "linger.ms": 50,
            "batch.size": 1 << 20,
            "queue.buffering.max.messages": 500_000,
            "enable.idempotence": True,
        }
    )
    key = job.USER_ID
    for events in job.chunks(log, records, users):
        for value in job.encoded(events):
            while True:
                try:
                    producer.produce(topic, value, value[key])
                except BufferError:
                    producer.poll(0.05)
                else:
                    break
        producer.poll(0)
    if left := producer.flush(_TIMEOUT_S):
        raise RuntimeError(f"{left} records of the log {log} could not be produced")


def read_state(bench: Bench, topic: str) -> StateRead:
    """Read a changelog as a restarted consumer would: committed records alone, the last of a key wins."""
    last: dict[bytes, bytes] = {}
    written = size = 0

    def take(messages: list[Message]) -> None:
        nonlocal written, size
        for message in messages:
            key, value = message.key(), message.value()
            written += 1
            size += len(key) + len(value or b"")
            if value is None:
                last.pop(key, None)
            else:
                last[key] = value

    settings = Settings(kafka_bootstrap=bench.bootstrap)
    read_to_end(settings, topic, range(job.PARTITIONS), take, Deadline(_READ_S))  # type: ignore[arg-type]  # a list is handed over
    return StateRead(last, size / max(1, written))


def await_topic(bench: Bench, topic: str) -> None:
    """Wait until a topic is known with all its partitions."""
    admin = AdminClient({"bootstrap.servers": bench.bootstrap})
    end = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < end:
        found = admin.list_topics(timeout=_TIMEOUT_S).topics.get(topic)
        if found is not None and len(found.partitions) == job.PARTITIONS:
            return
        time.sleep(0.1)
    raise RuntimeError(f"{topic} was not created within {_TIMEOUT_S:g} s")
