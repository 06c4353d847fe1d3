"""
What a user's events say through item-to-item neighbours, and what the user comes back to: sums over sparse rows.

Four voices speak for items that no vector need be near to: fitted neighbours (EASE) of the newest events and those of
all that the user's state still knows, what follows the newest events in other sessions, and the items of the user's own
history. Each is divided by the largest it says of any item that may be listed, so that a weight means the same for a
user of one event and of many.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from models.events import LOOKED_AT, Events, Weighing, following, near, reach, recalled
from models.reasons import Groups

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

#: The voices, in the order of their columns.
NEIGHBOURS: Final = 0
FOLLOWERS: Final = 1
REPEAT: Final = 2
HISTORY: Final = 3
VOICES: Final = 4

#: A popular item is everybody's neighbour: weights are divided by (popularity + shift) to these powers. Those of whole
#: histories are not: who has done much has met what is popular, and what is said here tells what of it is left.
DAMPING_SHIFT: Final = 0.05
DAMPING: Final = (0.2, 0.4)

#: What is left of weights for and against an item that cancel out: an item without a sum was not spoken of.
_NEXT_TO_NOTHING: Final = np.float32(1e-30)


class Family(NamedTuple):
    """
    Item-to-item neighbours by row, heaviest first.

    Attributes
    ----------
    place
        (rows or fewer,) int32, where a row's neighbours stand; -1 without any.
    counts
        (p,) uint8, how many there are.
    rows
        (p, k) int32.
    weights
        (p, k) float32.

    """

    place: Int32
    counts: npt.NDArray[np.uint8]
    rows: Int32
    weights: Floats


class Related(NamedTuple):
    """
    What speaks for an item through others.

    Attributes
    ----------
    neighbours, followers
        Fitted neighbours, and what follows an item in sessions.
    damping
        (rows or more, VOICES) float32: what each voice's weights towards a row are multiplied with.

    """

    neighbours: Family
    followers: Family
    damping: Floats


def damping(popularity: Floats, timeliness: Floats) -> Floats:
    """
    Return what each voice's weights towards items are multiplied with, (rows, VOICES) float32.

    Whole histories tell what users will come to at some time; `timeliness` tells whether that is now.

    Parameters
    ----------
    popularity
        (rows,) in 0..1.
    timeliness
        (rows,) how often an item is asked for of late, as a multiple of its long-term rate.

    >>> damping(np.array([0.95, 0.0], np.float32), np.array([0.5, 2.0], np.float32)).round(2).tolist()
    [[1.0, 1.0, 1.0, 0.5], [1.8200000524520874, 3.309999942779541, 1.0, 2.0]]
    """
    shifted = popularity + np.float32(DAMPING_SHIFT)
    of_newest = [shifted ** np.float32(-power) for power in DAMPING]
    return np.stack([*of_newest, np.ones_like(popularity), timeliness], axis=1)


class Scratch:
    """
    Room for one batch after another, by row of the catalogue; used by one thread.

    Attributes
    ----------
    arrays
        What compiled code takes.

    """

    def __init__(self) -> None:
        self.arrays = _room(0)
        self._stamp = 0

    def stamp(self, rows: int, users: int) -> int:
        """Make room for so many rows; return the first of as many stamps, greater than all given out before."""
        if rows > len(self.arrays.touched):
            self.arrays = _room(max(rows, 2 * len(self.arrays.touched)))
        first, self._stamp = self._stamp + 1, self._stamp + users
        return first


class Room(NamedTuple):
    """
    Scratch by row.

    Attributes
    ----------
    sums
        (rows, VOICES) float32, zeros between users.
    touched
        (rows,) int32, the rows of which anything is said.
    barred, bought, chosen
        (rows,) int64, the stamp of the last user who may not have the item, who bought it, whose candidate it was.
    listed
        (rows,) int32, zeros between users.

    """

    sums: Floats
    touched: Int32
    barred: Int64
    bought: Int64
    chosen: Int64
    listed: Int32


def _room(rows: int) -> Room:
    return Room(
        np.zeros((rows, VOICES), np.float32), np.zeros(rows, np.int32), np.zeros(rows, np.int64),
        np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.zeros(rows, np.int32),
    )  # fmt: skip


@compiled
def _say(room: Room, touched: int, item: int, voice: int, value: float) -> int:
    """Add to what a voice says of an item; return how many items are touched."""
    more = np.float32(value)
    if more == 0.0:
        return touched
    sums = room.sums[item]
    if sums[NEIGHBOURS] == 0.0 and sums[FOLLOWERS] == 0.0 and sums[REPEAT] == 0.0 and sums[HISTORY] == 0.0:
        room.touched[touched] = item
        touched += 1
    sums[voice] += more
    if sums[voice] == 0.0:
        sums[voice] = _NEXT_TO_NOTHING
    return touched


@compiled
def _say_all(
    family: Family, item: int, factor: float, most: int, voice: int, known: int, room: Room, touched: int
) -> int:  # fmt: skip
    if factor == 0.0 or item >= len(family.place) or family.place[item] < 0:
        return touched
    place = family.place[item]
    for slot in range(min(family.counts[place], most)):
        other, weight = family.rows[place, slot], family.weights[place, slot]
        if other < known:
            touched = _say(room, touched, other, voice, factor * weight)
    return touched


@compiled
def speak(
    events: Events, user: int, known: int, weighing: Weighing, related: Related, wanted: Doubles,
    half_life_events: float, room: Room,
) -> int:  # fmt: skip
    """
    Sum what a user's events say of items through their neighbours; return how many items are touched.

    Parameters
    ----------
    known
        Items from this row on are not spoken of.
    wanted
        (VOICES,) weights; a voice of weight 0 is silent.

    """
    touched, distance = 0, 0
    first = events.ends[user - 1] if user else 0
    for place in range(events.ends[user] - 1, first - 1, -1):
        item = events.items[place]
        if item >= known or weighing.of_kind[events.kinds[place]] <= 0.0:
            continue
        if distance >= LOOKED_AT:
            break
        if wanted[NEIGHBOURS] > 0.0:
            most = reach(distance, related.neighbours.rows.shape[1], half_life_events)
            factor = near(distance, half_life_events)
            touched = _say_all(related.neighbours, item, factor, most, NEIGHBOURS, known, room, touched)
        if wanted[FOLLOWERS] > 0.0:
            most = related.followers.rows.shape[1]
            touched = _say_all(related.followers, item, following(distance), most, FOLLOWERS, known, room, touched)
        distance += 1
    return touched


@compiled
def come_back(items: Int32, masses: Doubles, first: int, end: int, known: int, room: Room, touched: int) -> int:
    """Say of each item of a user's own history, `items[first:end]`, what it weighs; return how many are touched."""
    for place in range(first, end):
        if items[place] < known:
            touched = _say(room, touched, items[place], REPEAT, masses[place])
    return touched


