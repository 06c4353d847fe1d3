"""The users of one partition: what a run reports, what a changelog brings back, who stays in columns."""

from __future__ import annotations

import numpy as np
import pytest

from streams.catalogue.matrix import Catalogue
from streams.errors import RecordFormatError
from streams.interests import codec
from streams.interests.batch import FoldResult
from streams.interests.budget import Budget
from streams.interests.fold import APPLIED, DUPLICATE
from streams.interests.slab import Slab
from streams.interests.state import LastList
from streams.settings import Settings
from streams.wire.events import Event
from tests.support.batches import batch_of
from tests.support.strategies import START_MS, event_of

SETTINGS = Settings()


def new_slab(budget: Budget | None = None) -> Slab:
    """An empty slab with a catalogue of its own."""
    return Slab(SETTINGS, Catalogue(2), budget)


def fold(slab: Slab, *events: Event) -> FoldResult:
    """Fold one run."""
    return slab.fold(batch_of(events))


def serve(slab: Slab, user_id: str, served: LastList) -> None:
    """Serve a user a list."""
    row = slab.row(user_id)
    assert row is not None
    slab.serve(row, served)


def written(slab: Slab, owed: set[str]) -> dict[str, bytes]:
    """Return the records that are due, as a commit takes them."""
    rows = slab.take_changed()
    copied = slab.copy(rows, [slab.user_ids[row] in owed for row in rows.tolist()])
    return {key.decode(): record for key, record in copied.records()}


def test_run_reports_what_it_did() -> None:
    """Outcomes, the items before, who is dirty, and the counts by type and outcome."""
    slab = new_slab()
    click = event_of("clicks", "u", "a", START_MS, "e1")
    seen = event_of("impressions", "v", "", START_MS, "e2", items=("a", "b"))
    result = fold(slab, click, click, seen, event_of("views", "u", "b", START_MS + 1, "e3"))
    assert [APPLIED, DUPLICATE, APPLIED] == result.outcome.tolist()
    assert [[-1, -1, -1], [-1, -1, -1], [result.items[0], -1, -1]] == result.previous.tolist()
    assert {slab.row("u"): 2} == result.dirty
    assert {"clicks": 1, "impressions": 1, "views": 1} == dict(result.applied)
    assert {"clicks": 1} == dict(result.duplicates)
    assert not result.late
    assert (len(slab), sorted(slab), "u" in slab, "x" in slab) == (2, ["u", "v"], True, False)
    assert ["u", "v"] == sorted(written(slab, set()))


def test_copies_touch_nobody() -> None:
    """A run of nothing but copies owes no list and writes no record."""
    slab = new_slab()
    click = event_of("clicks", "u", "a", START_MS, "e1")
    fold(slab, click)
    written(slab, set())
    result = fold(slab, click)
    assert {} == result.dirty
    assert {} == written(slab, set())


def test_impressions_owe_no_list() -> None:
    """A user who only looked is written and not ranked."""
    slab = new_slab()
    result = fold(slab, event_of("impressions", "u", "", START_MS, "e", items=("a",)))
    assert {} == result.dirty
    assert ["u"] == list(written(slab, set()))


def test_a_pause_ends_what_counts_as_met_just_before() -> None:
    """Items of another session, more than half an hour ago, are not the items before."""
    slab = new_slab()
    result = fold(
        slab,
        event_of("clicks", "u", "a", START_MS, "e1"),
        event_of("clicks", "u", "b", START_MS + 30 * 60_000, "e2"),
        event_of("clicks", "u", "c", START_MS + 60 * 60_000 + 1, "e3"),
    )
    assert [[-1] * 3, [result.items[0], -1, -1], [-1] * 3] == result.previous.tolist()


def test_owed_lists_survive_a_restore() -> None:
    """A list that was not served before the record was written is owed by whoever restores it."""
    slab = new_slab()
    fold(slab, *(event_of("clicks", user_id, "a", START_MS, "e") for user_id in ("u", "v")))
    served = LastList(5, START_MS, (("b", START_MS - 10),), START_MS - 7, 1, (9,))
    serve(slab, "v", served)
    restored = new_slab()
    records = written(slab, {"u"})
    for user_id, record in records.items():
        restored.restore(user_id.encode(), record)
    assert restored.pending() == ["u"]
    again = restored.get("v")
    assert again is not None
    assert again.last_list == served
    assert restored.row("u") is not None
    assert restored.pending() == ["u"]
    assert records["u"] == restored.encode("u")


