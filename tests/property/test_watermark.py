"""The commit watermark against the plain definition, for every order of finishing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.encoding.watermark import Position, Watermark


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Position], list[Position]]:
    """Return records of two partitions, with gaps as compaction leaves them, and an order of finishing some."""
    read = []
    for partition in (0, 1):
        offsets = draw(st.lists(st.integers(0, 1_000), unique=True, max_size=30).map(sorted))
        read += [Position("items", partition, offset) for offset in offsets]
    finished = draw(st.permutations(read))
    return read, finished[: draw(st.integers(0, len(finished)))]


@given(histories())
def test_nothing_unfinished_is_committed(history: tuple[list[Position], list[Position]]) -> None:
    """The mark is the first unfinished record, else the one after the last: never past, never short of it."""
    read, finished = history
    marks = Watermark()
    marks.add(read)
    for position in finished:
        marks.finish([position])
    expected = {}
    for at in {position[:2] for position in read}:
        unfinished = [position.offset for position in read if position[:2] == at and position not in set(finished)]
        last = max(position.offset for position in read if position[:2] == at)
        expected[at] = min(unfinished, default=last + 1)
    assert marks.marks() == expected
    assert marks.pending == len(read) - len(finished)


@given(histories())
def test_only_what_moved_is_committed_again(history: tuple[list[Position], list[Position]]) -> None:
    """After Kafka took the marks there is nothing to commit until a partition moves."""
    read, finished = history
    marks = Watermark()
    marks.add(read)
    marks.finish(finished)
    marks.committed(marks.commits())
    assert marks.commits() == {}


def test_a_dropped_partition_is_forgotten() -> None:
    """Late results of a partition that was taken away do not commit it."""
    marks = Watermark()
    marks.add([Position("items", 0, 5), Position("items", 1, 5)])
    marks.drop({("items", 0)})
    marks.finish([Position("items", 0, 5)])
    assert marks.commits() == {("items", 1): 5}


def test_a_partition_read_again_starts_anew() -> None:
    """When reading goes back, what was known of later records does not count."""
    marks = Watermark()
    marks.add(Position("items", 0, offset) for offset in range(5, 10))
    marks.finish(Position("items", 0, offset) for offset in range(5, 10))
    marks.add([Position("items", 0, 6)])
    assert marks.commits() == {("items", 0): 6}
