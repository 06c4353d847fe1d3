"""Consumed records without a broker: the attributes of aiokafka's records that Freshet reads."""

from __future__ import annotations

from typing import NamedTuple

from streams.kafka.transport import Run


class FakeRecord(NamedTuple):
    """One record as the batched transport hands it over."""

    offset: int
    timestamp: int
    key: bytes | None = None
    value: bytes | None = None


def run_of(topic: str, *records: tuple[int, int], partition: int = 0) -> Run:
    """Return a run of (offset, timestamp) records."""
    return Run(topic, partition, [FakeRecord(offset, timestamp) for offset, timestamp in records])


def run_of_records(topic: str, records: list[FakeRecord], partition: int = 0) -> Run:
    """Return a run of records that have keys and values."""
    return Run(topic, partition, records)
