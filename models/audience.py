"""Users and what weighs for them, as compiled code reads them while it makes lists."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.caps import Attributes
from models.contenders import Rows
from models.events import Events
from models.medoids import Medoids, find_medoids
from models.prices import Prices, prices_of
from models.ranking import Floats, Weights
from models.scorer import Heard, Scorer, hear
from models.segments import Segments, segments
from models.users import Owned, Users


class Audience(NamedTuple):
    """Of `models.users.Users` and their weights, what compiled code reads."""

    interests: Floats
    events: Events
    owned: Owned
    now_ms: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float64]
    voices: npt.NDArray[np.float64]
    half_lives_events: npt.NDArray[np.float64]
    exclude_seen: npt.NDArray[np.bool_]
    trending: npt.NDArray[np.float64]
    category: npt.NDArray[np.float64]
    medoids: Medoids
    of_medoids: npt.NDArray[np.float64]
    heard: Heard
    prices: Prices
    segments: Segments


def audience(
    users: Users, weights: Weights, table: Rows, attributes: Attributes, of_segments: Floats, scorer: Scorer
) -> Audience:  # fmt: skip
    """
    Return what is read of users.

    Parameters
    ----------
    of_segments
        (items, parts, kinds) float32, popularity in each segment.
    scorer
        Taught on vectors as those of the table.

    """
    medoids = find_medoids(users.owned, weights.interests, table.vectors, table.order)
    return Audience(
        users.interests, users.events, users.owned, users.now_ms, weights.vectors, weights.voices,
        weights.half_lives_events, weights.exclude_seen, weights.trending,
        weights.category, medoids, weights.interests, hear(scorer, weights.network),
        prices_of(weights.price, attributes.prices, users.events),
        segments(weights.segment, users.owned.masses, users.owned.ends, users.now_ms, users.devices, of_segments),
    )  # fmt: skip
