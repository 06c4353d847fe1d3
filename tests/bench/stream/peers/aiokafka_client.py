"""Bare aiokafka: `decode` reads JSON and nothing else, `state` does the whole job in a dict, at-least-once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.bench.stream.peer import Progress, Task
from tests.bench.stream.records import Fold, fold_of

_BATCH = 5_000
_WAIT_MS = 50
_FETCH_BYTES = 4 << 20
_BATCH_BYTES = 512 << 10


async def _decode(consumer: Any, progress: Progress) -> None:
    loads = orjson.loads
    while True:
        for records in (await consumer.getmany(timeout_ms=_WAIT_MS, max_records=_BATCH)).values():
            items = [int(loads(record.value)["item_id"][1:]) for record in records]
            progress.add(len(items), sum(items))


async def _state(consumer: Any, producer: Any, task: Task, fold: Fold) -> None:
    loads = orjson.loads
    state: dict[bytes, bytes] = {}
    dirty: dict[int, set[bytes]] = {}
    offsets: dict[TopicPartition, int] = {}
    due = time.monotonic() + task.commit_s
    while True:
        for partition, records in (await consumer.getmany(timeout_ms=_WAIT_MS, max_records=_BATCH)).items():
            changed = dirty.setdefault(partition.partition, set())
            for record in records:
                event = loads(record.value)
                key = record.key
                state[key] = fold(key, state.get(key), event["ts"], int(event["item_id"][1:]))
                changed.add(key)
            offsets[partition] = records[-1].offset + 1
        if time.monotonic() < due or not offsets:
            continue
        sent = [
            await _send(producer, task.changelog, number, [(key, state[key]) for key in keys])
            for number, keys in dirty.items()
        ]
        await asyncio.gather(*(future for futures in sent for future in futures))
        await consumer.commit(offsets)
        dirty.clear()
        due = time.monotonic() + task.commit_s


async def _send(producer: Any, topic: str, partition: int, pairs: list[tuple[bytes, bytes]]) -> list[Any]:
    """Hand over whole batches: aiokafka's fastest way to produce."""
    futures = []
    batch = producer.create_batch()
    for key, value in pairs:
        if batch.append(key=key, value=value, timestamp=None) is None:
            futures.append(await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            batch.append(key=key, value=value, timestamp=None)
    if batch.record_count():
        futures.append(await producer.send_batch(batch, topic, partition=partition))
    return futures


async def _main() -> None:
    task = Task.from_environment()
    consumer = AIOKafkaConsumer(
        task.topic, bootstrap_servers=task.bootstrap, group_id=task.group, auto_offset_reset="earliest",
        enable_auto_commit=False, max_partition_fetch_bytes=_FETCH_BYTES,
    )  # fmt: skip
    await consumer.start()
    if task.variant == "decode":
        await _decode(consumer, Progress(task.progress_file))
        return
    producer = AIOKafkaProducer(
        bootstrap_servers=task.bootstrap, compression_type="lz4", max_batch_size=_BATCH_BYTES, linger_ms=20
    )
    await producer.start()
    await _state(consumer, producer, task, fold_of(task))


def main() -> None:
    """Run until killed."""
    uvloop.run(_main())


if __name__ == "__main__":
    main()
