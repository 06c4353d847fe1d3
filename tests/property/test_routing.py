"""Item events reach the owners of all their items, once each."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.partitioner import partition_of
from streams.signals.routing import item_partitions, routed
from streams.wire.signals import ItemEvent, decode_item_events, item_events

IDS = st.sampled_from([f"item-{number}" for number in range(12)])
ROWS = st.lists(
    st.builds(
        ItemEvent,
        st.integers(0, 2**64 - 1),
        IDS,
        st.integers(0, 5),
        st.integers(0, 10**13),
        st.lists(IDS, max_size=3).map(tuple),
    ),
    max_size=30,
)


@given(ROWS, st.integers(1, 9))
def test_each_owner_is_told_once_and_in_order(rows: list[ItemEvent], partitions: int) -> None:
    """Plain loops over the rows give the same rows in each partition."""
    expected = defaultdict(list)
    for row in rows:
        for partition in {partition_of(item_id.encode(), partitions) for item_id in (row.item_id, *row.previous)}:
            expected[partition].append(row)
    found = defaultdict(list)
    told = item_events(rows)
    for partition, value in routed(told, item_partitions(told.ids, partitions)):
        events = decode_item_events(value)
        for number in range(len(events.item)):
            previous = tuple(events.ids[index] for index in events.previous[number].tolist() if index >= 0)
            found[partition].append(
                ItemEvent(
                    int(events.user[number]),
                    events.ids[events.item[number]],
                    int(events.type_code[number]),
                    int(events.ts_ms[number]),
                    previous,
                )
            )

    assert expected == found
