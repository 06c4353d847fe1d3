"""
Compiling what the signals worker runs, before it runs: a first fold that compiles would stop the loop for seconds.

`python -m streams.signals.warm` fills the cache of machine code, so that a start takes the second it needs to load.
"""

from __future__ import annotations

import numpy as np

from models import local_ease
from models.heavy_hitters import HeavyHitters
from streams.signals.histories import Histories
from streams.signals.popularity import Popularity
from streams.wire.signals import ItemEvent, item_events


def warm() -> None:
    """Count, learn and fit one event in objects of its own: that calls every compiled function."""
    row, one, click = np.zeros(1, np.int64), np.ones(1, np.int64), 1
    Popularity(1.0).add(row, one, np.ones(1), np.zeros(1, np.uint8))
    hitters = HeavyHitters()
    hitters.learn(row, np.zeros(1, np.int32), one, one)
    hitters.restore(0, hitters.counted(0))
    histories = Histories(1, 2)
    histories.add(item_events([ItemEvent(1, "i", click, 1)]), np.ones(1, np.bool_))
    local_ease.fit_local(histories.matrix(1).histories, 1, 1.0, 1, 1)


if __name__ == "__main__":
    warm()
