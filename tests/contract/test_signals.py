"""Golden bytes of the records between interest and signals workers: older workers must read what newer ones write."""

from __future__ import annotations

import zlib

import msgspec
import pytest

from streams.errors import RecordFormatError
from streams.signals.codec import (
    ItemEvent,
    ItemSignals,
    decode_item_events,
    decode_item_signals,
    decode_signal_state,
    encode_item_events,
    encode_item_signals,
    encode_signal_state,
)
from streams.signals.popularity import ItemDemand

EVENTS = [ItemEvent(2**63, "i1", 1, 1_700_000_000_000, ("h2", "h1")), ItemEvent(1, "物", 3, 1_700_000_000_001)]
EVENTS_RECORD = bytes.fromhex(
    "46450100" "f0e9f542"
    "9295cf8000000000000000a2693101cf0000018bcfe5680092a26832a268319501a3e789a903cf0000018bcfe5680190"
)  # fmt: skip
STATE = ItemDemand({1405: 1_518_500_250, 1404: 2**40}, {19_675: 7}, 1_700_000_000_000, 3)
STATE_RECORD = bytes.fromhex(
    "46530100" "3fd3b9f6"
    "9403cf0000018bcfe568009292cd057ccf000001000000000092cd057dce5a82799a9192cd4cdb07"
)  # fmt: skip
SIGNALS = ItemSignals("i1", 2.5, 1_700_000_000_000, 1.25, 3)
SIGNALS_RECORD = b'{"item_id":"i1","popularity":2.5,"ref_ts":1700000000000,"trend":1.25,"events":3}'


def test_item_events() -> None:
    """Magic, version, checksum, MessagePack arrays."""
    assert EVENTS_RECORD.hex() == encode_item_events(EVENTS).hex()
    assert decode_item_events(EVENTS_RECORD) == EVENTS


def test_signal_state() -> None:
    """Equal states give equal bytes: epochs are sorted."""
    assert STATE_RECORD.hex() == encode_signal_state(STATE).hex()
    assert decode_signal_state(STATE_RECORD) == STATE


def test_item_signals() -> None:
    """Plain JSON, so that anybody can read it."""
    assert encode_item_signals(SIGNALS) == SIGNALS_RECORD
    assert decode_item_signals(SIGNALS_RECORD) == SIGNALS


def test_newer_fields_are_ignored() -> None:
    """A later version may append to an event and add to the signals; this one still reads them."""
    body = msgspec.msgpack.encode([[1, "i1", 1, 5, [], "appended"]])
    head = EVENTS_RECORD[:4] + zlib.crc32(body).to_bytes(4, "little")
    assert decode_item_events(head + body) == [ItemEvent(1, "i1", 1, 5)]
    assert decode_item_signals(SIGNALS_RECORD[:-1] + b',"neighbours":[]}') == SIGNALS


@pytest.mark.parametrize("record", [b"", b"FE", b"XX" + EVENTS_RECORD[2:], EVENTS_RECORD[:-1], EVENTS_RECORD + b"\0"])
def test_damaged_item_events_are_refused(record: bytes) -> None:
    """Cut, foreign or longer records are no batch."""
    with pytest.raises(RecordFormatError):
        decode_item_events(record)
