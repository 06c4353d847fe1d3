"""Pools of candidates for the tests of re-ranking."""

from __future__ import annotations

import numpy as np

from models.caps import Attributes
from models.consistency import Previous, no_previous
from models.events import Events, Weighing
from models.ranking import SCORE_STEP, Floats, unit
from models.reranking import Order, Pool, Promotions, RerankParameters, Tastes, nothing_promoted, rerank

ITEMS = 60
NOW_MS = 1_700_000_000_000
WEIGHING = Weighing(np.array([1.0, 3.0]), np.array([1e6, 1e8]))


class World:
    """One user and a catalogue, at random: items alike and not, brands and categories unknown too, scores that tie."""

    def __init__(self, seed: int, candidates: int = 20, events: int = 12) -> None:
        self.random = random = np.random.default_rng(seed)
        kinds = random.standard_normal((8, 6))[random.integers(0, 8, ITEMS)]
        vectors = kinds + random.standard_normal((ITEMS, 6)) * random.choice([0.0, 0.3, 1.0], (ITEMS, 1))
        vectors[random.random(ITEMS) < 0.1] = 0
        self.vectors: Floats = unit(vectors.astype(np.float32))
        self.attributes = Attributes(
            random.integers(-1, 6, ITEMS).astype(np.int32),
            random.integers(-1, 5, ITEMS).astype(np.int32),
            (random.choice([0.0, 1.0, 1.0], ITEMS) * np.exp(random.standard_normal(ITEMS) * 1.5)).astype(np.float32),
            random.integers(1, 99, ITEMS).astype(np.uint16),
        )
        self.events = Events(
            random.integers(0, ITEMS, events).astype(np.int32),
            random.integers(0, 2, events).astype(np.uint8),
            NOW_MS - np.sort(random.integers(0, 10**8, events))[::-1],
            np.array([events], np.int64),
        )
        self.pool = self.new_pool(candidates)

    def new_pool(self, candidates: int) -> Pool:
        """Return other candidates with other scores."""
        rows = self.random.choice(ITEMS, candidates, replace=False).astype(np.int32)[None]
        steps = np.sort(self.random.integers(-10, 60, candidates))[::-1][None] * 1_000
        return Pool(rows, steps.astype(np.int64), SCORE_STEP)

    def rerank(
        self,
        size: int,
        *,
        pool: Pool | None = None,
        previous: Previous | None = None,
        promotions: Promotions | None = None,
        now_ms: int = NOW_MS,
        spare: int = 0,
        asked: RerankParameters | None = None,
    ) -> Order:
        """Return the user's list."""
        tastes = Tastes(self.events, np.array([now_ms]), WEIGHING)
        return rerank(
            pool or self.pool, previous or no_previous(1), tastes, promotions or nothing_promoted(), self.attributes,
            self.vectors, [asked or RerankParameters()], size, spare,
        )  # fmt: skip


def listed(pool: Pool, order: Order, size: int) -> list[int]:
    """Return the rows of the only user's list."""
    return [int(pool.rows[0, place]) for place in order.places[0, :size] if place >= 0]


def list_before(rows: list[int], *, since_ms: int = NOW_MS - 600_000, moved: bool = True, size: int = 0) -> Previous:
    """Return a list that the only user had before."""
    width = max(size, len(rows))
    padded = np.array([rows + [-1] * (width - len(rows))], np.int32)
    return Previous(
        padded, np.full((1, width), since_ms, np.int64), np.zeros((1, width), np.uint16),
        np.array([NOW_MS - 60_000]), np.array([moved]), np.zeros((1, 2), np.int64),
    )  # fmt: skip
