"""One partition of the interest worker, without a broker: epochs, what a commit holds, who is owed a list."""

from __future__ import annotations

import orjson
import pytest

from streams.catalogue.matrix import Catalogue
from streams.kafka.alignment import Slice
from streams.kafka.outgoing import OutRecord
from streams.kafka.transport import Record
from streams.kafka.work import CONTROL_KEY
from streams.refresh.partition import InterestPartition
from streams.settings import Settings
from streams.wire.recommendations import VERSION_EPOCH
from streams.wire.signals import decode_item_events
from tests.support.outgoing import one_by_one
from tests.support.partitions import Message, Owed
from tests.support.records import slice_of

_NOW_S = 1_800_000_000.0
_NOW_MS = 1_800_000_000_000


@pytest.fixture
def owed() -> Owed:
    """Who is owed a list."""
    return Owed()


def partition_of_one(owed: Owed, now_s: float = _NOW_S) -> InterestPartition:
    """The only partition of its topics, so that every key belongs."""
    counts = {"clicks": 1, "item-events": 1}
    return InterestPartition(Settings(), 0, counts, Catalogue(dim=2), owed, clock=lambda: now_s)


def control(records: list[OutRecord]) -> dict[str, int]:
    """The control record's content."""
    (record,) = records
    assert record.key == CONTROL_KEY
    content: dict[str, int] = orjson.loads(record.value or b"")
    return content


def pieces(*events: dict[str, object], topic: str = "clicks") -> list[Slice]:
    """Events of a topic as alignment lets them go."""
    records = [
        Record(offset, _NOW_MS, str(event["user_id"]).encode(), orjson.dumps(event))
        for offset, event in enumerate(events)
    ]
    return [slice_of(topic, records)]


def event(user_id: str, item_id: str, number: int) -> dict[str, object]:
    """A click."""
    return {"event_id": f"e{number}", "user_id": user_id, "item_id": item_id, "ts": _NOW_MS - 1000 + number}


def test_versions_grow_with_every_taking(owed: Owed) -> None:
    """Whoever takes the partition next begins above every version there was, also within the same minute."""
    first = partition_of_one(owed)
    record = list(first.opened(None))  # type: ignore[arg-type]  # the owner is not asked here
    last = [first.next_version() for _ in range(3)][-1]
    second = partition_of_one(owed)
    second.restore([Message(CONTROL_KEY, record[0].value or b"")])

    assert control(record)["epoch"] + 1 == control(list(second.opened(None)))["epoch"]  # type: ignore[arg-type]
    assert second.next_version() > last


def test_versions_grow_when_kafkas_state_is_lost(owed: Owed) -> None:
    """A partition without a past begins above what one of an hour ago had, and below what JSON readers can hold."""
    before, after = partition_of_one(owed, _NOW_S - 3600), partition_of_one(owed)
    list(before.opened(None))  # type: ignore[arg-type]  # the owner is not asked here
    list(after.opened(None))  # type: ignore[arg-type]

    assert after.next_version() > before.next_version()
    assert after.next_version() < 2**53
    assert 0 < after.epoch < 2**53 // VERSION_EPOCH


def test_a_commit_holds_states_and_what_events_caused(owed: Owed) -> None:
    """Changed users, the batch for the signals role with the items before, and dead letters, once."""
    partition = partition_of_one(owed)
    partition.caught_up()
    partition.fold(pieces(event("u", "a", 1), event("u", "b", 2), {"user_id": "u"}))
    records = list(one_by_one(partition.gather()))
    by_topic = {record.topic: record for record in records}
    told = decode_item_events(by_topic["item-events"].value or b"")

    assert {"user-state", "item-events", "dead-letters"} == set(by_topic)
    assert (["a", "b"], [0, 1]) == (told.ids, told.item.tolist())
    assert [[-1, -1, -1], [0, -1, -1]] == told.previous.tolist()
    assert b"u" == by_topic["user-state"].key
    assert [] == list(one_by_one(partition.gather()))


def test_lists_are_owed_only_once_caught_up(owed: Owed) -> None:
    """While the partition catches up nobody is ranked; then everybody whose events came, with the newest as trigger."""
    partition = partition_of_one(owed)
    partition.fold(pieces(event("u", "a", 1), event("u", "b", 2)))

    assert {} == owed.causes
    partition.caught_up()
    assert "e2" == owed.causes["u"].event_id


def test_a_user_whose_list_is_owed_says_so_in_the_record(owed: Owed) -> None:
    """A commit that overtakes ranking leaves the debt in the state, and whoever restores it pays."""
    partition = partition_of_one(owed)
    partition.caught_up()
    partition.fold(pieces(event("u", "a", 1)))
    (state,) = [record for record in one_by_one(partition.gather()) if record.topic == "user-state"]
    heir_owed = Owed()
    heir = partition_of_one(heir_owed)
    heir.restore([Message(state.key or b"", state.value or b"")])
    heir.caught_up()

    assert "restore" == heir_owed.causes["u"].kind


def test_a_vector_that_comes_owes_a_list_to_those_who_met_the_item(owed: Owed) -> None:
    """Events for an item count once its vector is there."""
    partition = partition_of_one(owed)
    partition.caught_up()
    partition.fold(pieces(event("u", "a", 1), event("v", "b", 2)))
    owed.causes.clear()
    partition.vectors_came(["a"])

    assert ["u"] == list(owed.causes)
