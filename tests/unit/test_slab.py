"""The users of one partition: what a run reports, what a changelog brings back."""

from __future__ import annotations

import pytest

from streams.errors import RecordFormatError
from streams.interests import codec
from streams.interests.slab import Slab
from streams.interests.state import LastList
from streams.settings import Settings
from tests.support.strategies import START_MS, event_of

SETTINGS = Settings()


def test_run_reports_what_it_did() -> None:
    """Touched, dirty, accepted and the counts by type and outcome."""
    slab = Slab(SETTINGS)
    click = event_of("clicks", "u", "a", START_MS, "e1")
    seen = event_of("impressions", "v", "", START_MS, "e2", items=("a", "b"))
    result = slab.fold([click, click, seen, event_of("views", "u", "b", START_MS + 1, "e3")])
    assert sorted(result.touched) == ["u", "v"]
    assert result.dirty == {"u": 3}
    assert result.accepted == [0, 2, 3]
    assert dict(result.applied) == {"clicks": 1, "impressions": 1, "views": 1}
    assert dict(result.duplicates) == {"clicks": 1}
    assert not result.late
    assert [interaction.item_id for interaction in result.changes["u"].entered] == ["a", "b"]
    assert (len(slab), sorted(slab), "u" in slab, "x" in slab) == (2, ["u", "v"], True, False)


def test_copies_touch_nobody() -> None:
    """A run of nothing but copies owes no list and writes no record."""
    slab = Slab(SETTINGS)
    click = event_of("clicks", "u", "a", START_MS, "e1")
    slab.fold([click])
    result = slab.fold([click])
    assert (result.touched, result.dirty, result.accepted, result.changes) == ({}, {}, [], {})


def test_impressions_owe_no_list() -> None:
    """A user who only looked is written and not ranked."""
    slab = Slab(SETTINGS)
    slab.fold([event_of("impressions", "u", "", START_MS, "e", items=("a",))])
    assert slab.pending() == []


def test_owed_lists_survive_a_restore() -> None:
    """A list that was not served before the record was written is owed by whoever restores it."""
    slab = Slab(SETTINGS)
    slab.fold([event_of("clicks", user_id, "a", START_MS, "e") for user_id in ("u", "v")])
    state = slab.get("v")
    assert state is not None
    state.serve(LastList(5, START_MS, (("b", START_MS - 10),)))
    restored = Slab(SETTINGS)
    for user_id in slab:
        restored.restore(user_id.encode(), slab.encode(user_id))
    assert restored.pending() == ["u"]
    again = restored.get("v")
    assert again is not None
    assert again.last_list == LastList(5, START_MS, (("b", START_MS - 10),))
    assert slab.encode("u") == restored.encode("u")


def test_last_record_wins_and_a_tombstone_forgets() -> None:
    """Records of a user replace each other; None removes the user."""
    slab, other = Slab(SETTINGS), Slab(SETTINGS)
    slab.fold([event_of("clicks", "u", "a", START_MS, "e1")])
    first = slab.encode("u")
    slab.fold([event_of("clicks", "u", "a", START_MS, "e2")])
    for record in (first, slab.encode("u")):
        other.restore(b"u", record)
    state = other.get("u")
    assert state is not None
    assert state.events_applied == {"clicks": 2}
    other.restore(b"u", None)
    other.restore(b"never met", None)
    assert (other.get("u"), len(other)) == (None, 0)


def test_damage_is_told_at_once() -> None:
    """A record that fails its checksum, or a key that is no text, is refused when it is restored."""
    slab = Slab(SETTINGS)
    slab.fold([event_of("clicks", "u", "a", START_MS, "e1")])
    record = slab.encode("u")
    other = Slab(SETTINGS)
    with pytest.raises(RecordFormatError, match="checksum"):
        other.restore(b"u", record[:-1] + bytes([record[-1] ^ 1]))
    with pytest.raises(RecordFormatError, match="UTF-8"):
        other.restore(b"\xff", record)
    assert len(other) == 0


def test_unknown_user() -> None:
    """Nobody is None to `get` and a KeyError to `encode`."""
    slab = Slab(SETTINGS)
    assert slab.get("u") is None
    with pytest.raises(KeyError):
        slab.encode("u")


def test_full_record_is_small() -> None:
    """A user with 64 events over a month and a list of 20 takes less than 2 KB."""
    slab = Slab(SETTINGS)
    slab.fold([event_of("clicks", "u", f"item-{n % 50}", START_MS + n * 40_000_000, f"e{n}") for n in range(64)])
    state = slab.get("u")
    assert state is not None
    state.serve(LastList(2**33, START_MS, tuple((f"item-{n}", START_MS - n * 10**7) for n in range(20))))
    assert len(codec.encode(state)) <= 2_048
