"""
Well-known recommenders to compare with, each small and exact: a log in, lists out.

What is counted learns from every event as it comes; what is fitted, with the next `fit`.
"""

from __future__ import annotations

from models.baselines.bpr import BPR
from models.baselines.co_occurrence import CoOccurrence
from models.baselines.ease import EASE
from models.baselines.item_knn import ItemKNN
from models.baselines.personal import PersonalFrequency
from models.baselines.popularity import DecayedPopularity, Popularity
from models.baselines.vs_knn import VSKNN
from models.interactions import Recommender

_DAY_MS = 86_400_000


def all_baselines(users: int, items: int, kinds: int) -> list[Recommender]:
    """
    Return new baselines that have learned nothing, for dense users and items below these numbers.

    An event of every kind counts alike for all of them. Their settings are the best NDCG@10 of small grids on
    MovieLens-100K, each user's last event but one the target and the last left out.

    Raises
    ------
    ImportError
        Without the extra `evaluation`.

    """
    # The others are there without the library that this one needs.
    from models.baselines.als import ALS  # noqa: PLC0415

    assert kinds > 0
    return [
        Popularity(users, items),
        DecayedPopularity(users, items, half_life_ms=7 * _DAY_MS),
        CoOccurrence(users, items, reach=10),
        ItemKNN(users, items, neighbours=50, shrinkage=10.0),
        VSKNN(users, items, neighbours=200, sample=5_000),
        PersonalFrequency(users, items),
        BPR(users, items, factors=32, regularisation=0.01, epochs=50),
        ALS(users, items, factors=32, regularisation=1.0, confidence=1.0),
        EASE(users, items, regularisation=100.0),
    ]
