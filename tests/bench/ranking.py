"""
From owed users to encoded lists, in process and on one core: gather, rank, explain, write; without Kafka and Redis.

Every user has 60 recent events, every item 64 fitted neighbours and 64 followers, and each list 20 items with up to
three reasons, with or without the items that stand by behind them, and with or without a learned scorer. What is
measured is what `streams.refresh.publish` does for a batch, but for sending it.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.ranking import RankingParameters
from models.scorer_file import TrainedScorer, save_scorer
from streams.catalogue.matrix import Catalogue
from streams.interests.slab import Slab
from streams.interests.vectors import InterestVectors
from streams.refresh.compose import compose
from streams.refresh.rank import Ranker
from streams.settings import Settings
from streams.wire.events import TYPE_CODES, Event
from streams.wire.items import Item
from streams.wire.models import Served
from streams.wire.neighbours import MAX_NEIGHBOURS
from streams.wire.recommendations import AsOf, Trigger
from streams.wire.signals import ItemSignals
from tests.bench.stream import job
from tests.support.batches import batch_of
from tests.support.scoring import random_scorer

ITEMS = (10_000, 100_000)
BATCHES = (1, 8, 64, 256)
_USERS = 1_024
_EVENTS = 60
_FOLDED_AT_ONCE = 10_000
#: Batches of each size; medians are told.
_ROUNDS = 15
_FINGERPRINT = "f" * 16
#: Hidden units of the learned scorer, as many as `freshet train` makes by default.
_HIDDEN = 8


class _Shop:
    """A catalogue, and users with a history in it."""

    def __init__(self, items: int) -> None:
        random = np.random.default_rng(1)
        settings = Settings()
        self.catalogue = Catalogue()
        self.catalogue.stage(Served(_FINGERPRINT, job.DIM))
        self.catalogue.switch()
        vectors = random.standard_normal((items, job.DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        for number, vector in enumerate(vectors):
            item_id = job.item_id(number)
            self.catalogue.upsert_item(Item(item_id))
            self.catalogue.set_vector(item_id, vector)
            self.catalogue.set_signals([ItemSignals(item_id, float(random.pareto(1.5)) + 0.01, job.BASE_MS, 0.0, 1)])
        shares = np.sort(random.random(MAX_NEIGHBOURS))[::-1]
        for row in range(items):
            for family in (self.catalogue.neighbours, self.catalogue.followers):
                family.set(row, random.integers(items, size=MAX_NEIGHBOURS), shares)
        self.slab = Slab(settings, self.catalogue)
        clicks = TYPE_CODES["clicks"]
        met = random.integers(items, size=(_EVENTS, _USERS)).tolist()
        events = [
            Event(clicks, job.user_id(user), job.item_id(item), job.BASE_MS + 60_000 * turn, user, f"e{turn}-{user}")
            for turn, of_turn in enumerate(met)
            for user, item in enumerate(of_turn)
        ]
        for start in range(0, len(events), _FOLDED_AT_ONCE):
            self.slab.fold(batch_of(events[start : start + _FOLDED_AT_ONCE]))
        self._vectors = InterestVectors(self.slab)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scorer.safetensors"
            save_scorer(TrainedScorer(random_scorer(_HIDDEN, job.DIM), _FINGERPRINT), path)
            settings = settings.model_copy(update={"scorer_file": path})
            self._rankers = {spare: Ranker(self.catalogue, settings, spare) for spare in (0, settings.spare_items)}

    def lists(self, users: Sequence[int], spare: int, network: float) -> list[bytes]:
        """Return the JSON of the lists of users, behind which `spare` items stand by; `network` weighs the scorer."""
        user_ids = [job.user_id(user) for user in users]
        rows = np.array([self.slab.row(user_id) for user_id in user_ids], np.int64)
        asked = self._vectors.users(rows, [RankingParameters(network=network)] * len(rows))
        lists = self._rankers[spare].rank(asked)
        return [
            compose(
                ranked, user_id=user_id, surface="home", partition=0, version=1, generated_at_ms=ts_ms,
                event_ts_ms=ts_ms, ingested_at_ms=ts_ms, policy="default-1", model=_FINGERPRINT,
                as_of=AsOf({"clicks": 1}), experiments={}, trigger=Trigger("event"), events_applied=applied,
            ).encode()
            for ranked, user_id, ts_ms, applied in zip(
                lists, user_ids, asked.now_ms.tolist(), self.slab.events_applied(rows), strict=True
            )
        ]  # fmt: skip


def measure(items: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each size of catalogue and of batch, without and with spare items and the scorer."""
    random = np.random.default_rng(2)
    rows = []
    for count in items:
        shop = _Shop(count)
        spare_items = Settings().spare_items
        for batch, (spare, network) in itertools.product(BATCHES, ((0, 0.0), (spare_items, 0.0), (spare_items, 1.0))):
            shop.lists(range(batch), spare, network)
            took_s = []
            for _ in range(_ROUNDS):
                users = random.choice(_USERS, batch, replace=False).tolist()
                started = time.perf_counter()
                made = shop.lists(users, spare, network)
                took_s.append(time.perf_counter() - started)
            median_s = float(np.median(took_s))
            rows.append(
                {
                    "items": count,
                    "batch": batch,
                    "spare": spare,
                    "scorer": _HIDDEN if network else 0,
                    "ms": round(median_s * 1000, 2),
                    "users_per_s": round(batch / median_s),
                    "list_bytes": len(made[0]),
                }
            )
    return rows
