"""Records as columns hold what aiokafka reads out of the same fetch, whatever was written and however it is taken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from aiokafka.consumer.fetcher import Fetcher, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.transport import Record, Records
from streams.kafka.transport.fetching import _Batches, _Fetched, fetch_columns
from streams.kafka.transport.records import read_batch

PLACE = TopicPartition("clicks", 0)
NOW_MS = 1_700_000_000_000
READ_COMMITTED = 1
CHECKED = True
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}

_BYTES = st.one_of(st.none(), st.binary(max_size=40))
_HEADERS = st.lists(st.tuples(st.text("abc\u00e9", max_size=5), _BYTES), max_size=3)


class Written(NamedTuple):
    """A batch: its distance to the one before, its records as (distance, ms, key, value, headers), codec and fate."""

    gap: int
    records: list[tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]
    codec: int
    aborted: bool


BATCHES = st.lists(
    st.builds(
        Written,
        st.integers(0, 3),
        st.lists(
            st.tuples(st.integers(0, 2), st.integers(-5, 90_000), _BYTES, _BYTES, _HEADERS), min_size=1, max_size=6
        ),
        st.sampled_from(sorted(CODECS.values())),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)
#: Producers of aborted and of other batches.
ABORTED, GOOD = 7, 8


def fetched(batches: list[Written]) -> tuple[bytes, list[tuple[int, int]], list[int]]:
    """Return the bytes of a fetch, its aborted transactions, and the offsets that are to be read."""
    raw = b""
    aborted: list[tuple[int, int]] = []
    offsets: list[int] = []
    base = 0
    for batch in batches:
        base += batch.gap
        builder = DefaultRecordBatchBuilder(
            magic=2, compression_type=batch.codec, is_transactional=1, producer_id=ABORTED if batch.aborted else GOOD,
            producer_epoch=0, base_sequence=0, batch_size=1 << 20,
        )  # fmt: skip
        delta = -1
        for gap, ms, key, value, headers in batch.records:
            delta += 1 + gap
            builder.append(delta, NOW_MS + ms, key, value, headers)
            if not batch.aborted:
                offsets.append(base + delta)
        built = bytearray(builder.build())
        # The base offset is what a broker fills in; the checksum does not cover it.
        built[:8] = base.to_bytes(8, "big")
        if batch.aborted and not aborted:
            aborted.append((ABORTED, base))
        raw += bytes(built)
        base += delta + 1
    return raw, aborted, offsets


def stock(raw: bytes, aborted: list[tuple[int, int]], start: int) -> PartitionRecords:
    """Return aiokafka's own reader."""
    return PartitionRecords(PLACE, MemoryRecords(raw), aborted, start, None, None, CHECKED, READ_COMMITTED)


def columns(raw: bytes, aborted: list[tuple[int, int]], start: int) -> _Batches:
    """Return the reader of columns."""
    return _Batches(PLACE, _Fetched(raw), aborted, start, None, None, CHECKED, READ_COMMITTED)


@given(BATCHES, st.integers(0, 12), st.integers(1, 7))
def test_columns_hold_what_aiokafka_reads(batches: list[Written], start: int, most: int) -> None:
    """Codecs, nulls, headers, gaps, aborted transactions, a start within a batch, pieces of any size: no difference."""
    # A broker's answer begins with the batch that holds the offset asked for.
    first = batches[0]
    start = min(start, first.gap + sum(1 + gap for gap, *_ in first.records) - 1)
    raw, aborted, offsets = fetched(batches)
    reader = stock(raw, list(aborted), start)
    expected = [Record(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in reader]
    batched = columns(raw, list(aborted), start)
    found: list[Record] = []
    last = False
    while not last:
        piece, last = batched.take(most)
        assert len(piece) <= most
        found += list(piece)
        if piece and not last:
            assert piece[-1].offset < batched.next_fetch_offset

    assert expected == found
    assert [offset for offset in offsets if offset >= start] == [record.offset for record in found]
    assert reader.next_fetch_offset == batched.next_fetch_offset


def test_what_stands_before_a_damaged_batch_is_handed_over() -> None:
    """Good records go first; the damage is raised by the fetch that begins with it, and nothing is skipped."""
    one = Written(0, [(0, 0, b"k", b"v", [])], 0, aborted=False)
    raw, _, _ = fetched([one, one])
    damaged = raw[:-1] + bytes([raw[-1] ^ 1])
    batched = columns(damaged, [], 0)

    piece, last = batched.take(10)
    assert ([0], True, 1) == ([record.offset for record in piece], last, batched.next_fetch_offset)
    with pytest.raises(CorruptRecordException):
        columns(damaged[len(damaged) // 2 :], [], 1).take(10)


@given(st.binary(max_size=200), st.integers(-1, 40))
def test_bytes_that_are_no_records_are_refused(raw: bytes, count: int) -> None:
    """Whatever stands behind a batch's head, it is read whole or refused: nothing is read beyond its end."""
    try:
        records = read_batch(raw, count, 0, NOW_MS, log_append=False)
    except CorruptRecordException:
        return
    assert count == len(list(records))


def test_a_size_beyond_32_bits_is_damage() -> None:
    """A value of 2^32 bytes does not read as one of none because the table's column is narrower."""
    with pytest.raises(CorruptRecordException):
        read_batch(bytes.fromhex("14 00 00 00 01 80 80 80 80 20 00"), 1, 0, NOW_MS, log_append=False)


def test_log_append_time_is_the_batchs() -> None:
    """Where the topic stamps records itself, their own deltas do not count."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1 << 20,
    )  # fmt: skip
    builder.append(0, NOW_MS, b"k", b"v", [])
    builder.append(1, NOW_MS + 9, b"k", b"v", [])
    body = bytes(builder.build())[61:]

    assert [5, 5] == read_batch(body, 2, 0, 5, log_append=True).timestamps.tolist()


def test_joined_parts_are_the_parts() -> None:
    """Joining moves bytes, and changes nothing that is read."""
    parts = [Records.of([Record(n, n, b"k%d" % n, None, (("h", b"%d" % n),))]) for n in range(3)]

    assert [record for part in parts for record in part] == list(Records.joined(parts))


def test_another_fetcher_is_left_alone() -> None:
    """Only the fetcher that was told has other classes under aiokafka's names."""
    before = Fetcher.fetched_records
    fetcher: Any = SimpleNamespace()
    fetch_columns(fetcher, {"clicks"}, 0.0)

    assert before is Fetcher.fetched_records
    assert fetcher.fetched_records.__func__.__code__ is Fetcher.fetched_records.__code__
