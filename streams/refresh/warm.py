"""
Compiling what the worker runs, before it runs; see `streams.interests.warm`, whose part is done first.

`python -m streams.refresh.warm` fills the cache of machine code with all of it.
"""

from __future__ import annotations

import numpy as np

from streams.catalogue.matrix import Catalogue
from streams.interests import warm as interests
from streams.interests.columns import empty_store, with_rows
from streams.interests.recents import recent_events
from streams.refresh.rank import Ranker
from streams.settings import Settings
from streams.wire.items import Item


def warm() -> None:
    """Fold, gather and rank in a slab and a catalogue of its own: that calls every compiled function."""
    interests.warm()
    recent_events(with_rows(empty_store(1, 1), 1), np.zeros(1, np.int64))
    catalogue = Catalogue(dim=1)
    catalogue.upsert_item(Item("i"))
    Ranker(catalogue, Settings()).default()


if __name__ == "__main__":
    warm()
