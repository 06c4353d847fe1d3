"""The places of one list that is kept in order while items enter it one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.compiled import compiled


@compiled
def insert(
    items: npt.NDArray[np.int32], steps: npt.NDArray[np.int64], order: npt.NDArray[np.int64], item: int, step: int
) -> int:
    """Put an item in its place on a list, the last one leaves; return its place, the length if it has none."""
    at = len(items)
    while at > 0:
        other = items[at - 1]
        if other >= 0 and (steps[at - 1] > step or (steps[at - 1] == step and order[other] < order[item])):
            break
        if at < len(items):
            items[at], steps[at] = other, steps[at - 1]
        at -= 1
    if at < len(items):
        items[at], steps[at] = item, step
    return at


@compiled
def make_room(values: npt.NDArray[Any], at: int) -> None:
    """Move what stands from a place on by one; the last one leaves."""
    for place in range(len(values) - 1, at, -1):
        values[place] = values[place - 1]
