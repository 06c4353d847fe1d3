"""Forcing Kafka to compact a topic now, which it otherwise does hours later."""

from __future__ import annotations

import time
from collections import Counter

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource

from streams.kafka.clients import kafka_python_config
from streams.settings import Settings
from streams.topics import full_name
from tests.support.shop import producer
from tests.support.verifier import read_topic

#: Roll a segment at once, clean whatever is dirty; the cleaner looks every 15 s.
_NOW = {
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.0",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "100",
}
#: No user id holds a control character.
_ROLL = b"\x00compaction"


def compact(settings: Settings, name: str, timeout_s: float = 120.0) -> None:
    """
    Return once every key of a topic but those in its newest segment stands there once.

    A tombstone of a key nobody uses is written to each partition, because only a write rolls a segment.
    """
    before = _copies(settings, name)
    topic = full_name(settings, name)
    admin = KafkaAdminClient(**kafka_python_config(settings))
    try:
        admin.alter_configs([ConfigResource("topic", topic, _NOW)])
        end = time.monotonic() + timeout_s
        while (left := _copies(settings, name)) > before // 10:
            assert time.monotonic() < end, f"{topic} was not compacted in {timeout_s} s: {left} of {before} copies left"
            out = producer(settings)
            for partition in range(settings.partitions):
                out.produce(topic, None, _ROLL, partition)
            assert out.flush(30) == 0
            time.sleep(2)
    finally:
        admin.close()


def _copies(settings: Settings, name: str) -> int:
    """Records that a newer one of their key stands behind, those written here apart."""
    keys = Counter((read.partition, read.key) for read in read_topic(settings, name) if read.key != _ROLL)
    return sum(count - 1 for count in keys.values())
