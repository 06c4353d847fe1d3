"""One partition's transactional producer without a broker: a partition that was given up is not asked about."""

from __future__ import annotations

from typing import Any

import pytest

from streams.errors import FencedError
from streams.kafka.deadline import Deadline
from streams.kafka.outgoing import OutRecord, OutRecords
from streams.kafka.transactions import PartitionTransactions
from streams.settings import Settings


def test_a_partition_given_up_while_it_is_taken_counts_as_fenced() -> None:
    """A revoke that overtakes a taking between two of its steps ends it quietly, not the whole process."""
    transactions = PartitionTransactions(Settings(), "group", 0, "user-state")
    transactions.close()

    with pytest.raises(FencedError, match="given up"):
        transactions.committed(["clicks"], Deadline(1))
    with pytest.raises(FencedError, match="given up"):
        transactions.bounds(["clicks"], Deadline(1))


class FullProducer:
    """A producer whose queue takes three records and then none until it is polled."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self._room = 3

    def produce(self, *record: Any, **options: Any) -> None:
        """Take a record or refuse it."""
        if self._room <= 0:
            raise BufferError("Local: Queue full")
        self._room -= 1
        self.sent.append((*record, options))

    def poll(self, timeout_s: float) -> None:
        """Have room again, at the second time of asking."""
        assert timeout_s == 0.05
        self._room = 2 if self._room < 0 else self._room - 1

    def flush(self, timeout_s: float) -> int:
        """Have sent everything."""
        del timeout_s
        return 0

    def __getattr__(self, name: str) -> Any:
        """Agree to everything else."""
        del name
        return lambda *_: None


def test_a_full_queue_delays_and_loses_nothing() -> None:
    """Every record is produced once, in order, and the changelog's are counted."""
    transactions = PartitionTransactions(Settings(), "group", 0, "user-state")
    producer = FullProducer()
    transactions._producer = transactions._members = producer
    transactions.changelog_end = 100
    pairs = [(f"u{number}".encode(), bytes([number])) for number in range(10)]
    headers = [("reason", b"x")]
    letters = [OutRecord("dead-letters", b"clicks", b"?", headers=headers) for _ in range(5)]
    control = OutRecord("user-state", b"c", b"{}", 0)
    transactions.commit([*letters, control, OutRecords("user-state", 0, iter(pairs))], {}, Deadline(10))

    expected = [("dead-letters", b"?", b"clicks", -1, {"headers": headers})] * 5
    expected += [("user-state", b"{}", b"c", 0, {}), *(("user-state", value, key, 0, {}) for key, value in pairs)]
    assert expected == producer.sent
    assert 100 + 11 + 1 == transactions.changelog_end
