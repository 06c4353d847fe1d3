"""Alignment of co-partitioned topics: in time order as far as known, never stuck, nothing lost or repeated."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.alignment import Aligner
from streams.kafka.transport import Run
from tests.support.records import run_of


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def remaining(ends: dict[str, int]) -> Callable[[str, int], int]:
    """What the transport knows when the topics end at these offsets."""
    return lambda topic, next_offset: ends[topic] - next_offset


def folded(aligner: Aligner) -> list[tuple[str, int]]:
    """What may be folded now, as (topic, offset)."""
    return [(piece.run.topic, record.offset) for piece in aligner.ready() for record in piece.records]


def test_everything_goes_when_nobody_is_behind() -> None:
    """With all topics at their ends, buffered records go at once."""
    ends = {"a": 2, "b": 0}
    aligner = Aligner({"a": 0, "b": 0}, remaining(ends))
    aligner.push(run_of("a", (0, 10), (1, 20)))

    assert [("a", 0), ("a", 1)] == folded(aligner)


def test_a_topic_waits_for_one_that_is_behind() -> None:
    """A record stays while another topic is known to hold some that were not fetched."""
    clock = Clock()
    ends = {"a": 2, "b": 1}
    aligner = Aligner({"a": 0, "b": 0}, remaining(ends), clock)
    aligner.push(run_of("a", (0, 10), (1, 20)))

    assert [] == folded(aligner)

    aligner.push(run_of("b", (0, 15)))

    assert [("a", 0), ("a", 1), ("b", 0)] == folded(aligner)


def test_waiting_ends() -> None:
    """A topic that stays silent holds the others up for ten seconds only, and that is counted."""
    clock = Clock()
    aligner = Aligner({"a": 0, "b": 0}, remaining({"a": 1, "b": 1}), clock)
    aligner.push(run_of("a", (0, 10)))
    folded(aligner)
    clock.now = 10.1

    assert [("a", 0)] == folded(aligner)
    assert 1 == aligner.timeouts


def test_nothing_passes_the_topic_that_ends_first() -> None:
    """With more to come from a topic, the others go only as far in time as what it has shown."""
    aligner = Aligner({"a": 0, "b": 0}, remaining({"a": 3, "b": 9}))
    aligner.push(run_of("a", (0, 10), (1, 20), (2, 30)))
    aligner.push(run_of("b", (0, 5), (1, 20)))

    assert [("a", 0), ("a", 1), ("b", 0), ("b", 1)] == folded(aligner)


def test_records_below_the_position_are_dropped() -> None:
    """What was committed before the partition was taken is not folded again, and its room is given back."""
    aligner = Aligner({"a": 5}, remaining({"a": 7}))
    given_back: list[Run] = []
    run = run_of("a", (3, 1), (4, 1))
    run._done = given_back.append
    aligner.push(run)
    aligner.push(run_of("a", (4, 1), (5, 1), (6, 1)))

    assert [run] == given_back
    assert [("a", 5), ("a", 6)] == folded(aligner)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50)), min_size=1, max_size=60),
    st.lists(st.integers(1, 5), min_size=1, max_size=60),
)
def test_every_record_goes_once_and_in_offset_order(records: list[tuple[int, int]], sizes: list[int]) -> None:
    """Whatever the timestamps and the sizes of runs, each topic's records all go, once, in order."""
    topics = ("a", "b", "c")
    lanes: dict[str, list[tuple[int, int]]] = {topic: [] for topic in topics}
    for lane, timestamp in records:
        lanes[topics[lane]].append((len(lanes[topics[lane]]), timestamp))
    clock = Clock()
    aligner = Aligner(dict.fromkeys(topics, 0), remaining({topic: len(lane) for topic, lane in lanes.items()}), clock)
    seen: list[tuple[str, int]] = []
    waiting = {topic: list(lane) for topic, lane in lanes.items()}
    for turn, size in enumerate(sizes * 60):
        topic = topics[turn % 3]
        if part := waiting[topic][:size]:
            aligner.push(run_of(topic, *part))
            del waiting[topic][:size]
        seen.extend(folded(aligner))
    clock.now += 11
    seen.extend(folded(aligner))

    for topic in topics:
        assert list(range(len(lanes[topic]))) == [offset for found, offset in seen if found == topic]
