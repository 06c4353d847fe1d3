"""Signals survive any sequence of commits, crashes and compactions: what is known is what plain loops find."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.outgoing import OutRecord
from streams.kafka.transport import Record
from streams.settings import Settings
from streams.signals.codec import encode_batches
from streams.signals.journal import BATCHES_PREFIX, Journal
from streams.signals.partition import SignalsPartition
from streams.wire.neighbours import decode_item_neighbours
from streams.wire.signals import ItemEvent, decode_item_signals, encode_item_events, item_events
from tests.support.partitions import messages
from tests.support.plain_signals import PlainSignals
from tests.support.records import slice_of

NOW_MS = 1_700_000_000_000
SETTINGS = Settings(partitions=1)
ITEMS = 70
#: One event: its item, type code, and up to three items before.
EVENTS = st.tuples(st.integers(0, ITEMS - 1), st.integers(0, 5), st.lists(st.integers(0, ITEMS - 1), max_size=3))
BATCHES = st.lists(st.lists(EVENTS, min_size=1, max_size=40), min_size=1, max_size=3)
#: Fold batches; commit after so many seconds; crash, which loses what was not committed; compact the changelog.
STEPS = st.lists(st.one_of(BATCHES, st.floats(0, 100), st.sampled_from(["crash", "compact"])), max_size=20)


class Run:
    """One partition with a changelog that is kept, and the plain loops beside it."""

    def __init__(self) -> None:
        self.plain = PlainSignals(SETTINGS, 0)
        self.committed: list[OutRecord] = []
        self._pending: list[bytes] = []
        self._now_s = 0.0
        self._ts_ms = NOW_MS
        self._open()

    def _open(self) -> None:
        self._partition = SignalsPartition(SETTINGS, 0, 1, clock=lambda: self._now_s)
        self._partition.restore(messages(self.committed, "signal-state"))

    def step(self, step: object) -> None:
        """Do one thing."""
        if isinstance(step, list):
            self._fold([self._batch(events) for events in step])
        elif isinstance(step, float):
            self._commit(step)
        elif step == "crash":
            self._pending = []
            self._open()
        else:
            self._compact()

    def _batch(self, events: list[tuple[int, int, list[int]]]) -> bytes:
        rows = []
        for item, code, previous in events:
            self._ts_ms += 40_000_000
            rows.append(ItemEvent(1, f"i{item}", code, self._ts_ms, tuple(f"i{number}" for number in previous)))
        return encode_item_events(item_events(rows))

    def _fold(self, values: list[bytes]) -> None:
        self._partition.fold([slice_of("item-events", [Record(0, 0, None, value) for value in values], 0)])
        self._pending += values

    def _commit(self, seconds: float) -> None:
        self._now_s += seconds
        self.committed += self._partition.gather()
        for value in self._pending:
            self.plain.fold(value)
        self._pending = []

    def _compact(self) -> None:
        last = {(record.topic, record.key): place for place, record in enumerate(self.committed)}
        self.committed = [self.committed[place] for place in sorted(last.values())]

    def finish(self) -> None:
        """Commit until nothing waits."""
        self._commit(0.0)
        while self._partition.waits:
            self._commit(1.0)


@given(STEPS)
def test_nothing_is_lost_or_counted_twice(steps: list[object]) -> None:
    """After crashes anywhere, counts and rules are those of the committed batches, each once and in order."""
    run = Run()
    for step in steps:
        run.step(step)
    run.finish()
    signals = [decode_item_signals(r.value or b"") for r in run.committed if r.topic == "item-signals"]
    neighbours = [decode_item_neighbours(r.value or b"") for r in run.committed if r.topic == "item-neighbours"]
    rules = {told.item_id: list(told.followers) for told in neighbours}

    assert run.plain.events == {told.item_id: told.events for told in signals}
    assert {str(name): run.plain.followers(str(name)) for name in run.plain.hitters.rows} == rules


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.floats(0, 20)), max_size=60))
def test_keys_are_reused_and_never_while_needed(steps: list[tuple[int, int, float]]) -> None:
    """A record of batches is overwritten only after all rows that waited since are written."""
    journal = Journal("signal-state", 0)
    lying: dict[bytes, set[int]] = {}
    for count, rows, elapsed_s in steps:
        touched = set(range(7 * count, 7 * count + rows))
        for number in range(count):
            journal.add(b"%d" % number)
        journal.wait(sorted(touched) if count else ())
        for record in journal.batches():
            key = record.key or b""
            assert key.startswith(BATCHES_PREFIX)
            assert not lying.get(key)
            assert record.value == encode_batches([b"%d" % number for number in range(count)])
            lying[key] = set(touched)
        written = set(journal.due(elapsed_s))
        for needed in lying.values():
            needed.difference_update(written)

    assert len(journal) == len(set().union(*lying.values()))
