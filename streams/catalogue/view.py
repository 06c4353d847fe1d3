"""The catalogue as ranking reads it: arrays by row, as they stand at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.caps import Attributes
from models.neighbours import Related
from models.quantisation import Quantised
from models.reranking import Promotions
from streams.catalogue.ids import ItemNames
from streams.catalogue.space import Floats


class View(NamedTuple):
    """
    The catalogue at one moment, for a thread that ranks while the loop goes on giving out rows.

    Arrays have a row for each item known at that moment; they neither grow nor move. Vectors change in place, so the
    catalogue must not be applied to while a view is in use.

    Attributes
    ----------
    fingerprint
        Of the encoder whose vectors they are; empty while none is known.
    vectors
        (rows, dim) float32.
    coded
        Their codes.
    popularity
        (rows,) float32 in 0..1.
    rising
        (rows,) float32 in 0..1, how much demand rises; see `streams.catalogue.demand.Demand`.
    of_segments
        (rows, parts, kinds) float32 in 0..1, popularity in each segment; see `models.segments.Split.shape`.
    events
        (rows,) int64, how many events were counted of each; changes in place as vectors do.
    related
        What speaks for items through others; changes in place as vectors do.
    attributes
        Brand, category and price of each row, and a mark of the price; changed in place.
    offered
        (rows,) bool: listed, in stock and not blocked; changes in place as vectors do.
    promotions
        What the shop puts forward.
    order
        (rows,) int64, the place of each row's id among all sorted ids.
    ids
        Row to item id; may know later items, whose rows are beyond the arrays.
    names
        The ids of the rows as bytes.

    """

    fingerprint: str
    vectors: Floats
    coded: Quantised
    popularity: Floats
    rising: Floats
    of_segments: Floats
    events: npt.NDArray[np.int64]
    related: Related
    attributes: Attributes
    offered: npt.NDArray[np.bool_]
    promotions: Promotions
    order: npt.NDArray[np.int64]
    ids: Sequence[str]
    names: ItemNames
