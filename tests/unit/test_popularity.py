"""Popularity of items: decay, trend, what counts as demand."""

from __future__ import annotations

import numpy as np
import pytest

from models.segments import OTHER_DEVICE, Split
from streams.errors import RecordFormatError
from streams.settings import Settings
from streams.signals.codec import decode_signal_state, encode_signal_state
from streams.signals.popularity import ItemDemand, Popularity, demand_weights
from streams.wire.events import TYPE_CODES

DAY_MS = 86_400_000
ROW = 3
NOW_MS = 1_700_000_000_000


def count(popularity: Popularity, ts_ms: int, weight: float, device: int = 0) -> None:
    """Count one event of the item."""
    popularity.add(np.array([ROW]), np.array([ts_ms]), np.array([weight]), np.array([device], np.uint8))


def test_a_mass_halves_with_the_half_life() -> None:
    """Two purchases, one of them a half-life old, weigh one and a half."""
    popularity = Popularity(14 * 86_400.0)
    count(popularity, NOW_MS - 14 * DAY_MS, 5.0)
    count(popularity, NOW_MS, 5.0)
    assert popularity.value(popularity.state(ROW), NOW_MS) == pytest.approx(7.5, rel=1e-8)
    assert popularity.value(popularity.state(ROW), NOW_MS + 14 * DAY_MS) == pytest.approx(3.75, rel=1e-8)
    assert popularity.value(popularity.state(5_000), NOW_MS) == 0.0


def test_steady_demand_has_a_trend_of_one_and_a_rush_more() -> None:
    """One event an hour for five months reads 1; a day of ten an hour after it reads well above."""
    popularity = Popularity(14 * 86_400.0)
    for hour in range(150 * 24):
        count(popularity, NOW_MS + hour * 3_600_000, 1.0)
    end_ms = NOW_MS + 150 * DAY_MS
    assert popularity.trend(popularity.state(ROW), end_ms) == pytest.approx(1.0, abs=0.05)
    for tenth in range(240):
        count(popularity, end_ms + tenth * 360_000, 1.0)
    assert popularity.trend(popularity.state(ROW), end_ms + DAY_MS) > 3


def test_signals_are_as_of_the_newest_event() -> None:
    """A late event does not move the reference time back."""
    popularity = Popularity(14 * 86_400.0)
    count(popularity, NOW_MS, 1.0)
    count(popularity, NOW_MS - DAY_MS, 0.0)
    demand = popularity.state(ROW)

    assert (demand.newest_ms, demand.events) == (NOW_MS, 2)
    assert popularity.value(popularity.state(ROW), NOW_MS) == pytest.approx(1.0)
    assert popularity.state(ROW + 1) == popularity.state(5_000) == ItemDemand({}, {})


@pytest.mark.parametrize("before", [Split(3), Split(3, ("phone", "tv"))])
@pytest.mark.parametrize("after", [Split(), Split(2), Split(3, ("tv", "phone")), Split(4, ("tv",))])
def test_other_segments_are_counted_anew(before: Split, after: Split) -> None:
    """With other settings than the record's, what was counted in segments is void, and the whole stays."""
    old, new = Popularity(14 * 86_400.0, split=before), Popularity(14 * 86_400.0, split=after)
    count(old, NOW_MS, 5.0)
    new.restore(ROW, decode_signal_state(encode_signal_state(old.state(ROW))))
    assert old.value(old.state(ROW), NOW_MS) == new.value(new.state(ROW), NOW_MS)
    assert (0.0,) * after.total == new.in_segments(new.state(ROW), NOW_MS)
    count(new, NOW_MS, 1.0)
    assert pytest.approx(float(after.total > 0)) == sum(new.in_segments(new.state(ROW), NOW_MS))


def test_devices_are_told_apart_in_each_part_of_the_day() -> None:
    """First what tells no device, then each named one, then all others; a code beyond the names is another one."""
    popularity, half_ms = Popularity(14 * 86_400.0, split=Split(2, ("phone", "tv"))), DAY_MS // 2
    morning_ms = NOW_MS // DAY_MS * DAY_MS
    for device, weight in ((0, 0.5), (1, 1.0), (2, 3.0), (OTHER_DEVICE, 5.0), (3, 5.0)):
        count(popularity, morning_ms, weight, device)
    count(popularity, morning_ms + half_ms, 1.0, 2)
    now = popularity.in_segments(popularity.state(ROW), morning_ms)
    assert pytest.approx([0.5, 1.0, 3.0, 10.0, 0.0, 0.0, 2 ** (1 / 28), 0.0], rel=1e-6) == now


def test_dislikes_and_impressions_are_no_demand() -> None:
    """They weigh nothing, whatever the interest weights say."""
    weights = demand_weights(Settings())
    assert (weights[TYPE_CODES["dislikes"]], weights[TYPE_CODES["impressions"]]) == (0.0, 0.0)
    assert weights[TYPE_CODES["purchases"]] > weights[TYPE_CODES["views"]] > 0


@pytest.mark.parametrize("cut", [0, 3, 8, -1])
def test_a_cut_state_is_refused(cut: int) -> None:
    """A damaged record is never taken for a state."""
    record = encode_signal_state(ItemDemand({1: 2}, {3: 4}, NOW_MS, 1))
    with pytest.raises(RecordFormatError):
        decode_signal_state(record[:cut])


def test_an_altered_state_is_refused() -> None:
    """Any flipped bit is found."""
    record = encode_signal_state(ItemDemand({1: 2}, {3: 4}, NOW_MS, 1))
    for place in range(len(record)):
        if place == 3:  # the reserved byte is not read
            continue
        altered = bytearray(record)
        altered[place] ^= 1
        with pytest.raises(RecordFormatError):
            decode_signal_state(bytes(altered))
