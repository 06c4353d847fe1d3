"""One partition's transactional producer without a broker: a partition that was given up is not asked about."""

from __future__ import annotations

import pytest

from streams.errors import FencedError
from streams.kafka.deadline import Deadline
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
