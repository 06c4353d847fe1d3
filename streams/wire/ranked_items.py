"""
The `items` of many lists written as JSON at once, compiled: the same values as `RankedItem` gives, without objects.

Ids hold no control characters (`streams.wire.limits`), so that a quote and a backslash alone are escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from streams.settings import EVENT_TYPES
from streams.wire.limits import MAX_ID_BYTES

Bytes = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]

#: What carries an item: the user's interest, its popularity, nothing but that there was room, what goes with the items
#: of the newest events, what follows them in sessions, that the user comes back to it, what goes with all of it, demand
#: that rises, that it leads in a category of the user's; or a rule of the shop: the item's slot, or more than half of
#: what it is worth; or exploration.
SOURCES: Final = (
    "interest", "popular", "catalogue", "neighbours", "followers", "repeat", "history", "trending", "category",
    "pinned", "boosted", "explore",
)  # fmt: skip
PINNED: Final = SOURCES.index("pinned")
BOOSTED: Final = SOURCES.index("boosted")
EXPLORED: Final = SOURCES.index("explore")
#: Scores are written with five places behind the point, shares with four, propensities with twelve: one of many
#: thousand fresh items is less likely than a millionth.
SCORE_PLACES: Final = 5
SHARE_PLACES: Final = 4
PROPENSITY_PLACES: Final = 12

_QUOTE: Final = ord('"')
_BACKSLASH: Final = ord("\\")
_FIRST_BYTES: Final = 65_536


class Places(NamedTuple):
    """
    The places of n lists of at most k items, best first, and of what stands by behind them.

    Attributes
    ----------
    items
        (n, k) int32 rows; -1 behind the last.
    scores
        (n, k) int64, score times 10^5.
    sources
        (n, k) uint8, index into `SOURCES`.
    propensities
        (n, k) int64, probability times 10^12.
    event_items, event_kinds, event_shares
        (n, k, r): row, type code and share times 10^4 of the events behind an item; a share of 0 ends them.

    """

    items: Int32
    scores: Int64
    sources: UInt8
    propensities: Int64
    event_items: Int32
    event_kinds: UInt8
    event_shares: Int64

    def only(self, chosen: Sequence[int] | Int64) -> Places:
        """Return some of the lists, copied."""
        return Places(
            self.items[chosen], self.scores[chosen], self.sources[chosen], self.propensities[chosen],
            self.event_items[chosen], self.event_kinds[chosen], self.event_shares[chosen],
        )  # fmt: skip


class _Texts(NamedTuple):
    """Texts one behind another; number i is `pool[ends[i - 1]:ends[i]]`."""

    pool: Bytes
    ends: Int64


def _texts(*texts: str) -> _Texts:
    encoded = [text.encode() for text in texts]
    return _Texts(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([len(text) for text in encoded]))


_ITEM, _RANK, _SCORE, _SOURCE, _BECAUSE, _PROPENSITY, _EVENT, _TYPE, _SHARE = range(9)
_WORDS: Final = _texts(
    '{"item_id":"', '","rank":', ',"score":', ',"source":"', '","because":[', '],"propensity":',
    '{"item_id":"', '","type":"', '","share":',
)  # fmt: skip
_SOURCE_NAMES: Final = _texts(*SOURCES)
_TYPE_NAMES: Final = _texts(*EVENT_TYPES)
#: Longest item without its events, and longest event: what stands around an id of which every byte is escaped.
_ITEM_BYTES: Final = 2 * MAX_ID_BYTES + 160
_EVENT_BYTES: Final = 2 * MAX_ID_BYTES + 80


class ItemsWriter:
    """Writes lists; used from one thread."""

    def __init__(self) -> None:
        self._out = np.empty(_FIRST_BYTES, np.uint8)

    def write(self, places: Places, pool: Bytes, at: Int64, size: int) -> list[bytes]:
        """
        Return the JSON array of each list.

        Parameters
        ----------
        size
            Items of a list; places behind are not written.
        pool, at
            The UTF-8 of item row r is `pool[at[r]:at[r + 1]]`.

        """
        count = len(places.items)
        written: list[bytes] = []
        ends = np.zeros(count, np.int64)
        while (first := len(written)) < count:
            done = _write(places, pool, at, size, first, self._out, ends, _WORDS, _SOURCE_NAMES, _TYPE_NAMES)
            begin = 0
            for end in ends[first:done].tolist():
                written.append(self._out[begin:end].tobytes())
                begin = end
            if done == first:
                self._out = np.empty(2 * len(self._out), np.uint8)
        return written


@compiled
def _write(
    places: Places, pool: Bytes, at: Int64, size: int, first: int, out: Bytes, ends: Int64, words: _Texts,
    sources: _Texts, kinds: _Texts,
) -> int:  # fmt: skip
    """Write lists from `first` on, one behind another; return how many are done, as the next one may not fit."""
    end = 0
    events = places.event_items.shape[2]
    for user in range(first, len(places.items)):
        if end + 2 + size * (_ITEM_BYTES + events * _EVENT_BYTES) > len(out):
            return user
        out[end] = ord("[")
        end += 1
        for rank in range(min(size, places.items.shape[1])):
            item = places.items[user, rank]
            if item < 0:
                break
            if rank:
                out[end] = ord(",")
                end += 1
            end = _put_text(out, end, words, _ITEM)
            end = _put_id(out, end, pool, at[item], at[item + 1])
            end = _put_text(out, end, words, _RANK)
            end = _put_whole(out, end, rank + 1)
            end = _put_text(out, end, words, _SCORE)
            end = _put_decimal(out, end, places.scores[user, rank], SCORE_PLACES)
            end = _put_text(out, end, words, _SOURCE)
            end = _put_text(out, end, sources, places.sources[user, rank])
            end = _put_text(out, end, words, _BECAUSE)
            end = _put_events(places, user, rank, out, end, pool, at, words, kinds)
            end = _put_text(out, end, words, _PROPENSITY)
            end = _put_decimal(out, end, places.propensities[user, rank], PROPENSITY_PLACES)
            out[end] = ord("}")
            end += 1
        out[end] = ord("]")
        end += 1
        ends[user] = end
    return len(places.items)


@compiled
def _put_events(
    places: Places, user: int, rank: int, out: Bytes, end: int, pool: Bytes, at: Int64, words: _Texts, kinds: _Texts
) -> int:
    for place in range(places.event_items.shape[2]):
        share = places.event_shares[user, rank, place]
        if share == 0:
            break
        if place:
            out[end] = ord(",")
            end += 1
        item = places.event_items[user, rank, place]
        end = _put_text(out, end, words, _EVENT)
        end = _put_id(out, end, pool, at[item], at[item + 1])
        end = _put_text(out, end, words, _TYPE)
        end = _put_text(out, end, kinds, places.event_kinds[user, rank, place])
        end = _put_text(out, end, words, _SHARE)
        end = _put_decimal(out, end, share, SHARE_PLACES)
        out[end] = ord("}")
        end += 1
    return end


@compiled
def _put_text(out: Bytes, end: int, texts: _Texts, number: int) -> int:
    for place in range(texts.ends[number - 1] if number else 0, texts.ends[number]):
        out[end] = texts.pool[place]
        end += 1
    return end


@compiled
def _put_id(out: Bytes, end: int, pool: Bytes, first: int, behind: int) -> int:
    for place in range(first, behind):
        if pool[place] == _QUOTE or pool[place] == _BACKSLASH:
            out[end] = _BACKSLASH
            end += 1
        out[end] = pool[place]
        end += 1
    return end


@compiled
def _put_whole(out: Bytes, end: int, number: int) -> int:
    """Write an integer that is not negative."""
    digits = 1
    rest = number
    while rest >= 10:
        rest //= 10
        digits += 1
    for place in range(digits):
        out[end + digits - 1 - place] = ord("0") + number % 10
        number //= 10
    return end + digits


@compiled
def _put_decimal(out: Bytes, end: int, number: int, places: int) -> int:
    """Write a number of 10^-places, without zeros at its end."""
    if number < 0:
        out[end] = ord("-")
        end += 1
        number = -number
    scale = 10**places
    end = _put_whole(out, end, number // scale)
    out[end] = ord(".")
    end += 1
    rest = number % scale
    first = True
    while rest or first:
        first = False
        scale //= 10
        out[end] = ord("0") + rest // scale
        rest %= scale
        end += 1
    return end
