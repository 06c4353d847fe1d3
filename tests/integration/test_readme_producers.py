"""The README's producers, run as they stand against a real Kafka."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from streams.kafka.admin import create_topics
from streams.kafka.clients import kafka_python_config
from streams.kafka.partitioner import partition_of
from streams.local.kafka import LocalKafka
from streams.settings import Settings
from streams.wire.events import TYPE_CODES, Event, TimeBounds, decode_event

pytestmark = pytest.mark.integration

README = Path(__file__).parents[2] / "README.md"
BOUNDS = TimeBounds(max_age_ms=60_000, max_ahead_ms=60_000)


def test_python_producers_send_what_the_worker_takes(kafka: LocalKafka) -> None:
    """Each example's event is an event, and lies in the partition where the worker looks for its user."""
    settings = Settings(kafka_bootstrap=kafka.bootstrap, partitions=8)
    create_topics(settings)
    examples = re.findall(r"^```python\n(.*?)^```$", README.read_text(), flags=re.DOTALL | re.MULTILINE)
    for example in examples:
        exec(compile(example.replace("127.0.0.1:9092", kafka.bootstrap), "README.md", "exec"), {})  # noqa: S102  # our own text

    place = TopicPartition("clicks", partition_of(b"42", 8))
    consumer = KafkaConsumer(**kafka_python_config(settings))
    try:
        consumer.assign([place])
        consumer.seek_to_beginning(place)
        records: list[ConsumerRecord] = []
        while len(records) < len(examples):
            batch = consumer.poll(10_000)
            assert batch, records
            records += batch[place]
    finally:
        consumer.close()

    events = [decode_event(TYPE_CODES["clicks"], one.key, one.value, one.timestamp, BOUNDS) for one in records]
    assert [event.event_id for event in events if isinstance(event, Event)] == ["e-3", "e-4"]
