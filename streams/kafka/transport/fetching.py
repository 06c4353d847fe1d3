"""
aiokafka's fetcher, with the records of batched topics as columns.

aiokafka makes an object of each record in two steps that have no place to hang something else in: the fetch names the
classes it makes, and handing over asks for exactly one of them. Both are run here as they are, with other classes
under these names, for one fetcher alone; `check_versions` tells which aiokafka they were read in.
"""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from types import FunctionType, MethodType
from typing import Any, Final

from aiokafka import codec
from aiokafka.consumer import fetcher as driver
from aiokafka.errors import CorruptRecordException

from streams.kafka.transport.pacing import Pace
from streams.kafka.transport.records import Records, read_batch

#: Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and greatest timestamp, producer
#: id and epoch, base sequence, number of records: the head of a batch of message format 2.
_HEAD: Final = struct.Struct(">qiibIhiqqqhii")
_LENGTH: Final = struct.Struct(">i")
#: What stands before the part that the length counts.
_BEFORE_BYTES: Final = 12
_MAGIC_AT: Final = 16
_CODEC_MASK: Final = 0x07
_LOG_APPEND_MASK: Final = 0x08
_DECODE: Final[dict[int, Callable[[bytes], bytes]]] = {
    1: codec.gzip_decode, 2: codec.snappy_decode, 3: codec.lz4_decode, 4: codec.zstd_decode,
}  # fmt: skip


def fetch_columns(fetcher: Any, batched: Collection[str], pause_s: float) -> None:
    """Have a fetcher give `Records` for batched topics; for others it goes on as before. It fetches at a `Pace`."""

    def own(name: str, named: Mapping[str, Any]) -> Any:
        stock = getattr(driver.Fetcher, name)
        names = {**stock.__globals__, "FetchResult": _Result, **named}
        code = FunctionType(stock.__code__, names, name, stock.__defaults__)
        return MethodType(code, fetcher)

    def paced() -> tuple[Pace, Any]:
        pace = Pace(pause_s)

        def records_of(tp: Any, fetched: _Fetched, *rest: Any) -> Any:
            pace.brought(tp, fetched.size_in_bytes())
            if tp.topic in batched:
                return _Batches(tp, fetched, *rest)
            return driver.PartitionRecords(tp, fetched.stock, *rest)

        return pace, own("_proc_fetch_request", {"MemoryRecords": _Fetched, "PartitionRecords": records_of})

    # One for each broker: their answers come apart, and each has to be asked for all of its partitions in its turn.
    of_node: defaultdict[int, tuple[Pace, Any]] = defaultdict(paced)

    async def fetch_at_pace(assignment: Any, node_id: int, request: Any) -> Any:
        pace, fetch = of_node[node_id]
        if (wait_s := pace.wait_s()) > 0:
            await asyncio.sleep(wait_s)
        try:
            return await fetch(assignment, node_id, _narrowed(request, pace))
        finally:
            pace.answered()

    fetcher._proc_fetch_request = fetch_at_pace  # noqa: SLF001 -- no API
    fetcher.fetched_records = own("fetched_records", {})


def _narrowed(request: Any, pace: Pace) -> Any:
    """Return the fetch that the pace asks for: all of it, or some partitions, and then only for a short time."""
    places = [driver.TopicPartition(topic, place[0]) for topic, wanted in request.topics for place in wanted]
    chosen = pace.asks(places)
    if chosen is None or len(chosen) == len(places):
        return request
    some = set(chosen)
    narrow = copy(request)
    narrow._topics = [  # noqa: SLF001 -- no API
        (topic, kept)
        for topic, wanted in request.topics
        if (kept := [place for place in wanted if (topic, place[0]) in some])
    ]
    narrow._max_wait_ms = max(1, round(1000 * pace.pause_s))  # noqa: SLF001 -- the same
    return narrow


