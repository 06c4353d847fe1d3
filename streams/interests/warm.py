"""
Compiling what the worker runs, before it runs: a first fold that compiles would stop the loop for seconds.

`python -m streams.interests.warm` fills the cache of machine code, so that a start takes the second it needs to load.
"""

from __future__ import annotations

import numpy as np

from streams.catalogue.matrix import Catalogue
from streams.interests.batch import EventBatch
from streams.interests.hashing import event_hashes
from streams.interests.slab import Slab
from streams.interests.vectors import InterestVectors
from streams.settings import Settings
from streams.wire.events import TYPE_CODES


def warm() -> None:
    """Fold, write, forget and gather one user in a slab of its own: that calls every compiled function."""
    slab = Slab(Settings(), Catalogue(1))
    kind = np.array([TYPE_CODES["clicks"]], np.uint8)
    one = np.array([1_700_000_000_000], np.int64)
    slab.fold(EventBatch(["u"], ["i"], ["e"], one, event_hashes(kind, ["e"]), kind, one, one, []))
    InterestVectors(slab).gather([0])
    record = slab.encode("u")
    slab.restore(b"u", record)
    slab.row("u")


if __name__ == "__main__":
    warm()
