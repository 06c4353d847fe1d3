"""Bare confluent-kafka: `decode` reads JSON and nothing else, `state` does the whole job in a dict, at-least-once."""

from __future__ import annotations

import time
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from tests.bench.stream.peer import Progress, Task
from tests.bench.stream.records import Fold, fold_of

_BATCH = 5_000
_WAIT_S = 0.05


def _consumer(task: Task) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": task.bootstrap,
            "group.id": task.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "queued.min.messages": 500_000,
            "fetch.message.max.bytes": 8 << 20,
        }
    )


def _checked(messages: list[Message]) -> list[Message]:
    for message in messages:
        if message.error() is not None:
            raise KafkaException(message.error())
    return messages


def _decode(consumer: Any, progress: Progress) -> None:
    loads = orjson.loads
    while True:
        items = [int(loads(message.value())["item_id"][1:]) for message in _checked(consumer.consume(_BATCH, _WAIT_S))]
        progress.add(len(items), sum(items))


def _state(consumer: Any, task: Task, fold: Fold) -> None:
    producer = Producer({"bootstrap.servers": task.bootstrap, "compression.type": "lz4", "linger.ms": 20})
    loads = orjson.loads
    records: dict[bytes, bytes] = {}
    dirty: dict[bytes, int] = {}
    offsets: dict[int, int] = {}
    due = time.monotonic() + task.commit_s
    while True:
        for message in _checked(consumer.consume(_BATCH, _WAIT_S)):
            event = loads(message.value())
            key = message.key()
            records[key] = fold(key, records.get(key), event["ts"], int(event["item_id"][1:]))
            dirty[key] = message.partition()
            offsets[message.partition()] = message.offset() + 1
        if time.monotonic() < due or not offsets:
            continue
        for key, partition in dirty.items():
            _send(producer, task.changelog, key, records[key], partition)
        producer.flush()
        consumer.commit(
            offsets=[TopicPartition(task.topic, number, at) for number, at in offsets.items()], asynchronous=False
        )
        dirty.clear()
        due = time.monotonic() + task.commit_s


def _send(producer: Any, topic: str, key: bytes, value: bytes, partition: int) -> None:
    while True:
        try:
            producer.produce(topic, value, key, partition)
        except BufferError:
            producer.poll(0.01)
        else:
            return


def main() -> None:
    """Run until killed."""
    task = Task.from_environment()
    consumer = _consumer(task)
    consumer.subscribe([task.topic])
    if task.variant == "decode":
        _decode(consumer, Progress(task.progress_file))
    else:
        _state(consumer, task, fold_of(task))


if __name__ == "__main__":
    main()
