"""The encoder's backlog: every record counts once and is settled once, whatever was read ahead of its turn."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from streams.encoding.backlog import Admission, Backlog, Job, Record
from streams.encoding.seen import Seen
from streams.encoding.watermark import Position
from streams.wire.items import Item

#: Of one item: two texts, an empty one, a deletion and bytes that are no record.
_VALUES = ("mug", "cup", "", None, b"{nope")


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """Return a partition's records of few items."""
    contents = draw(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(_VALUES)), max_size=25))
    return [
        Record(
            Position("items", 0, offset),
            shop=True,
            key=item_id.encode(),
            value=Item(item_id, title=value).encode() if isinstance(value, str) else value,
        )
        for offset, (item_id, value) in enumerate(contents)
    ]


class _Encoder:
    """A backlog with an encoder that has one batch under way; `counts` is what the metrics would say."""

    def __init__(self) -> None:
        self._seen = Seen("f")
        self._backlog = Backlog(self._seen, lambda: 0)
        self._batch: list[Job] = []
        self.counts: Counter[str] = Counter()
        self.settled: Counter[Position] = Counter()

    def read(self, record: Record) -> None:
        admission: Admission = self._backlog.admit([record])
        for job in admission.fresh:
            job.tokens = [0]
        self.counts += admission.outcomes
        self.settled.update(admission.settled)

    def encode(self, rows: int) -> None:
        """Publish the batch that is under way, all but what stopped being wanted, and take the next one."""
        for job in self._backlog.land(self._batch):
            self._seen.put(job.item_id, job.content_hash, shop=True)
            self.counts["encoded"] += 1
            self.settled.update(job.positions)
        self._batch = self._backlog.take(rows)

    def drain(self) -> None:
        while self._batch or self._backlog:
            self.encode(1_000)


@given(logs(), st.integers(0, 25), st.lists(st.sampled_from(["ahead", "turn", "encode", "encode all"]), max_size=80))
def test_every_record_counts_once(log: list[Record], start: int, steps: list[str]) -> None:
    """The group's reader and one that began later take turns with the device, in any order."""
    encoder = _Encoder()
    turn, ahead = 0, start
    for step in steps:
        ahead = max(ahead, turn)  # what has had its turn is not read ahead any more
        if step == "ahead" and ahead < len(log):
            encoder.read(log[ahead]._replace(ahead=True))
            ahead += 1
        elif step == "turn" and turn < len(log):
            encoder.read(log[turn]._replace(counted=start <= turn < ahead))
            turn += 1
        elif step.startswith("encode"):
            encoder.encode(1 if step == "encode" else 1_000)
    for offset in range(turn, len(log)):
        encoder.read(log[offset]._replace(counted=start <= offset < ahead))
    encoder.drain()
    assert encoder.counts.total() == len(log)
    assert encoder.settled == Counter(record.position for record in log)