class _Fetched:
    """The bytes of one partition in a fetch response, read batch by batch."""

    def __init__(self, raw: bytes) -> None:
        self.stock = driver.MemoryRecords(raw)
        self._raw = raw
        self._at = 0

    def has_next(self) -> bool:
        return bool(self.stock.has_next())

    def size_in_bytes(self) -> int:
        return len(self._raw)

    def next_batch(self) -> _Batch:
        begin = self._at
        self._at += _BEFORE_BYTES + _LENGTH.unpack_from(self._raw, begin + 8)[0]
        return _Batch(self.stock.next_batch(), self._raw, begin, self._at)


class _Batch:
    """
    One batch: aiokafka's own, which knows its head, as an iterator of one thing, its records as columns.

    Attributes
    ----------
    offset
        Of its last record: what aiokafka takes the one thing for is a record.
    records
        Its records, after iterating.

    """

    def __init__(self, stock: Any, raw: bytes, begin: int, end: int) -> None:
        self._stock = stock
        self._raw = raw
        self._begin = begin
        self._end = end
        self.offset = -1
        self.records = Records.of(())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stock, name)

    def __next__(self) -> Any:
        # The marker of a control batch.
        return next(self._stock)

    def __iter__(self) -> Iterator[_Batch]:
        self.records = self._read()
        if self.records:
            self.offset = self.records[-1].offset
            yield self

    def _read(self) -> Records:
        if self._raw[self._begin + _MAGIC_AT] < 2:
            # Formats of before Kafka 0.11, which may lie in old segments.
            return Records.of(self._stock)
        base_offset, _, _, _, _, attributes, _, first_ms, greatest_ms, _, _, _, count = _HEAD.unpack_from(
            self._raw, self._begin
        )
        body = self._raw[self._begin + _HEAD.size : self._end]
        if compression := attributes & _CODEC_MASK:
            if compression not in _DECODE:
                raise CorruptRecordException(f"a batch of compression {compression}")
            body = _DECODE[compression](body)
        log_append = bool(attributes & _LOG_APPEND_MASK)
        return read_batch(body, count, base_offset, greatest_ms if log_append else first_ms, log_append=log_append)


class _Batches(driver.PartitionRecords):  # type: ignore[misc]  # aiokafka ships no types for it
    """
    What a fetch brought of one partition, handed over in pieces.

    aiokafka's own code skips aborted transactions and control batches and keeps `next_fetch_offset`.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._rest: Records | None = None

    def _consumer_record(self, tp: Any, record: _Batch) -> Records:
        del tp
        # A fetch begins with the batch that holds its offset, which may begin before it.
        first = int(record.records.offsets.searchsorted(self.next_fetch_offset))
        return record.records[first:]

    def take(self, most: int | None) -> tuple[Records, bool]:
        """Return the next records, `most` at most, and whether they are the last ones; moves `next_fetch_offset`."""
        pieces: list[Records] = []
        count = 0
        while most is None or count < most:
            try:
                piece, self._rest = self._rest or next(self), None
            except StopIteration:
                return Records.joined(pieces), True
            except CorruptRecordException:
                # What stands before the damage is good; the next fetch begins with the damage.
                if not pieces:
                    raise
                return Records.joined(pieces), True
            pieces.append(piece)
            count += len(piece)
        taken = Records.joined(pieces)
        if count > most:
            self._rest = pieces[-1][len(pieces[-1]) - (count - most) :]
            taken = taken[:most]
        if len(taken):
            self.next_fetch_offset = taken[-1].offset + 1
        return taken, False


class _Result(driver.FetchResult):  # type: ignore[misc]  # aiokafka ships no types for it
    """A fetch result that hands columns over as columns."""

    _partition_records: Any

    def getall(self, max_records: int | None = None) -> Sequence[Any]:
        """Return the next records; as aiokafka's own, which iterates."""
        batches = self._partition_records
        if not isinstance(batches, _Batches):
            stock: Sequence[Any] = super().getall(max_records)
            return stock
        if not self.check_assignment(self._topic_partition):
            return ()
        records, last = batches.take(max_records)
        self._update_position()
        if last:
            self._partition_records = None
        return records
