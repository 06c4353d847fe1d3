"""Vectors that lie in clusters as texts' do, and the plain search that any other must equal."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from models.ranking import SCORE_STEP, Barred, Floats, Queries, unit


def clustered(seed: int, count: int, dim: int, clusters: int = 20) -> Floats:
    """Return unit vectors (count, dim) around a few centres."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((clusters, dim))
    spread = random.standard_normal((count, dim)) * 0.5
    return unit((centres[random.integers(0, clusters, count)] + spread).astype(np.float32))


def brute_force(
    asked: Queries, vectors: Floats, popularity: Floats, usable: npt.NDArray[np.bool_], order: npt.NDArray[np.int64],
    k: int, barred: Barred,
) -> list[list[int]]:  # fmt: skip
    """Return the k best rows of each query by sorting all of them, scored in float64; -1 fills up."""
    rows = vectors.astype(np.float64)
    scores = asked.interest.astype(np.float64) @ rows.T
    scores -= np.maximum(asked.negative.astype(np.float64) @ rows.T, 0)
    scores += asked.popularity[:, None].astype(np.float64) * popularity.astype(np.float64)
    steps = np.rint(scores / SCORE_STEP)
    steps[:, ~usable] = -np.inf
    for query, (start, end) in enumerate(itertools.pairwise([0, *barred.ends])):
        steps[query, barred.columns[start:end]] = -np.inf
    lists = []
    for row in steps:
        best = [int(column) for column in np.lexsort((order, -row)) if row[column] != -np.inf]
        lists.append((best[:k] + [-1] * k)[:k])
    return lists


def barring(random: np.random.Generator, queries: int, rows: int) -> Barred:
    """Return rows barred at random, half of the queries' lists empty, in no order."""
    sizes = random.integers(0, rows, queries) * random.integers(0, 2, queries)
    columns = [random.choice(rows, size, replace=False) for size in sizes]
    return Barred(np.concatenate([*columns, []]).astype(np.int32), np.cumsum(sizes))
