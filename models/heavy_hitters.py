"""
What leads most often from a row to targets, decayed, in bounded memory.

Space-Saving (Metwally, Agrawal, El Abbadi: "Efficient Computation of Frequent and Top-k Elements in Data Streams",
ICDT 2005) for many rows at once, over weights that decay forwards (`models.decay`): a row counts at most `KEPT`
targets; a new target of a full row takes the place of the lightest and inherits its weight as error. With S the
decayed weight of all pairs of a row,

- a target's true weight lies between `weight - error` and `weight`;
- every target of true weight above S / KEPT is there;
- while no more than `KEPT` targets were met, every weight is exact, and as long as all of them are multiples of 2^-30
  within 53 bits no order of the pairs gives another one.

A row's result is a function of the sequence of its pairs, however they are batched.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from models.decay import FRACTION_BITS, KEPT_EPOCHS, NO_EPOCH

#: Targets counted of a row.
KEPT = 256
#: Places of a row by size class: most rows have few targets.
_ROOM = np.array([8, 32, 128, KEPT], np.int64)
_FIRST_ROWS = 1_024
_FIRST_PLACES = 16_384

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Counted(NamedTuple):
    """
    One row's targets, in the order of their places.

    Attributes
    ----------
    epoch
        The half-life since 1970 at whose begin the weights count in full: a weight w stands for w x 2^epoch.
    total
        Weight of all pairs of the row.
    targets, weights, errors
        (n,) int32 and float64, n <= `KEPT`.

    """

    epoch: int
    total: float
    targets: npt.NDArray[np.int32]
    weights: Floats
    errors: Floats


class HeavyHitters:
    """
    The targets of many rows, in one arena.

    A target costs 20 bytes; a row has room for 8, 32, 128 or 256, so it costs 5 kB at most.

    >>> hitters = HeavyHitters()
    >>> one = 1 << 30
    >>> hitters.learn(np.array([0, 0, 0]), np.array([7, 8, 7], np.int32), np.array([5, 5, 6]), np.array([one] * 3))
    >>> counted = hitters.counted(0)
    >>> counted.epoch, counted.targets.tolist(), counted.weights.tolist()
    (6, [7, 8], [1.5, 0.5])
    """

    def __init__(self) -> None:
        self._start = np.zeros(_FIRST_ROWS, np.int64)
        self._size = np.zeros(_FIRST_ROWS, np.int64)
        #: Size class of the row, -1 while it has no places.
        self._room = np.full(_FIRST_ROWS, -1, np.int64)
        self._epoch = np.full(_FIRST_ROWS, NO_EPOCH, np.int64)
        self._total = np.zeros(_FIRST_ROWS, np.float64)
        self._targets = np.zeros(_FIRST_PLACES, np.int32)
        self._weights = np.zeros(_FIRST_PLACES, np.float64)
        self._errors = np.zeros(_FIRST_PLACES, np.float64)
        # First free block of each size class (-1: none), then the first place never used.
        self._free = np.array([-1] * len(_ROOM) + [0], np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        rows = (self._start, self._size, self._room, self._epoch, self._total)
        return sum(array.nbytes for array in (*rows, self._targets, self._weights, self._errors))

    def learn(self, rows: Ints, targets: npt.NDArray[np.int32], epochs: Ints, shares: Ints) -> None:
        """
        Count pairs, in order.

        Parameters
        ----------
        rows, targets
            (n,) each: from which row to which target.
        epochs, shares
            (n,) each: the pairs' decayed weight, as `models.decay.epoch_shares` gives it.

        """
        if not len(rows):
            return
        self._reserve_rows(int(rows.max()) + 1)
        done = 0
        while True:
            done += _learn(
                rows[done:], targets[done:], epochs[done:], shares[done:],
                self._start, self._size, self._room, self._epoch, self._total,
                self._targets, self._weights, self._errors, self._free,
            )  # fmt: skip
            if done == len(rows):
                return
            self._reserve_places()

    def counted(self, row: int) -> Counted:
        """Return a copy of what is counted of a row; without targets for one never met."""
        size = int(self._size[row]) if row < len(self._size) else 0
        if not size:
            return Counted(0, 0.0, np.empty(0, np.int32), np.empty(0, np.float64), np.empty(0, np.float64))
        start = int(self._start[row])
        places = slice(start, start + size)
        return Counted(
            int(self._epoch[row]),
            float(self._total[row]),
            self._targets[places].copy(),
            self._weights[places].copy(),
            self._errors[places].copy(),
        )

    def restore(self, row: int, counted: Counted) -> None:
        """
        Take back what was counted of a row; it goes on as if it had never stopped.

        Raises
        ------
        ValueError
            When it is more than a row may hold.

        """
        size = len(counted.targets)
        if size > KEPT:
            raise ValueError(f"{size} targets, a row counts {KEPT}")
        self._reserve_rows(row + 1)
        while (start := _place(row, size, self._start, self._size, self._room, self._targets, self._free)) < 0:
            self._reserve_places()
        places = slice(start, start + size)
        self._targets[places], self._weights[places] = counted.targets, counted.weights
        self._errors[places] = counted.errors
        self._epoch[row], self._total[row] = (counted.epoch, counted.total) if size else (NO_EPOCH, 0.0)

    def _reserve_rows(self, rows: int) -> None:
        if rows <= len(self._start):
            return
        more = max(rows, 2 * len(self._start)) - len(self._start)
        self._start = np.append(self._start, np.zeros(more, np.int64))
        self._size = np.append(self._size, np.zeros(more, np.int64))
        self._room = np.append(self._room, np.full(more, -1, np.int64))
        self._epoch = np.append(self._epoch, np.full(more, NO_EPOCH, np.int64))
        self._total = np.append(self._total, np.zeros(more, np.float64))

    def _reserve_places(self) -> None:
        """Make the arena half as large again."""
        more = len(self._targets) // 2
        self._targets = np.append(self._targets, np.zeros(more, np.int32))
        self._weights = np.append(self._weights, np.zeros(more, np.float64))
        self._errors = np.append(self._errors, np.zeros(more, np.float64))


@compiled
def _take_block(room: int, places: int, targets: npt.NDArray[np.int32], free: Ints) -> int:
    """Return the first place of a block of a size class, -1 where the arena of so many places has no room."""
    classes = len(_ROOM)
    start = free[room]
    if start >= 0:
        # A free block's first two places hold where the next one begins.
        free[room] = (np.int64(targets[start]) << 31) | np.int64(targets[start + 1])
        if targets[start] < 0:
            free[room] = -1
        return int(start)
    start = free[classes]
    if start + _ROOM[room] > places:
        return -1
    free[classes] = start + _ROOM[room]
    return int(start)


@compiled
def _give_block(room: int, start: int, targets: npt.NDArray[np.int32], free: Ints) -> None:
    following = free[room]
    if following < 0:
        targets[start] = -1
    else:
        targets[start] = following >> 31
        targets[start + 1] = following & 0x7FFFFFFF
    free[room] = start


@compiled
def _place(
    row: int, size: int, starts: Ints, sizes: Ints, rooms: Ints, targets: npt.NDArray[np.int32], free: Ints
) -> int:
    """Give a row a block for so many targets, its own where that is of the class; return its first place or -1."""
    wanted = 0
    while _ROOM[wanted] < size:
        wanted += 1
    if rooms[row] != wanted:
        start = _take_block(wanted, len(targets), targets, free)
        if start < 0:
            return -1
        if rooms[row] >= 0:
            _give_block(rooms[row], starts[row], targets, free)
        rooms[row], starts[row] = wanted, start
    sizes[row] = size
    return int(starts[row])


@compiled
def _learn(
    rows: Ints,
    pair_targets: npt.NDArray[np.int32],
    pair_epochs: Ints,
    shares: Ints,
    starts: Ints,
    sizes: Ints,
    rooms: Ints,
    epochs: Ints,
    totals: Floats,
    targets: npt.NDArray[np.int32],
    weights: Floats,
    errors: Floats,
    free: Ints,
) -> int:
    """Count pairs until one finds no room in the arena; return how many were counted."""
    for pair in range(len(rows)):
        row, target, epoch = rows[pair], pair_targets[pair], pair_epochs[pair]
        if epochs[row] != NO_EPOCH and epoch <= epochs[row] - KEPT_EPOCHS:
            continue
        found = -1
        for place in range(starts[row], starts[row] + sizes[row]):
            if targets[place] == target:
                found = place
                break
        full = sizes[row] < KEPT and (rooms[row] < 0 or sizes[row] == _ROOM[rooms[row]])
        if found < 0 and full and not _grow(row, starts, sizes, rooms, targets, weights, errors, free):
            return pair
        start, end = starts[row], starts[row] + sizes[row]
        if epoch > epochs[row]:
            left = math.ldexp(1.0, max(epochs[row] - epoch, -1_000)) if epochs[row] != NO_EPOCH else 0.0
            for place in range(start, end):
                weights[place] *= left
                errors[place] *= left
            totals[row] *= left
            epochs[row] = epoch
        weight = math.ldexp(float(shares[pair]), epoch - epochs[row] - FRACTION_BITS)
        totals[row] += weight
        if found >= 0:
            weights[found] += weight
        elif sizes[row] < KEPT:
            targets[end], weights[end], errors[end] = target, weight, 0.0
            sizes[row] += 1
        else:
            lightest = start
            for place in range(start + 1, end):
                if weights[place] < weights[lightest]:
                    lightest = place
            targets[lightest], errors[lightest] = target, weights[lightest]
            weights[lightest] += weight
    return len(rows)


@compiled
def _grow(
    row: int,
    starts: Ints,
    sizes: Ints,
    rooms: Ints,
    targets: npt.NDArray[np.int32],
    weights: Floats,
    errors: Floats,
    free: Ints,
) -> bool:
    """Move a full row into a block of the next class; False where the arena has no room."""
    room = rooms[row]
    start = _take_block(room + 1, len(targets), targets, free)
    if start < 0:
        return False
    old = starts[row]
    for place in range(sizes[row]):
        targets[start + place] = targets[old + place]
        weights[start + place] = weights[old + place]
        errors[start + place] = errors[old + place]
    if room >= 0:
        _give_block(room, old, targets, free)
    starts[row], rooms[row] = start, room + 1
    return True
