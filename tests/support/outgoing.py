"""What a role hands over to be produced, one record after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from streams.kafka.outgoing import OutRecord, OutRecords


def one_by_one(records: Iterable[OutRecord | OutRecords]) -> Iterator[OutRecord]:
    """Give each record by itself, in order."""
    for record in records:
        if isinstance(record, OutRecords):
            for key, value in record.pairs:
                yield OutRecord(record.topic, key, value, record.partition)
        else:
            yield record