@compiled
def recall(
    items: Int32, masses: Doubles, first: int, end: int, family: Family, known: int, room: Room, touched: int
) -> int:
    """Sum what a user's own history, `items[first:end]`, says of items; return how many are touched."""
    for place in range(first, end):
        if items[place] < known:
            factor = recalled(masses[place])
            touched = _say_all(family, items[place], factor, family.rows.shape[1], HISTORY, known, room, touched)
    return touched


@compiled
def measure(
    related: Related, usable: npt.NDArray[np.bool_], barred: int, room: Room, touched: int, wanted: Doubles,
    scales: Doubles,
) -> int:  # fmt: skip
    """
    Damp what was said, of items that may be listed, and tell what to multiply each voice with.

    Return how many items are still touched: what was said of the others is taken back.

    Parameters
    ----------
    barred
        Stamp of the items that may not be listed.
    scales
        (VOICES,) out: the weight of each voice divided by the largest it says of an item that may be listed.

    """
    kept = 0
    for voice in range(VOICES):
        scales[voice] = 0.0
    for place in range(touched):
        item = room.touched[place]
        sums = room.sums[item]
        if not usable[item] or room.barred[item] == barred:
            for voice in range(VOICES):
                sums[voice] = 0.0
            continue
        for voice in range(VOICES):
            sums[voice] *= related.damping[item, voice]
            scales[voice] = max(scales[voice], np.float64(sums[voice]))
        room.touched[kept] = item
        kept += 1
    for voice in range(VOICES):
        if scales[voice] > 0.0:
            scales[voice] = wanted[voice] / scales[voice]
    return kept


