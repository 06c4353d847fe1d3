"""Golden bytes of `item-events`: older signals workers' records must be read, and damaged ones refused."""

from __future__ import annotations

import struct
import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import RecordFormatError
from streams.signals.routing import routed
from streams.wire.signals import (
    MAX_ITEM_EVENTS,
    MAX_ITEM_EVENTS_BYTES,
    ItemEvent,
    ItemEvents,
    decode_item_events,
    encode_item_events,
    item_events,
    seal,
)
from tests.support.strategies import as_rows, item_event_rows

ROWS = [ItemEvent(2**63, "i1", 1, 1_700_000_000_000, ("h2", "h1")), ItemEvent(1, "物", 3, 1_700_000_000_001)]
VERSION_1 = bytes.fromhex(
    "46450100" "f0e9f542"
    "9295cf8000000000000000a2693101cf0000018bcfe5680092a26832a268319501a3e789a903cf0000018bcfe5680190"
)  # fmt: skip
VERSION_2 = bytes.fromhex(
    "46450200" "ac5380f7"
    "02000000" "04000000"
    "0000000000000080" "0100000000000000"
    "0068e5cf8b010000" "0168e5cf8b010000"
    "00000000" "01000000"
    "0200000003000000ffffffff" "ffffffffffffffffffffffff"
    "01" "03"
    "69310ae789a90a68320a6831"
)  # fmt: skip
OF_DEVICES = [msgspec.structs.replace(row, device=device) for row, device in zip(ROWS, (1, 255), strict=True)]
VERSION_3 = bytes.fromhex(
    "46450300" "997ab986"
    "02000000" "04000000"
    "0000000000000080" "0100000000000000"
    "0068e5cf8b010000" "0168e5cf8b010000"
    "00000000" "01000000"
    "0200000003000000ffffffff" "ffffffffffffffffffffffff"
    "01" "03"
    "01" "ff"
    "69310ae789a90a68320a6831"
)  # fmt: skip


def test_columns_are_written() -> None:
    """Version 3: magic, version, checksum, counts, columns, ids; widest column first."""
    assert VERSION_3.hex() == encode_item_events(item_events(OF_DEVICES)).hex()
    assert as_rows(decode_item_events(VERSION_3)) == OF_DEVICES


def test_batches_without_devices_are_as_they_were() -> None:
    """Version 2, without that column: older signals workers read it."""
    assert VERSION_2.hex() == encode_item_events(item_events(ROWS)).hex()
    assert as_rows(decode_item_events(VERSION_2)) == ROWS


def test_rows_are_still_read() -> None:
    """Version 1, MessagePack arrays, gives the same columns; what a later writer of it appended is ignored."""
    appended = msgspec.msgpack.encode([[1, "i1", 1, 5, ["a", "b", "c", "d"], "appended"]])

    assert as_rows(decode_item_events(VERSION_1)) == ROWS
    assert [ItemEvent(1, "i1", 1, 5, ("a", "b", "c"))] == as_rows(decode_item_events(seal(b"FE", 1, appended)))


@pytest.mark.parametrize(
    "record",
    [b"", b"FE", b"XX" + VERSION_2[2:], b"FE\x04" + VERSION_2[3:], VERSION_2[:-1], VERSION_2 + b"\0", VERSION_1[:-1]],
)
def test_damaged_records_are_refused(record: bytes) -> None:
    """Cut, foreign, newer or longer records are no batch."""
    with pytest.raises(RecordFormatError):
        decode_item_events(record)


