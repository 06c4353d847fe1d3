"""
Compiling what the worker runs, before it runs; see `streams.interests.warm`, whose part is done first.

`python -m streams.refresh.warm` fills the cache of machine code with all of it.
"""

from __future__ import annotations

import numpy as np

from models.ranking import RankingParameters
from models.scan import SAMPLED_FROM
from models.segments import Split
from models.users import nobody
from streams.catalogue.matrix import Catalogue
from streams.interests import warm as interests
from streams.refresh.rank import Ranker
from streams.settings import Settings
from streams.wire.items import Item


def warm() -> None:
    """Fold, gather, rank and strike in a slab and a catalogue of its own: that calls every compiled function."""
    interests.warm()
    catalogue = Catalogue(dim=1, split=Split(1))
    # So many that a search begins with some of them.
    for number in range(SAMPLED_FROM):
        catalogue.upsert_item(Item(f"i{number}"))
    catalogue.set_vector("i0", np.ones(1, np.float32))
    settings, view = Settings(), catalogue.view()
    ranker = Ranker(catalogue, settings, settings.spare_items)
    ranker.default()
    everything = RankingParameters(
        steadiness=1.0, segment=1.0, trending=1.0, category=1.0, price=1.0, interests=1.0, explore=1.0
    )
    ranking = ranker.make(nobody(catalogue.dim, everything), view)
    ranker.strike(ranking.places, ranking.price_marks, view)


if __name__ == "__main__":
    warm()