@compiled
def loudest(scales: Doubles, room: Room, touched: int, best: Int64, said: Doubles) -> int:
    """
    Return how many of the items most is said of were written to `best` (k,), by what is said of them in all (k,).

    Of equals the one first spoken of stands first: the order of a user's events, and of each item's neighbours.
    """
    found = 0
    for place in range(touched):
        item = room.touched[place]
        sums = room.sums[item]
        value = 0.0
        for voice in range(VOICES):
            value += scales[voice] * sums[voice]
        if value <= 0.0 or (found == len(best) and value <= said[found - 1]):
            continue
        found = keep(best, said, found, item, value)
    return found


@compiled
def keep(best: Int64, said: Doubles, found: int, item: int, value: float) -> int:
    """Put an item in its place among the best, the last one leaves; return how many there are."""
    at = found if found < len(best) else found - 1
    while at > 0 and said[at - 1] < value:
        best[at], said[at] = best[at - 1], said[at - 1]
        at -= 1
    best[at], said[at] = item, value
    return min(found + 1, len(best))


@compiled
def hush(room: Room, touched: int) -> None:
    """Take back all that was said."""
    for place in range(touched):
        sums = room.sums[room.touched[place]]
        for voice in range(VOICES):
            sums[voice] = 0.0


@compiled
def _attribute(
    family: Family, item: int, factor: float, most: int, damping: Floats, voice: int, room: Room, contributed: Doubles,
    at: int,
) -> None:  # fmt: skip
    if factor == 0.0 or item >= len(family.place) or family.place[item] < 0:
        return
    place = family.place[item]
    for slot in range(min(family.counts[place], most)):
        other = family.rows[place, slot]
        if other < len(room.listed) and room.listed[other] > 0:
            contributed[room.listed[other] - 1, at] += factor * family.weights[place, slot] * damping[other, voice]


@compiled
def hold(items: Int32, masses: Doubles, first: int, end: int, groups: Groups, count: int, room: Room) -> None:
    """Tell each group of events what its item weighs in the user's own history, `items[first:end]`."""
    for place in range(first, end):
        if items[place] < len(room.listed):
            room.listed[items[place]] = place + 1
    for at in range(count):
        place = room.listed[groups.items[at]] - 1
        groups.masses[at] = masses[place] if place >= 0 else 0.0
    for place in range(first, end):
        if items[place] < len(room.listed):
            room.listed[items[place]] = 0


@compiled
def attribute(
    related: Related, items: Int32, groups: Groups, count: int, weighing: Weighing, scales: Doubles,
    half_life_events: float, room: Room,
) -> None:  # fmt: skip
    """
    Add to `groups.contributed` what each group of events says of each item through neighbours, and by itself.

    Parameters
    ----------
    items
        (k,) rows of the items; -1 behind the last.
    scales
        (VOICES,), see `measure`.

    """
    for rank in range(len(items)):
        if items[rank] >= 0:
            room.listed[items[rank]] = rank + 1
    contributed, damping = groups.contributed, related.damping
    for distance in range(LOOKED_AT):
        at = groups.of_event[distance]
        if at < 0:
            continue
        item, family = groups.items[at], related.neighbours
        factor = scales[NEIGHBOURS] * near(distance, half_life_events)
        most = reach(distance, family.rows.shape[1], half_life_events)
        _attribute(family, item, factor, most, damping, NEIGHBOURS, room, contributed, at)
        family = related.followers
        factor, most = scales[FOLLOWERS] * following(distance), family.rows.shape[1]
        _attribute(family, item, factor, most, damping, FOLLOWERS, room, contributed, at)
    family = related.neighbours
    for at in range(count):
        mass = weighing.of_kind[groups.kinds[at]] * groups.long[at]
        if room.listed[groups.items[at]] > 0:
            contributed[room.listed[groups.items[at]] - 1, at] += (
                scales[REPEAT] * mass * damping[groups.items[at], REPEAT]
            )
        lost = recalled(groups.masses[at]) - recalled(groups.masses[at] - mass)
        most, factor = family.rows.shape[1], scales[HISTORY] * lost
        _attribute(family, groups.items[at], factor, most, damping, HISTORY, room, contributed, at)
    for rank in range(len(items)):
        if items[rank] >= 0:
            room.listed[items[rank]] = 0
