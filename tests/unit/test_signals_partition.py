"""One partition of the signals worker in process: what it counts, learns, keeps and publishes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from models.ease import Weights
from streams import metrics
from streams.kafka.outgoing import OutRecord
from streams.kafka.partitioner import partition_of
from streams.kafka.transport import Record
from streams.settings import Settings
from streams.signals.codec import NEIGHBOURS_PREFIX
from streams.signals.fitting import Fit
from streams.signals.journal import BATCHES_PREFIX
from streams.signals.partition import SignalsPartition
from streams.signals.routing import item_partitions, routed
from streams.wire.neighbours import ItemNeighbours, decode_item_neighbours
from streams.wire.signals import ItemEvent, ItemSignals, decode_item_signals, encode_item_events, item_events
from tests.support.partitions import messages
from tests.support.plain_signals import PlainSignals
from tests.support.records import slice_of

NOW_MS = 1_700_000_000_000
CLICK, DISLIKE = 1, 4
SETTINGS = Settings(partitions=2, day_parts=2, user_devices=("phone", "tv"))


def fold(partition: SignalsPartition, values: Iterable[bytes]) -> None:
    """Hand over records of `item-events` in one run."""
    records = [Record(0, 0, None, value) for value in values]
    partition.fold([slice_of("item-events", records, partition.partition)])


def restored(records: Sequence[OutRecord], partition: int) -> SignalsPartition:
    """A new owner with this changelog."""
    new = SignalsPartition(SETTINGS, partition, SETTINGS.partitions)
    new.restore(messages(records, "signal-state"))
    return new


def written(partition: SignalsPartition) -> list[OutRecord]:
    """All that is to be written, as many commits as it takes."""
    records = list(partition.gather())
    while partition.waits:
        records.extend(partition.gather())
    return records


def published(records: Sequence[OutRecord]) -> dict[str, ItemSignals]:
    """The newest signals of each item."""
    found = [decode_item_signals(record.value or b"") for record in records if record.topic == "item-signals"]
    return {signals.item_id: signals for signals in found}


def together(records: Sequence[OutRecord]) -> dict[str, ItemNeighbours]:
    """The newest neighbours of each item."""
    found = [decode_item_neighbours(record.value or b"") for record in records if record.topic == "item-neighbours"]
    return {told.item_id: told for told in found}


def newest(records: Sequence[OutRecord]) -> dict[tuple[str, bytes | None], bytes | None]:
    """The newest record under each key, batches apart: they stand for what is in no record yet."""
    return {
        (record.topic, record.key): record.value
        for record in records
        if not (record.key or b"").startswith(BATCHES_PREFIX)
    }


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
            device = int(rng.choice([0, 1, 2, 255]))
            ts_ms = NOW_MS + number * 40_000_000
            rows.append(ItemEvent(1, item_id, code, ts_ms, tuple(met[: rng.integers(4)]), device))
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
    records = written(partition)
    found, told = published(records), together(records)

    assert found.keys() == set(plain.events)
    assert told.keys() == set(plain.hitters.rows)
    assert all(partition_of(item_id.encode(), 2) == 0 for item_id in (*found, *told))
    assert plain.events == {item_id: signals.events for item_id, signals in found.items()}
    for signals in found.values():
        assert pytest.approx(signals.popularity) == sum(signals.in_segments)
        assert pytest.approx(plain.in_segments(signals.item_id, signals.ref_ts)) == list(signals.in_segments)
        assert SETTINGS.user_devices == signals.devices
    assert {name: plain.followers(name) for name in told} == {name: list(one.followers) for name, one in told.items()}
    assert [] == list(partition.gather())


@pytest.mark.parametrize("items", [30, 1_500])
def test_a_restored_partition_goes_on_as_if_never_stopped(items: int) -> None:
    """The changelog holds all there is: what is written later is the same to the byte; also beyond a sketch's room."""
    values = walk(2, 4_000, items)
    half = len(values) // 2
    whole = SignalsPartition(SETTINGS, 0, 2, clock=float)
    fold(whole, values[:half])
    changelog = list(whole.gather())
    other = restored(changelog, 0)
    expected, found = list(changelog), list(changelog)
    for partition, records in ((whole, expected), (other, found)):
        fold(partition, values[half:])
        records.extend(written(partition))

    assert newest(expected) == newest(found)
    assert (whole.waits, other.waits) == (False, False)


