"""Users who are owed a list."""

from __future__ import annotations

from streams.refresh.dirty import Cause, DirtyUsers


def cause(offset: int, at_ms: int) -> Cause:
    """An event at an offset, ingested at a time."""
    return Cause("event", "clicks", offset, f"e{offset}", at_ms, at_ms)


def test_the_one_who_waits_longest_goes_first() -> None:
    """Order is that of the first mark, whatever comes later."""
    dirty = DirtyUsers[int]()
    dirty.mark(0, "a", cause(1, 1))
    dirty.mark(0, "b", cause(2, 2))
    dirty.mark(0, "a", cause(3, 3))

    assert ["a"] == [user for _, user, _ in dirty.take(1)]
    assert ["b"] == [user for _, user, _ in dirty.take(9)]
    assert 0 == len(dirty)


def test_coalesced_events_keep_the_oldest_time_and_the_newest_trigger() -> None:
    """Freshness counts from the oldest event that is not on a list yet."""
    dirty = DirtyUsers[int]()
    dirty.mark(0, "a", cause(1, 100))
    dirty.mark(0, "a", cause(2, 200))
    ((_, _, found),) = dirty.take(1)

    assert (2, 200, 100) == (found.offset, found.ingested_ms, found.oldest_ms)


def test_a_cause_without_an_event_does_not_hide_one() -> None:
    """A catalogue change while an event waits leaves the event's time standing."""
    dirty = DirtyUsers[int]()
    dirty.mark(0, "a", cause(1, 100))
    dirty.mark(0, "a", Cause("catalogue"))
    ((_, _, found),) = dirty.take(1)

    assert 100 == found.oldest_ms


def test_a_partition_that_was_given_up_is_forgotten() -> None:
    """Nothing is ranked for a partition somebody else owns; the others stay."""
    dirty = DirtyUsers[int]()
    dirty.mark(0, "a", cause(1, 1))
    dirty.mark(1, "b", cause(2, 2))
    dirty.forget(0)

    assert [(1, "b")] == [(partition, user) for partition, user, _ in dirty.take(9)]


def test_a_cause_says_what_lists_carry() -> None:
    """The trigger of a list names its event with topic, partition and offset; without one, its kind and partition."""
    named = cause(7, 1).trigger(3)

    assert ("event", "clicks", 3, 7, "e7") == (named.kind, named.topic, named.partition, named.offset, named.event_id)
    assert ("restore", 3, -1) == (Cause("restore").trigger(3).kind, 3, Cause("restore").trigger(3).offset)


def test_a_user_taken_by_another_partition_object_waits_for_that_one() -> None:
    """After a partition was given up and taken again, what the old one owed does not stand in the way."""
    dirty = DirtyUsers[int]()
    dirty.mark(0, "a", cause(1, 100))
    dirty.mark(1, "a", cause(2, 200))
    dirty.forget(0)
    ((partition, _, found),) = dirty.take(9)

    assert (1, 200) == (partition, found.oldest_ms)
