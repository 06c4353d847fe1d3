"""One partition of the signals worker in process: what it counts, learns, keeps and publishes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from models.ease import Weights
from streams import metrics
from streams.kafka.partitioner import partition_of
from streams.kafka.transactions import OutRecord
from streams.kafka.transport import Record
from streams.settings import Settings
from streams.signals.fitting import Fit
from streams.signals.partition import SignalsPartition
from streams.signals.routing import item_partitions, routed
from streams.wire.signals import ItemEvent, ItemSignals, decode_item_signals, encode_item_events, item_events
from tests.support.plain_signals import PlainSignals
from tests.support.records import slice_of

NOW_MS = 1_700_000_000_000
CLICK, DISLIKE = 1, 4
SETTINGS = Settings(partitions=2)


class FakeMessage:
    """A changelog record as the restore sees it."""

    def __init__(self, record: OutRecord) -> None:
        self._record = record

    def key(self) -> bytes | None:
        """The key."""
        return self._record.key

    def value(self) -> bytes | None:
        """The value."""
        return self._record.value

    def offset(self) -> int:
        """Any offset."""
        return 0


def fold(partition: SignalsPartition, values: Iterable[bytes]) -> None:
    """Hand over records of `item-events` in one run."""
    records = [Record(0, 0, None, value) for value in values]
    partition.fold([slice_of("item-events", records, partition.partition)])


def restored(records: Sequence[OutRecord], partition: int) -> SignalsPartition:
    """A new owner with this changelog."""
    new = SignalsPartition(SETTINGS, partition, SETTINGS.partitions)
    new.restore([FakeMessage(record) for record in records if record.topic == "signal-state"])
    return new


def published(records: Sequence[OutRecord]) -> dict[str, ItemSignals]:
    """The newest signals of each item."""
    found = [decode_item_signals(record.value or b"") for record in records if record.topic == "item-signals"]
    return {signals.item_id: signals for signals in found}


def walk(seed: int, count: int, items: int = 30) -> list[bytes]:
    """Records of partition 0 that tell a random walk over items, twenty events each."""
    rng = np.random.default_rng(seed)
    met = ["x"] * 3
    values: list[bytes] = []
    for begin in range(0, count, 20):
        rows = []
        for number in range(begin, begin + 20):
            item_id = f"i{rng.integers(items)}"
            code = int(rng.choice([0, 1, 2, 3, 4, 5]))
            rows.append(ItemEvent(1, item_id, code, NOW_MS + number * 40_000_000, tuple(met[: rng.integers(4)])))
            met = [item_id, *met[:2]]
        events = item_events(rows)
        owners = item_partitions(events.ids, 2)
        values.extend(value for partition, value in routed(events, owners) if partition == 0)
    return values


def test_what_is_published_is_what_plain_loops_find() -> None:
    """Counts of own items, and the rules from own items, whatever the batches."""
    partition, plain = SignalsPartition(SETTINGS, 0, 2), PlainSignals(SETTINGS, 0)
    values = walk(1, 400)
    fold(partition, values[:3])
    fold(partition, values[3:])
    for value in values:
        plain.fold(value)
    found = published(list(partition.gather()))

    assert found.keys() == {*plain.events, *plain.hitters.rows}
    for item_id, signals in found.items():
        assert partition_of(item_id.encode(), 2) == 0
        assert plain.events[item_id] == signals.events
        assert plain.followers(item_id) == list(signals.followers)
    assert [] == list(partition.gather())


@pytest.mark.parametrize("items", [30, 1_500])
def test_a_restored_partition_goes_on_as_if_never_stopped(items: int) -> None:
    """The changelog holds all there is: the next commit is the same to the byte; also beyond the sketch's room."""
    values = walk(2, 4_000, items)
    half = len(values) // 2
    whole = SignalsPartition(SETTINGS, 0, 2)
    fold(whole, values[:half])
    changelog = list(whole.gather())
    fold(whole, values[half:])
    other = restored(changelog, 0)
    fold(other, values[half:])
    expected, found = (sorted(part.gather(), key=lambda record: (record.topic, record.key)) for part in (whole, other))

    assert expected == found


