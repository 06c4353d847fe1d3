"""Forgetting users of a partition, without a broker: what is written, in which order, and what stays away."""

from __future__ import annotations

import orjson
import pytest

from streams.interests import codec
from streams.kafka.transport import Record
from streams.refresh.dirty import Cause
from streams.settings import Settings
from streams.topics import ERASURE_MARK_MS
from streams.wire.dead_letters import DeadLetter
from streams.wire.erasures import Erasure, Receipt, decode_receipt
from tests.support.partitions import LoggedPartition

NOW_MS = 1_800_000_000_000
SETTINGS = Settings(surfaces=("home", "cart"))

Given = tuple[str, Record]


@pytest.fixture
def partition() -> LoggedPartition:
    """A partition of its own, live."""
    return LoggedPartition(SETTINGS, NOW_MS)


def click(number: int, appended_ms: int, user_id: str = "u") -> Given:
    """A click."""
    event = {"event_id": f"e{number}", "user_id": user_id, "item_id": f"i{number}", "ts": appended_ms}
    return "clicks", Record(number, appended_ms, user_id.encode(), orjson.dumps(event))


def request(offset: int, appended_ms: int, user_id: str = "u", request_id: str = "r") -> Given:
    """A request to forget a user."""
    return "user-erasures", Record(offset, appended_ms, user_id.encode(), Erasure(user_id, request_id).encode())


def test_an_erasure_writes_mark_tombstones_and_receipt(partition: LoggedPartition) -> None:
    """State, the list of each surface and the receipt are one transaction; what is left is the time."""
    partition.fold(click(1, NOW_MS))
    partition.commit()
    partition.fold(request(7, NOW_MS + 5))
    written = partition.commit()
    states = partition.newest("user-state")

    assert ["user-state", "recommendations", "recommendations", "erasure-receipts"] == [one.topic for one in written]
    assert codec.mark(NOW_MS + 5, pending=True) == states["u"]
    assert {"u": None, "u\x1fcart": None} == partition.newest("recommendations")
    assert Receipt("r", 0, NOW_MS + 5, 0, 7) == decode_receipt(partition.newest("erasure-receipts")["r"] or b"")
    assert [] == partition.commit()


def test_an_erasure_drops_what_is_owed(partition: LoggedPartition) -> None:
    """No list is owed to an erased user, and the cache is told a version above every list before."""
    before = partition.work.next_version()
    partition.fold(click(1, NOW_MS))
    partition.fold(request(7, NOW_MS + 5))

    assert {} == partition.owed.causes
    assert before < partition.owed.erased["u"] < partition.work.next_version()


def test_records_of_one_turn_know_before_and_after(partition: LoggedPartition) -> None:
    """Events appended up to the request go though they are folded with it; later ones begin a new user behind it."""
    partition.fold(click(1, NOW_MS), click(2, NOW_MS + 5), click(3, NOW_MS + 6), request(7, NOW_MS + 5))
    written = [record for record in partition.commit() if record.topic == "user-state"]
    state = codec.decode(written[-1].value or b"")

    assert [codec.mark(NOW_MS + 5, pending=True), written[-1].value] == [record.value for record in written]
    assert (["i3"], NOW_MS + 5) == ([event.item_id for event in state.recent], state.erased_at_ms)
    assert ["u"] == list(partition.owed.causes)


def test_a_repeated_request_spares_the_new_user(partition: LoggedPartition) -> None:
    """The same request read again, or an older one, gets its receipt and takes nothing from who came since."""
    partition.fold(request(7, NOW_MS + 5))
    partition.fold(click(1, NOW_MS + 6))
    partition.commit()
    partition.fold(request(7, NOW_MS + 5), request(8, NOW_MS, request_id="older"))
    written = partition.commit()

    assert ["r", "older"] == [(record.key or b"").decode() for record in written]
    assert {"clicks": 1} == codec.decode(partition.newest("user-state")["u"] or b"").events_applied


def test_requests_that_cannot_be_used_become_dead_letters(partition: LoggedPartition) -> None:
    """Bad bytes, a time ahead of the clock or older than any mark: kept with the reason, and nobody is forgotten."""
    partition.fold(click(1, NOW_MS), click(2, NOW_MS, "v"))
    partition.fold(
        ("user-erasures", Record(1, NOW_MS, b"u", b"{")),
        request(2, NOW_MS + 3_600_000),
        request(3, NOW_MS - ERASURE_MARK_MS - 60_000, "v"),
    )
    letters = [
        DeadLetter.from_record(list(record.headers or ()), record.value)
        for record in partition.commit()
        if record.topic == "dead-letters"
    ]

    assert [("not_json", 1), ("bad_time", 2), ("too_old", 3)] == [(one.reason, one.offset) for one in letters]
    assert {"user-erasures"} == {one.topic for one in letters}
    assert {"u", "v"} == set(partition.work.slab)


def test_a_cache_that_was_away_is_told_again_by_the_next_owner(partition: LoggedPartition) -> None:
    """The mark says that the cache owes the erasure until it has answered; then the mark says so."""
    partition.fold(click(1, NOW_MS), request(7, NOW_MS + 5))
    partition.commit()
    version = partition.owed.erased["u"]
    partition.take()

    assert partition.owed.erased["u"] > version

    partition.owed.erased.clear()
    partition.work.settled("u")
    partition.commit()
    partition.take()

    assert {} == partition.owed.erased
    assert codec.mark(NOW_MS + 5, pending=False) == partition.newest("user-state")["u"]


def test_a_new_user_owes_the_cache_too(partition: LoggedPartition) -> None:
    """While the cache has not answered, the state of who came since says that a list is owed; then it does not."""
    partition.fold(request(7, NOW_MS + 5), click(1, NOW_MS + 6))
    partition.owed.causes.clear()
    partition.commit()
    owed = codec.decode(partition.newest("user-state")["u"] or b"").pending
    partition.owed.erased.clear()
    partition.work.settled("u")
    partition.commit()

    assert owed
    assert not codec.decode(partition.newest("user-state")["u"] or b"").pending


def test_the_mark_goes_when_no_older_record_can_be_read(partition: LoggedPartition) -> None:
    """After the input's retention and a week the last trace of the user is a tombstone, and not before."""
    partition.fold(request(7, NOW_MS))
    partition.commit()
    partition.work.settled("u")
    partition.commit()
    partition.now_ms = NOW_MS + ERASURE_MARK_MS - 1
    early = partition.commit()
    partition.now_ms += 1
    late = partition.commit()
    partition.take()

    assert [] == early
    assert [(b"u", None)] == [(record.key, record.value) for record in late]
    assert {} == partition.work.slab.erased


def test_who_waits_for_a_vector_is_forgotten_too(partition: LoggedPartition) -> None:
    """The vector of an item an erased user had met makes no list for them."""
    partition.fold(click(1, NOW_MS), click(2, NOW_MS, "v"))
    partition.fold(request(7, NOW_MS + 5))
    partition.owed.causes.clear()
    partition.work.vectors_came(["i1", "i2"])

    assert {"v": Cause("catalogue")} == partition.owed.causes