def test_users_met_longest_ago_become_bytes() -> None:
    """Above the limit of hot users the idle ones leave the columns, and come back as they were."""
    slab = new_slab(Budget(max_hot_users=3, max_state_bytes=2**30))
    for number in range(3):
        fold(slab, event_of("clicks", f"u{number}", "a", START_MS, "e"))
    before = {user_id: slab.encode(user_id) for user_id in slab}
    written(slab, set())
    fold(slab, event_of("clicks", "u0", "b", START_MS + 1, "e2"))
    fold(slab, event_of("clicks", "u3", "a", START_MS, "e"))
    assert slab.budget.hot_users <= 3
    assert "u1" not in slab.user_ids
    assert "u0" in slab.user_ids
    assert before["u1"] == slab.encode("u1")
    assert slab.row("u1") is not None
    assert before["u1"] == slab.encode("u1")
    assert 4 == len(slab)


def test_uncommitted_users_stay_in_columns() -> None:
    """Who changed since the last commit is not made cold: the next commit writes the columns."""
    slab = new_slab(Budget(max_hot_users=1, max_state_bytes=2**30))
    fold(slab, event_of("clicks", "u", "a", START_MS, "e"))
    fold(slab, event_of("clicks", "v", "a", START_MS, "e"))
    assert {"u", "v"} == set(written(slab, set()))


def test_idle_users_are_forgotten() -> None:
    """Users without an event since a time go, those met longest ago first, and nobody else."""
    slab = new_slab()
    source = new_slab()
    for number in range(4):
        fold(source, event_of("clicks", f"u{number}", "a", START_MS + number, "e"))
        slab.restore(f"u{number}".encode(), source.encode(f"u{number}"))
    assert ["u0", "u1"] == slab.forget_idle(START_MS + 2, most=10)
    assert ["u2", "u3"] == sorted(slab)


def test_above_the_byte_limit_the_longest_idle_are_forgotten() -> None:
    """Memory has a limit: at it the users met longest ago are given up, and the budget counts it."""
    source = new_slab()
    fold(source, *(event_of("clicks", f"u{number}", "a", START_MS, "e") for number in range(20)))
    slab = new_slab(Budget(max_hot_users=10, max_state_bytes=4_000))
    for number in range(20):
        slab.restore(f"u{number}".encode(), source.encode(f"u{number}"))
    gone = slab.forget_idle(0, most=100)
    assert [f"u{number}" for number in range(len(gone))] == gone
    assert 0 < len(gone) < 20
    assert slab.budget.state_bytes <= 4_000


def test_an_erased_user_keeps_only_the_mark() -> None:
    """Erasing leaves the time of it and nothing else, and a restore brings back the mark."""
    slab = new_slab()
    fold(slab, event_of("purchases", "u", "a", START_MS, "e"))
    record = slab.erase("u", START_MS + 5)
    restored = new_slab()
    restored.restore(b"u", record)
    state = restored.get("u")
    assert state is not None
    assert (START_MS + 5, [], {}, {}) == (state.erased_at_ms, state.recent, state.excluded, state.events_applied)
    assert {"u": START_MS + 5} == restored.erased
    fold(restored, event_of("clicks", "u", "b", START_MS + 9, "e9"))
    again = codec.decode(written(restored, set())["u"])
    assert (START_MS + 5, {"clicks": 1}) == (again.erased_at_ms, again.events_applied)


def test_a_forgotten_user_who_was_erased_keeps_the_mark() -> None:
    """Being idle takes a new user's events away; what was sent before the erasure must still be dropped."""
    source, slab = new_slab(), new_slab()
    source.erase("u", START_MS)
    fold(source, event_of("clicks", "u", "a", START_MS + 1, "e"))
    slab.restore(b"u", source.encode("u"))

    assert ["u"] == slab.forget_idle(START_MS + 2, most=10)
    assert {"u": START_MS} == slab.erased
    assert codec.is_mark(slab.mark("u", pending=False))


def test_marks_expire_oldest_first() -> None:
    """A mark goes at its time, in whatever order marks came; a user who came back loses the mark and nothing else."""
    slab = new_slab()
    for user_id, ms in (("c", 30), ("a", 10), ("b", 20)):
        slab.erase(user_id, START_MS + ms)
    fold(slab, event_of("clicks", "b", "i", START_MS + 40, "e"))
    slab.take_changed()

    assert ["a"] == slab.expire_marks(START_MS + 20, most=1)
    assert [] == slab.expire_marks(START_MS + 20, most=10)
    assert {"c": START_MS + 30} == slab.erased
    record = written(slab, set())["b"]
    assert (0, {"clicks": 1}) == (codec.erased_at_ms(record), codec.decode(record).events_applied)