def test_items_are_written_in_the_order_in_which_they_changed() -> None:
    """A commit writes those that have waited longest, a share of all that grows with the time since the last."""
    now_s = [0.0]
    partition = SignalsPartition(Settings(partitions=1), 0, 1, clock=lambda: now_s[0])
    for number in range(400):
        fold(partition, [encode_item_events(item_events([ItemEvent(1, f"i{number}", CLICK, NOW_MS)]))])
    counts = []
    order: list[bytes | None] = []
    for seconds in (0.0, 30.0, 60.0):
        now_s[0] += seconds
        records = [record for record in partition.gather() if record.topic == "signal-state"]
        items = [record.key for record in records if not (record.key or b"").startswith(b"\x00")]
        counts.append(len(items))
        order.extend(items)

    # Fifty at least; then half of the 350 that are left after half a round; then all.
    assert [50, 175, 175] == counts
    assert [b"i%d" % number for number in range(400)] == order
    assert not partition.waits


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
    records = written(partition)
    found, told = published(records), together(records)

    assert (("b", 0.666667), ("c", 0.333333)) == told["a"].followers
    assert (("c", 0.666667), ("a", 0.333333)) == told["b"].followers
    assert (("b", 0.666667), ("a", 0.333333)) == told["c"].followers
    assert [1, 1, 1] == [found[name].events for name in "bcd"]
    assert {"a", "b", "c"} == told.keys()
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
    partition.take_fit(first)
    records = written(partition)
    found = together(records)
    place = ids.index(own[0])

    assert set(own) == set(found)
    assert ((ids[(place + 1) % 450], 0.5), (ids[(place + 2) % 450], 0.25)) == found[own[0]].neighbours
    assert partition.fit is first
    partition.take_fit(first)
    assert [] == written(partition)

    again = restored(records, 0)
    again.take_fit(fit(own[:1], [[]]))
    gone = written(again)
    tombstones = [record for record in gone if record.topic == "signal-state" and record.value is None]

    assert len(own) - 1 == len(tombstones)
    assert {()} == {told.neighbours for told in together(gone).values()}
    last = restored([*records, *gone], 0)
    last.take_fit(fit([], []))
    assert [(NEIGHBOURS_PREFIX + own[0].encode(), None)] == [
        (record.key, record.value) for record in written(last) if record.topic == "signal-state"
    ]


def test_damaged_state_costs_that_part_only() -> None:
    """A record that cannot be read, or of another partition's item, is counted and left out; the rest is restored."""
    settings = Settings(partitions=1)
    partition = SignalsPartition(settings, 0, 1)
    fold(partition, [encode_item_events(item_events([ItemEvent(1, "b", CLICK, NOW_MS, ("a",))]))])
    state = {record.key: record for record in partition.gather() if record.topic == "signal-state"}

    assert {b"b", b"\x00followers:a", b"\x00followers:b", b"\x00batches:0"} == state.keys()
    cut = state[b"\x00followers:a"]._replace(value=(state[b"\x00followers:a"].value or b"")[:-1])
    new = SignalsPartition(settings, 0, 1)
    before = metrics.STATE_DAMAGED._value.get()
    new.restore(messages([state[b"b"], cut], "signal-state"))
    fold(new, [encode_item_events(item_events([ItemEvent(1, "b", CLICK, NOW_MS, ("a",))]))])
    records = written(new)

    assert (2, (("b", 1.0),)) == (published(records)["b"].events, together(records)["a"].followers)
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
