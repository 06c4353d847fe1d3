"""What guardrails, calibration and steadiness know of items, in columns: brand, category and price of each row."""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.caps import Attributes
from streams.wire.items import Item

_FIRST_CAPACITY = 1_024
_FLOAT = struct.Struct("<f")
#: Odd, so that multiplying loses nothing; the upper bits of the product depend on all bits (Knuth).
_MULTIPLIER: Final = 2654435761


class ItemAttributes:
    """
    Columns by row; values are those of the items' cards.

    >>> attributes = ItemAttributes()
    >>> attributes.set(2, Item("a", brand="Mugs & Co", price=4.0))
    >>> attributes.first(3).brands.tolist(), attributes.first(3).prices.tolist()
    ([-1, -1, 0], [0.0, 0.0, 4.0])
    """

    def __init__(self) -> None:
        self._columns = Attributes(
            np.full(_FIRST_CAPACITY, -1, np.int32),
            np.full(_FIRST_CAPACITY, -1, np.int32),
            np.zeros(_FIRST_CAPACITY, np.float32),
            np.zeros(_FIRST_CAPACITY, np.uint16),
        )
        self._brands: dict[str, int] = {}
        self._categories: dict[str, int] = {}

    def set(self, row: int, item: Item | None) -> None:
        """Take an item's card; None when it has none any more."""
        self._fit(row + 1)
        brands, categories, prices, marks = self._columns
        brands[row] = _code(self._brands, item.brand if item else "")
        categories[row] = _code(self._categories, item.category if item else "")
        price = (item.price if item else None) or 0.0
        prices[row], marks[row] = price, price_mark(price)

    def first(self, count: int) -> Attributes:
        """Return the columns of the first rows: they grow no more, and change only where cards do."""
        self._fit(count)
        brands, categories, prices, marks = self._columns
        return Attributes(brands[:count], categories[:count], prices[:count], marks[:count])

    def _fit(self, count: int) -> None:
        have = len(self._columns.prices)
        if count > have:
            more = max(2 * have, count) - have
            brands, categories, prices, marks = self._columns
            self._columns = Attributes(
                _longer(brands, more, -1), _longer(categories, more, -1), _longer(prices, more, 0),
                _longer(marks, more, 0),
            )  # fmt: skip


def price_mark(price: float) -> int:
    """
    Return 16 bits for a price: another mark is another price, and of two prices one pair in 65,536 shares a mark.

    >>> [price_mark(price) for price in (0.0, 1.0, 1.01)]
    [0, 26496, 52645]
    """
    bits = int.from_bytes(_FLOAT.pack(price), "little")
    return bits * _MULTIPLIER >> 16 & 0xFFFF


def _code(codes: dict[str, int], name: str) -> int:
    return codes.setdefault(name, len(codes)) if name else -1


def _longer(column: npt.NDArray[Any], more: int, fill: int) -> npt.NDArray[Any]:
    return np.concatenate((column, np.full(more, fill, column.dtype)))
