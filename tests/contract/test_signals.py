"""Golden bytes of what the signals worker keeps and publishes: older workers must read what newer ones write."""

from __future__ import annotations

from streams.signals.codec import (
    ItemSignals,
    decode_item_signals,
    decode_signal_state,
    encode_item_signals,
    encode_signal_state,
)
from streams.signals.popularity import ItemDemand

STATE = ItemDemand({1405: 1_518_500_250, 1404: 2**40}, {19_675: 7}, 1_700_000_000_000, 3)
STATE_RECORD = bytes.fromhex(
    "46530100" "3fd3b9f6"
    "9403cf0000018bcfe568009292cd057ccf000001000000000092cd057dce5a82799a9192cd4cdb07"
)  # fmt: skip
SIGNALS = ItemSignals("i1", 2.5, 1_700_000_000_000, 1.25, 3)
SIGNALS_RECORD = b'{"item_id":"i1","popularity":2.5,"ref_ts":1700000000000,"trend":1.25,"events":3}'


def test_signal_state() -> None:
    """Equal states give equal bytes: epochs are sorted."""
    assert STATE_RECORD.hex() == encode_signal_state(STATE).hex()
    assert decode_signal_state(STATE_RECORD) == STATE


def test_item_signals() -> None:
    """Plain JSON, so that anybody can read it."""
    assert encode_item_signals(SIGNALS) == SIGNALS_RECORD
    assert decode_item_signals(SIGNALS_RECORD) == SIGNALS


def test_newer_fields_are_ignored() -> None:
    """A later version may add to the signals; this one still reads them."""
    assert decode_item_signals(SIGNALS_RECORD[:-1] + b',"neighbours":[]}') == SIGNALS
