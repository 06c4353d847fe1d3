"""What user states need of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from streams.catalogue.ids import ItemNames
from streams.interests.batch import Texts
from streams.interests.columns import Float32, Int32, Int64, UInt8


class ItemVectors(Protocol):
    """The item matrix of one vector space; the catalogue is one."""

    @property
    def dim(self) -> int:
        """Length of a vector; another encoder may change it."""

    @property
    def revision(self) -> int:
        """Grows with every change of a vector."""

    @property
    def vectors(self) -> Float32:
        """(capacity, dim) float32, zeros where no vector is known."""

    @property
    def changed_at(self) -> Int64:
        """(capacity,) int64, the revision at which a row's vector last changed."""

    @property
    def names(self) -> ItemNames:
        """The ids of the rows as bytes."""

    def rows(self, item_ids: Sequence[str]) -> Int32:
        """Return the dense row of each item, made if unknown; may grow the arrays."""

    def find(self, item_ids: Sequence[str]) -> Int64:
        """Return the row of each item, -1 for those never met; changes nothing."""

    def look_up(self, pool: UInt8, at: Int32, size: Int32) -> Int32:
        """Return the row of each id that stands in a buffer, -1 for those never met."""

    def item_id(self, row: int) -> str:
        """Return the id of a row."""


def item_rows(items: ItemVectors, ids: Texts) -> Int32:
    """Return the row (n,) of each id, made if unknown; UnicodeDecodeError for an id that is not UTF-8."""
    rows = items.look_up(ids.pool, ids.at, ids.size)
    missing = np.flatnonzero(rows < 0).tolist()
    if missing:
        rows[missing] = items.rows([ids[at] for at in missing])
    return rows