def altered(place: int, value: bytes) -> bytes:
    """The golden body with some bytes replaced, sealed anew."""
    body = VERSION_2[8:]
    return seal(b"FE", 2, body[:place] + value + body[place + len(value) :])


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (altered(0, struct.pack("<I", 3)), "length"),
        (altered(0, struct.pack("<I", MAX_ITEM_EVENTS + 1)), "length"),
        (altered(0, struct.pack("<I", 2**32 - 1)), "length"),
        (altered(4, struct.pack("<I", 5)), "ids"),
        (altered(24, struct.pack("<q", -1)), "time"),
        (altered(24, struct.pack("<q", 2**62)), "time"),
        (altered(40, struct.pack("<i", 4)), "index"),
        (altered(40, struct.pack("<i", -1)), "index"),
        (altered(48, struct.pack("<i", 4)), "index"),
        (altered(48, struct.pack("<i", -2)), "index"),
        (altered(72, b"\x06"), "type"),
        (altered(74, b"\xff"), "UTF-8"),
        (altered(74, b"\x00"), "control"),
        (seal(b"FE", 2, VERSION_2[8:] + b"x" * 199), "bytes"),
        (seal(b"FE", 3, VERSION_2[8:]), "bytes"),
        (seal(b"FE", 2, VERSION_2[8:-2] + b""), "bytes"),
        (seal(b"FE", 2, b"\x01"), "length"),
        (seal(b"FE", 1, msgspec.msgpack.encode([[-1, "i", 1, 5, []]])), "cannot be read"),
        (seal(b"FE", 1, msgspec.msgpack.encode([[1, "i", 300, 5, []]])), "cannot be read"),
        (seal(b"FE", 1, msgspec.msgpack.encode([[1, "i", 6, 5, []]])), "type"),
        (seal(b"FE", 1, msgspec.msgpack.encode([[1, "i\nj", 1, 5, []]])), "control"),
        (seal(b"FE", 1, msgspec.msgpack.encode([[1, "", 1, 5, []]])), "bytes"),
    ],
)
def test_what_cannot_be_is_refused(record: bytes, told: str) -> None:
    """A record with a right checksum is checked as well: lengths, indices, types, times, ids."""
    with pytest.raises(RecordFormatError, match=told):
        decode_item_events(record)


@given(st.binary(max_size=120), st.sampled_from([1, 2, 3]))
def test_no_bytes_do_harm(body: bytes, version: int) -> None:
    """Whatever stands behind the head is read or refused, never another error."""
    try:
        events = decode_item_events(seal(b"FE", version, body))
    except RecordFormatError:
        return
    assert len(events.item) == len(as_rows(events))


IDS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)


@given(item_event_rows(IDS, most=20))
def test_what_is_written_is_read(rows: list[ItemEvent]) -> None:
    """Any batch comes back as it was."""
    assert rows == as_rows(decode_item_events(encode_item_events(item_events(rows))))


def many(count: int, id_chars: int) -> ItemEvents:
    """So many events of as many items with long ids."""
    ids = [str(number).zfill(id_chars) for number in range(count)]
    numbers = np.arange(count)
    previous = np.stack([numbers - 1, np.full(count, -1), np.full(count, -1)], axis=1).astype(np.int32)
    return ItemEvents(
        ids,
        numbers.astype(np.uint64),
        numbers.astype(np.int32),
        np.ones(count, np.uint8),
        np.full(count, 1_700_000_000_000, np.int64),
        previous,
        np.full(count, 255, np.uint8),
    )


@pytest.mark.parametrize(("count", "id_chars"), [(MAX_ITEM_EVENTS + 1, 5), (MAX_ITEM_EVENTS * 3, 20), (9_000, 200)])
def test_a_large_batch_is_split(count: int, id_chars: int) -> None:
    """By events and by bytes; the order stays, and each record stands alone."""
    events = many(count, id_chars)
    records = [value for _, value in routed(events, np.zeros(count, np.int32))]
    found = [row for record in records for row in as_rows(decode_item_events(record))]

    assert len(records) > 1
    assert max(map(len, records)) <= MAX_ITEM_EVENTS_BYTES
    assert as_rows(events) == found
    assert [] == routed(item_events([]), np.zeros(0, np.int32))
    with pytest.raises(ValueError, match="one record holds"):
        encode_item_events(events)


def test_columns_that_do_not_fit_are_not_written() -> None:
    """A mistake of the writer is found where it is made."""
    events = item_events(ROWS)
    for wrong in (
        events._replace(item=events.item + 4),
        events._replace(previous=events.previous[:1]),
        events._replace(user=events.user[:1]),
        events._replace(device=events.device[:1]),
        events._replace(ids=["i1", "a\nb", "h2", "h1"]),
        events._replace(ids=["i1", "x" * 201, "h2", "h1"]),
        events._replace(type_code=np.array([1, 6], np.uint8)),
    ):
        with pytest.raises(ValueError, match=r"length|index|shape|id|type"):
            encode_item_events(wrong)


def test_the_checksum_is_of_the_body() -> None:
    """Readers in other languages can check it: CRC-32 as zlib has it."""
    assert zlib.crc32(VERSION_2[8:]) == int.from_bytes(VERSION_2[4:8], "little")
