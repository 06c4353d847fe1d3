"""Consumed records without a broker."""

from __future__ import annotations

from collections.abc import Sequence

from streams.kafka.alignment import Slice
from streams.kafka.transport import Record, Records, Run


def run_of(topic: str, *records: tuple[int, int], partition: int = 0) -> Run:
    """Return a run of (offset, timestamp) records."""
    return run_of_records(topic, [Record(offset, timestamp, None, None) for offset, timestamp in records], partition)


def run_of_records(topic: str, records: Sequence[Record], partition: int = 0) -> Run:
    """Return a run of records that have keys and values."""
    return Run(topic, partition, Records.of(records))


def slice_of(topic: str, records: Sequence[Record], partition: int = 0) -> Slice:
    """Return a whole run as alignment lets it go."""
    run = run_of_records(topic, records, partition)
    return Slice(run, run.records, last=True)
