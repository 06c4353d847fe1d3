"""The encoder's pipeline between two stand-ins for Kafka: what is read ahead of a backlog, and how it is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import TopicPartition

from models.artifact import load_spec
from models.encoder import Encoder
from streams.encoding.backlog import Record
from streams.encoding.intake import Intake, Polled
from streams.encoding.pipeline import Pipeline
from streams.encoding.publisher import Publisher
from streams.encoding.seen import Seen
from streams.encoding.watermark import Position
from streams.settings import Settings
from streams.wire.items import Item
from tests.support.encoders import counted
from tests.support.tiny_model import make_tiny_model

TOPIC = "items"
PLACE = (TOPIC, 0)
OUTCOMES = ("encoded", "unchanged", "coalesced", "superseded", "deleted", "no_text", "refused", "failed")


class _Log:
    """One partition of `items`, its two readers, and the group that one of them is in."""

    def __init__(self, values: list[tuple[str, bytes | None]]) -> None:
        self.values = values
        self.turn = 0
        self.committed = 0
        self.sent: list[bytes] = []

    # What the group's reader is asked for.
    rebalancing = False
    held = shop_partitions = frozenset({PLACE})
    confirmed_s = float("inf")

    @property
    def reached(self) -> dict[tuple[str, int], int]:
        return {PLACE: self.turn}

    def behind(self) -> int:
        return len(self.values) - self.turn

    def live_starts(self) -> dict[tuple[str, int], int]:
        return {}

    def poll(self, _timeout_s: float, *, full: bool) -> Polled:
        """Give a few records at a time, so that most of the log is a backlog for long."""
        some = [] if full else self.values[self.turn : self.turn + 20]
        records = [
            Record(Position(TOPIC, 0, self.turn + place), shop=True, key=item_id.encode(), value=value)
            for place, (item_id, value) in enumerate(some)
        ]
        self.turn += len(some)
        return Polled(records, set(), gained=False)

    def commit(self, offsets: dict[tuple[str, int], int], _live_starts: object = None) -> bool:
        self.committed = offsets.get(PLACE, self.committed)
        return True

    def watch(self, _pending: int) -> None: ...

    # What vectors and dead letters are given to.
    def send(self, _topic: str, key: bytes, *_: object) -> None:
        self.sent.append(key)

    def refuse(self, _letter: object) -> None: ...
    def flush(self) -> None: ...
    def serve(self) -> None: ...


class _Ahead:
    """The second reader's consumer."""

    def __init__(self, log: _Log) -> None:
        self._log = log
        self._next = 0

    def assign(self, places: list[TopicPartition]) -> None:
        offset = places[0].offset
        self._next = offset if offset >= 0 else len(self._log.values)

    def consume(self, number: int, timeout: float) -> list[_Message]:
        del timeout
        start = self._next
        self._next = min(start + number, len(self._log.values))
        return [_Message(offset, *self._log.values[offset]) for offset in range(start, self._next)]

    def close(self) -> None: ...


class _Message:
    def __init__(self, offset: int, item_id: str, value: bytes | None) -> None:
        self._fields = {"topic": TOPIC, "partition": 0, "offset": offset, "key": item_id.encode(), "value": value}

    def __getattr__(self, name: str) -> Callable[[], object]:
        return lambda: self._fields.get(name)  # `error` among them: none


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> _Log:
    """A backlog of 900 items."""
    made = _Log([(f"i{number}", Item(f"i{number}", title=f"mug {number}").encode()) for number in range(900)])
    monkeypatch.setattr("streams.encoding.lane.reader", lambda *_, **__: _Ahead(made))
    return made


@pytest.fixture
def pipeline(log: _Log, tmp_path: Path) -> Iterator[Pipeline]:
    """A pipeline that reads it, with a tiny model."""
    encoder = Encoder(load_spec(make_tiny_model(tmp_path / "tiny")), "cpu", threads=1, precision="fp32")
    settings, seen = Settings(commit_interval_s=0.01), Seen(encoder.fingerprint)
    made = Pipeline(settings, encoder, seen, cast("Publisher", log), cast("Intake", log), partitions=1)
    yield made
    made.close()


def test_every_record_counts_once(log: _Log, pipeline: Pipeline) -> None:
    """Changes, deletions and bad records that are read ahead of a backlog count then, and not again at their turn."""
    turn_then = None  # how far the backlog was when the last item's change was out
    with ExitStack() as stack:
        counts = {outcome: stack.enter_context(counted(outcome)) for outcome in OUTCOMES}
        pipeline.step()
        log.values += [(f"i{number}", Item(f"i{number}", title="red cup").encode()) for number in range(0, 900, 9)]
        log.values += [("i800", None), ("i801", b"{nope"), ("i802", Item("i802", title=" ").encode())]
        while log.committed < len(log.values):
            pipeline.step()
            if turn_then is None and any(key.endswith(b":i891") for key in log.sent):
                turn_then = log.turn
    assert turn_then is not None
    assert turn_then < 891
    told = {outcome: read() for outcome, read in counts.items()}
    assert told["superseded"] > 50
    assert sum(told.values()) == len(log.values)