def test_dislikes_and_items_met_twice_make_no_rules() -> None:
    """A dislike follows nothing; an item does not follow itself; of two meetings the nearer counts."""
    settings = Settings(partitions=1)
    partition = SignalsPartition(settings, 0, 1)
    fold(
        partition,
        [
            encode_item_events(
                item_events(
                    [
                        ItemEvent(1, "b", CLICK, NOW_MS, ("a", "b", "a")),
                        ItemEvent(1, "c", CLICK, NOW_MS, ("b", "a")),
                        ItemEvent(1, "d", DISLIKE, NOW_MS, ("a",)),
                    ]
                )
            )
        ],
    )
    found = published(list(partition.gather()))

    assert (("b", 0.666667), ("c", 0.333333)) == found["a"].followers
    assert (("c", 0.666667), ("a", 0.333333)) == found["b"].followers
    assert (("b", 0.666667), ("a", 0.333333)) == found["c"].followers
    assert [0, 1, 1, 1] == [found[name].events for name in "abcd"]
    assert 0.0 == found["d"].popularity


def fit(ids: list[str], targets: list[list[int]]) -> Fit:
    """A fit in which each item speaks for others, each half as much as the one before."""
    rows = np.full((len(ids), 64), -1, np.int32)
    weights = np.zeros((len(ids), 64), np.float32)
    for place, row in enumerate(targets):
        rows[place, : len(row)] = row
        weights[place, : len(row)] = 0.5 ** np.arange(1, len(row) + 1)
    return Fit(ids, item_partitions(ids, 2), Weights(rows, weights))


def test_fitted_neighbours_are_published_kept_and_forgotten() -> None:
    """Each owner publishes its items' rows; a new owner has them; an item that is in no fit any more loses them."""
    ids = [f"i{number}" for number in range(450)]
    own = [item_id for item_id in ids if partition_of(item_id.encode(), 2) == 0]
    partition = SignalsPartition(SETTINGS, 0, 2)
    first = fit(ids, [[(place + 1) % 450, (place + 2) % 450] for place in range(450)])
    pieces = list(partition.fitted(first))
    records = [record for piece in pieces for record in piece]
    found = published(records)
    place = ids.index(own[0])

    assert len(pieces) > 1
    assert set(own) == set(found)
    assert ((ids[(place + 1) % 450], 0.5), (ids[(place + 2) % 450], 0.25)) == found[own[0]].neighbours
    assert partition.fit is first
    assert [] == [record for piece in partition.fitted(first) for record in piece]

    again = restored(records, 0)
    gone = [record for piece in again.fitted(fit(own[:1], [[]])) for record in piece]
    tombstones = [record for record in gone if record.topic == "signal-state" and record.value is None]

    assert len(own) - 1 == len(tombstones)
    assert {()} == {signals.neighbours for signals in published(gone).values()}
    assert [] == [record for piece in restored([*records, *gone], 0).fitted(fit([], [])) for record in piece][2:]


def test_damaged_state_costs_that_part_only() -> None:
    """A record that cannot be read, or of another partition's item, is counted and left out; the rest is restored."""
    settings = Settings(partitions=1)
    partition = SignalsPartition(settings, 0, 1)
    fold(partition, [encode_item_events(item_events([ItemEvent(1, "b", CLICK, NOW_MS, ("a",))]))])
    state = {record.key: record for record in partition.gather() if record.topic == "signal-state"}

    assert {b"b", b"\x00followers:a", b"\x00followers:b"} == state.keys()
    cut = state[b"\x00followers:a"]._replace(value=(state[b"\x00followers:a"].value or b"")[:-1])
    new = SignalsPartition(settings, 0, 1)
    before = metrics.STATE_DAMAGED._value.get()
    new.restore([FakeMessage(record) for record in (state[b"b"], cut)])
    fold(new, [encode_item_events(item_events([ItemEvent(1, "b", CLICK, NOW_MS, ("a",))]))])
    found = published(list(new.gather()))

    assert (2, (("b", 1.0),)) == (found["b"].events, found["a"].followers)
    assert 1 == metrics.STATE_DAMAGED._value.get() - before
    # Of five items, those that another partition owns are no state of this one.
    foreign = [OutRecord("signal-state", f"i{number}".encode(), state[b"b"].value) for number in range(5)]
    restored(foreign, 0)
    assert sum(partition_of(f"i{number}".encode(), 2) for number in range(5)) == (
        metrics.STATE_DAMAGED._value.get() - before - 1
    )


def test_a_batch_that_cannot_be_read_is_kept() -> None:
    """It becomes a dead letter; the batches around it count."""
    partition = SignalsPartition(Settings(partitions=1), 0, 1)
    good = encode_item_events(item_events([ItemEvent(1, "b", CLICK, NOW_MS)]))
    fold(partition, [good, good[:-1], good])
    records = list(partition.gather())

    assert [good[:-1]] == [record.value for record in records if record.topic == "dead-letters"]
    assert 2 == published(records)["b"].events
    fold(partition, [b""])
    assert ["dead-letters"] == [record.topic for record in partition.gather()]
