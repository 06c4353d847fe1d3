"""Golden bytes of what the signals worker keeps and publishes: older workers must read what newer ones write."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from streams.errors import RecordFormatError
from streams.signals.codec import (
    FollowersState,
    decode_batches,
    decode_followers,
    decode_neighbours,
    decode_signal_state,
    encode_batches,
    encode_followers,
    encode_neighbours,
    encode_signal_state,
)
from streams.signals.popularity import ItemDemand
from streams.wire.neighbours import ItemNeighbours, decode_item_neighbours, encode_item_neighbours
from streams.wire.signals import ItemSignals, decode_item_signals, encode_item_signals, seal

STATE = ItemDemand({1405: 1_518_500_250, 1404: 2**40}, {19_675: 7}, 1_700_000_000_000, 3)
STATE_RECORD = bytes.fromhex(
    "46530100" "3fd3b9f6"
    "9403cf0000018bcfe568009292cd057ccf000001000000000092cd057dce5a82799a9192cd4cdb07"
)  # fmt: skip
SEGMENTED_RECORD = bytes.fromhex(
    "46530200" "0842729a"
    "9503cf0000018bcfe568009292cd057ccf000001000000000092cd057dce5a82799a9192cd4cdb07929192cd057dce5a82799a90"
)  # fmt: skip
OF_DEVICES = msgspec.structs.replace(
    STATE, in_segments=({1405: 1_518_500_250}, {}, {}), devices=("phone",)
)  # fmt: skip
OF_DEVICES_RECORD = bytes.fromhex(
    "46530300" "85b4eef4"
    "9603cf0000018bcfe568009292cd057ccf000001000000000092cd057dce5a82799a9192cd4cdb07"
    "939192cd057dce5a82799a909091a570686f6e65"
)  # fmt: skip
SIGNALS = ItemSignals("i1", 2.5, 1_700_000_000_000, 1.25, 3)
SIGNALS_RECORD = b'{"item_id":"i1","popularity":2.5,"ref_ts":1700000000000,"trend":1.25,"events":3}'


def test_signal_state() -> None:
    """Equal states give equal bytes: epochs are sorted."""
    assert STATE_RECORD.hex() == encode_signal_state(STATE).hex()
    assert decode_signal_state(STATE_RECORD) == STATE


def test_signal_state_with_segments() -> None:
    """Has a version of its own, which only those write who tell segments apart."""
    state = ItemDemand(STATE.long, STATE.short, STATE.newest_ms, STATE.events, ({1405: 1_518_500_250}, {}))
    assert encode_signal_state(state).hex() == SEGMENTED_RECORD.hex()
    assert decode_signal_state(SEGMENTED_RECORD) == state


def test_signal_state_by_device() -> None:
    """Version 3 names the devices behind the segments; only those write it who tell devices apart."""
    assert encode_signal_state(OF_DEVICES).hex() == OF_DEVICES_RECORD.hex()
    assert decode_signal_state(OF_DEVICES_RECORD) == OF_DEVICES


def test_item_signals() -> None:
    """Plain JSON, so that anybody can read it."""
    assert encode_item_signals(SIGNALS) == SIGNALS_RECORD
    assert decode_item_signals(SIGNALS_RECORD) == SIGNALS
    told = b',"in_segments":[2.0,0.5]}'
    assert encode_item_signals(msgspec.structs.replace(SIGNALS, in_segments=(2.0, 0.5))) == SIGNALS_RECORD[:-1] + told
    assert decode_item_signals(SIGNALS_RECORD[:-1] + told).in_segments == (2.0, 0.5)
    of_devices = msgspec.structs.replace(SIGNALS, in_segments=(2.0, 0.5, 0.0), devices=("phone",))
    record = SIGNALS_RECORD[:-1] + b',"in_segments":[2.0,0.5,0.0],"devices":["phone"]}'
    assert (record, of_devices) == (encode_item_signals(of_devices), decode_item_signals(record))


def test_newer_fields_are_ignored() -> None:
    """A later version may add to the signals; this one still reads them."""
    assert decode_item_signals(SIGNALS_RECORD[:-1] + b',"neighbours":[]}') == SIGNALS


FOLLOWERS = FollowersState(1_405, 2.5, ["i2", "物"], np.array([1.5, 1.0]), np.array([0.0, 0.0]))
FOLLOWERS_RECORD = bytes.fromhex(
    "46460100" "3836054c"
    "95cd057dcb400400000000000092a26932a3e789a9c410000000000000f83f000000000000f03fc400"
)  # fmt: skip
NEIGHBOURS = (("i2", 0.25), ("物", 0.125))
NEIGHBOURS_RECORD = bytes.fromhex(
    "464e0100" "a3720620"
    "9292a26932cb3fd000000000000092a3e789a9cb3fc0000000000000"
)  # fmt: skip
BATCHES_RECORD = bytes.fromhex("46420100fede509792c4036f6e65c400")


def test_followers() -> None:
    """Columns with ids; errors only where there are any."""
    assert FOLLOWERS_RECORD.hex() == encode_followers(FOLLOWERS).hex()
    found = decode_followers(FOLLOWERS_RECORD)
    assert (found.epoch, found.total, found.ids) == (1_405, 2.5, ["i2", "物"])
    assert (found.weights.tolist(), found.errors.tolist()) == ([1.5, 1.0], [0.0, 0.0])
    uncertain = FOLLOWERS._replace(errors=np.array([0.5, 0.0]))
    assert decode_followers(encode_followers(uncertain)).errors.tolist() == [0.5, 0.0]


def test_fitted_neighbours() -> None:
    """Pairs of item id and weight."""
    assert NEIGHBOURS_RECORD.hex() == encode_neighbours(NEIGHBOURS).hex()
    assert decode_neighbours(NEIGHBOURS_RECORD) == NEIGHBOURS


def test_batches() -> None:
    """Batches lie side by side, as they came."""
    assert BATCHES_RECORD.hex() == encode_batches([b"one", b""]).hex()
    assert [b"one", b""] == decode_batches(BATCHES_RECORD)
    with pytest.raises(RecordFormatError, match="checksum"):
        decode_batches(BATCHES_RECORD[:-1] + b"x")
    with pytest.raises(RecordFormatError, match="cannot be read"):
        decode_batches(seal(b"FB", 1, b"\x01"))


def test_item_neighbours() -> None:
    """Both families are pairs of item id and weight; a record without them reads as none."""
    told = ItemNeighbours("i1", (("i2", 0.5),), (("i3", 0.25), ("i4", -0.125)))
    record = b'{"item_id":"i1","followers":[["i2",0.5]],"neighbours":[["i3",0.25],["i4",-0.125]]}'

    assert record == encode_item_neighbours(told)
    assert decode_item_neighbours(record) == told
    assert decode_item_neighbours(b'{"item_id":"i1","more":1}') == ItemNeighbours("i1")


@pytest.mark.parametrize(
    "told",
    [
        b'"followers":[["i2",-0.5]]}',
        b'"followers":[["",0.5]]}',
        b'"followers":[["i2",0]]}',
        b'"neighbours":[["i2",1e999]]}',
        b'"neighbours":[["i2",-1e999]]}',
        b'"neighbours":[["i2",0]]}',
        b'"neighbours":[["i2"]]}',
        b'"neighbours":[' + b",".join([b'["i2",0.5]'] * 65) + b"]}",
    ],
)
def test_neighbours_that_cannot_be_are_refused(told: bytes) -> None:
    """Weights are finite and not 0, shares are positive, and there are at most 64."""
    with pytest.raises(RecordFormatError):
        decode_item_neighbours(b'{"item_id":"i1",' + told)


@pytest.mark.parametrize(
    "state",
    [
        FOLLOWERS._replace(ids=["i2"]),
        FOLLOWERS._replace(weights=np.array([1.5, float("nan")])),
        FOLLOWERS._replace(errors=np.array([1.6, 0.0])),
        FOLLOWERS._replace(total=float("inf")),
        FOLLOWERS._replace(epoch=2**60),
        FOLLOWERS._replace(ids=["x"] * 257, weights=np.ones(257), errors=np.zeros(257)),
    ],
)
def test_followers_that_cannot_be_are_refused(state: FollowersState) -> None:
    """A record with a right checksum is checked as well."""
    with pytest.raises(RecordFormatError):
        decode_followers(encode_followers(state))


@pytest.mark.parametrize(
    "demand",
    [
        ItemDemand({1: -1}, {}),
        ItemDemand({1: 1, 30: 1}, {}),
        ItemDemand({}, {1: 2**63}),
        ItemDemand({}, {}, in_segments=({1: -1},)),
        ItemDemand({}, {}, in_segments=({},) * 81),
    ],
)
def test_sums_that_cannot_be_are_refused(demand: ItemDemand) -> None:
    """Negative, too great, or further apart than is kept."""
    with pytest.raises(RecordFormatError):
        decode_signal_state(encode_signal_state(demand))


@pytest.mark.parametrize("body", [b"", b"\x91", b"\x94"])
def test_bodies_that_are_no_message_are_refused(body: bytes) -> None:
    """Every reader refuses what it cannot read, whatever the checksum says."""
    with pytest.raises(RecordFormatError):
        decode_followers(seal(b"FF", 1, body))
    with pytest.raises(RecordFormatError):
        decode_neighbours(seal(b"FN", 1, body))
    with pytest.raises(RecordFormatError):
        decode_signal_state(seal(b"FS", 1, body))
    with pytest.raises(RecordFormatError):
        decode_neighbours(encode_neighbours((("i", 1.0),) * 65))