def test_a_restored_cold_user_loses_an_expired_mark() -> None:
    """A record that says both, state and mark, is written again without the mark when that is too old."""
    source, slab = new_slab(), new_slab()
    source.erase("u", START_MS)
    fold(source, event_of("clicks", "u", "a", START_MS + 1, "e"))
    slab.restore(b"u", source.encode("u"))

    assert [] == slab.expire_marks(START_MS, most=10)
    record = written(slab, set())["u"]
    assert (0, {"clicks": 1}) == (codec.erased_at_ms(record), codec.decode(record).events_applied)


def test_a_mark_says_whether_the_cache_owes_the_erasure() -> None:
    """Whoever restores a mark learns once that the cache has still to forget; a later record takes it back."""
    slab, settled = new_slab(), new_slab()
    record = slab.erase("u", START_MS)
    restored = new_slab()
    restored.restore(b"u", record)
    settled.restore(b"u", record)
    settled.restore(b"u", slab.mark("u", pending=False))

    assert (["u"], []) == (restored.marks_owed(), restored.marks_owed())
    assert [] == settled.marks_owed()
    assert ([], []) == (restored.pending(), settled.pending())


def test_marks_count_as_memory_and_are_given_back() -> None:
    """Marks are in the budget of the worker until they go, or the partition does."""
    slab = new_slab()
    slab.erase("u", START_MS)
    slab.erase("u", START_MS + 1)
    slab.erase("v", START_MS + 2)
    held = slab.budget.state_bytes
    slab.expire_marks(START_MS + 1, most=1)
    left = slab.budget.state_bytes
    slab.close()

    assert (held, 0) == (2 * left, slab.budget.state_bytes)
    assert left > 0


def test_last_record_wins_and_a_tombstone_forgets() -> None:
    """Records of a user replace each other; None removes the user."""
    slab, other = new_slab(), new_slab()
    fold(slab, event_of("clicks", "u", "a", START_MS, "e1"))
    first = slab.encode("u")
    fold(slab, event_of("clicks", "u", "a", START_MS, "e2"))
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
    slab = new_slab()
    fold(slab, event_of("clicks", "u", "a", START_MS, "e1"))
    record = slab.encode("u")
    other = new_slab()
    with pytest.raises(RecordFormatError, match="checksum"):
        other.restore(b"u", record[:-1] + bytes([record[-1] ^ 1]))
    with pytest.raises(RecordFormatError, match="UTF-8"):
        other.restore(b"\xff", record)
    assert len(other) == 0


def test_unknown_user() -> None:
    """Nobody is None to `get` and a KeyError to `encode`."""
    slab = new_slab()
    assert slab.get("u") is None
    with pytest.raises(KeyError):
        slab.encode("u")


def test_full_record_is_small() -> None:
    """A user with 64 events over a month and a list of 20 takes less than 2 KB."""
    slab = new_slab()
    fold(slab, *(event_of("clicks", "u", f"item-{n % 50}", START_MS + n * 40_000_000, f"e{n}") for n in range(64)))
    items = tuple((f"item-{n}", START_MS - n * 10**7) for n in range(20))
    serve(slab, "u", LastList(2**33, START_MS, items, START_MS - 80, 64, tuple(range(20))))
    assert len(slab.encode("u")) <= 2_048


def test_the_fullest_record_stays_below_the_cap() -> None:
    """A robot with 256 events at once and 256 tallies of other items takes less than 16 KB with ids of 12 bytes."""
    slab = new_slab()
    events = [event_of("clicks", "u", f"item-{n:07}", START_MS + n * 40_000_000, f"e{n}") for n in range(320)]
    last = events[-1].ts_ms + 10**9
    events += [event_of("clicks", "u", f"more-{n:07}", last + n, f"f{n}") for n in range(256)]
    fold(slab, *events)
    state = slab.get("u")
    assert state is not None
    assert 256 == len(state.recent)
    assert len(state.items) > 200
    assert len(slab.encode("u")) <= 16_384


def test_growing_arenas_lose_nothing() -> None:
    """Many users with many events: blocks move to larger ones, arenas double, every event is there."""
    slab = new_slab()
    rng = np.random.default_rng(3)
    for run in range(20):
        fold(
            slab,
            *(
                event_of("clicks", f"u{user}", f"i{rng.integers(900)}", START_MS + run * 10**8 + user, f"e{run}-{n}")
                for user in range(60)
                for n in range(8)
            ),
        )
    for user in range(60):
        state = slab.get(f"u{user}")
        assert state is not None
        assert 160 == len(state.recent) + sum(sum(tally.counts) for tally in state.items.values())
