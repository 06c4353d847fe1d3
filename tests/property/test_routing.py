"""Item events reach the owners of all their items, once each."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.partitioner import partition_of
from streams.signals.routing import item_partitions, routed
from streams.wire.signals import ItemEvent, decode_item_events, item_events
from tests.support.strategies import as_rows, item_event_rows

IDS = st.sampled_from([f"item-{number}" for number in range(12)])


@given(item_event_rows(IDS), st.integers(1, 9))
def test_each_owner_is_told_once_and_in_order(rows: list[ItemEvent], partitions: int) -> None:
    """Plain loops over the rows give the same rows in each partition."""
    expected = defaultdict(list)
    for row in rows:
        for partition in {partition_of(item_id.encode(), partitions) for item_id in (row.item_id, *row.previous)}:
            expected[partition].append(row)
    found = defaultdict[int, list[ItemEvent]](list)
    told = item_events(rows)
    for partition, value in routed(told, item_partitions(told.ids, partitions)):
        found[partition] += as_rows(decode_item_events(value))

    assert expected == found
