"""
Ways to the 100 nearest of many product vectors, one core: exact in float32, exact by way of fewer bits, a graph.

The vectors are those of a real shop's product texts; for larger catalogues each is moved a little at random, so that a
copy has a cosine of about 0.96 with it. A query is the mean of one to five rows, as a user's interest is. All ways
answer the same queries in turn, round by round, so that a noisy machine disturbs them alike; a figure is the median of
all its searches, a recall the share of the true 100 found.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from models.contenders import Ints
from models.graph import recall
from models.index import VectorIndex
from models.planner import Way
from models.ranking import Floats, unit
from models.scan import interests
from streams.settings import Settings
from tests.bench import journey

ROWS = (10_000, 100_000, 1_000_000)
BATCHES = (64, 1)
K = 100
_ROUNDS = 5
#: A way's turn in a round: one search that takes longer, and many of those that others would disturb.
_TURN_S = 0.1
#: Length of what is added to a unit vector.
_JITTER = 0.3
#: Rows made, or put in the index, at once.
_PART = 50_000
#: Rows of one block of the ways that are not Freshet's.
_BLOCK = 8_192
#: Rows put in by one call, and calls, where inserts are timed.
_INSERTS, _CALLS = 256, 40
_BUILD_S = 3_600.0

Search = Callable[[Floats], Ints]


def measure(rows: Sequence[int], graph_rows: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return a row for each way, size and batch, and the ratios; larger catalogues than `graph_rows` get no graph."""
    torch.set_num_threads(1)
    products = journey.vectors(Settings())
    results: list[dict[str, Any]] = []
    ratios: dict[str, float] = {}
    for count in rows:
        found = _measure(products, count, with_graph=count <= graph_rows)
        results += found
        ratios |= _ratios(found, count)
    return results, ratios


def catalogue(products: Floats, count: int, seed: int = 0) -> Floats:
    """Return unit vectors (count, d) around those of products."""
    random = np.random.default_rng(seed)
    made = np.empty((count, products.shape[1]), np.float32)
    size = np.float32(_JITTER / products.shape[1] ** 0.5)
    for start in range(0, count, _PART):
        part = products[random.integers(0, len(products), min(_PART, count - start))]
        made[start : start + _PART] = unit(part + size * random.standard_normal(part.shape, dtype=np.float32))
    return made


def users(vectors: Floats, count: int, seed: int = 1) -> Floats:
    """Return unit queries (count, d), each the mean of one to five rows."""
    random = np.random.default_rng(seed)
    means = [vectors[random.integers(0, len(vectors), random.integers(1, 6))].mean(axis=0) for _ in range(count)]
    return unit(np.array(means, np.float32))


def _measure(products: Floats, count: int, *, with_graph: bool) -> list[dict[str, Any]]:
    vectors = catalogue(products, count)
    asked = users(vectors, max(BATCHES))
    with VectorIndex(vectors.shape[1], graphs=False) as index:
        for start in range(0, count, _PART):
            index.set(np.arange(start, min(start + _PART, count)), vectors[start : start + _PART])
        # The graph is tuned on what was asked lately.
        index.search(interests(users(vectors, max(BATCHES), seed=3)), K)
        build_s = _build(index) if with_graph else None
        ways = _ways(vectors, index, with_graph=with_graph)
        rows = []
        for batch in BATCHES:
            rows += _race(ways, asked[:batch], count)
        inserts_per_s = _inserts_per_s(index, catalogue(products, _INSERTS * _CALLS, seed=2))
    for row in rows:
        of_index = row["name"].startswith("index")
        row["build_s"] = round(build_s, 1) if build_s and row["name"] == "index, graph" else None
        row["inserts_per_s"] = round(inserts_per_s) if of_index else None
    return rows


def _build(index: VectorIndex) -> float:
    started = time.monotonic()
    index.build()
    if not index.wait(_BUILD_S):
        raise RuntimeError(f"the graph was not built within {_BUILD_S:g} s")
    return time.monotonic() - started


def _ways(vectors: Floats, index: VectorIndex, *, with_graph: bool) -> dict[str, Search]:
    def indexed(by: Way | None) -> Search:
        return lambda asked: index.search(interests(asked), K, by=by).columns

    ways: dict[str, Search] = {
        "blocked fp32, torch": lambda asked: _blocked(torch.from_numpy(vectors), torch.from_numpy(asked), K).numpy(),
        "blocked bf16, rescored": _rescored(vectors),
        "index, exact": indexed("exact"),
    }
    if with_graph:
        ways["index, graph"] = indexed("graph")
    ways["index, planner"] = indexed(None)
    return ways


def _blocked(vectors: torch.Tensor, asked: torch.Tensor, k: int) -> torch.Tensor:
    """Return the k best rows (n, k): the best of each block, then the best of those."""
    scores, rows = [], []
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK]
        best = (asked @ block.T).topk(min(k, len(block)), dim=1, sorted=False)
        scores.append(best.values)
        rows.append(best.indices + start)
    chosen = torch.cat(scores, dim=1).topk(k, dim=1).indices
    return torch.cat(rows, dim=1).gather(1, chosen)


def _rescored(vectors: Floats) -> Search:
    """Return the search that takes twice as many by bf16, whose matrix units are the fastest of torch's."""
    whole = torch.from_numpy(vectors)
    short = whole.bfloat16()

    def found(asked: Floats) -> Ints:
        queries = torch.from_numpy(asked)
        rows = _blocked(short, queries.bfloat16(), 2 * K)
        scores = torch.einsum("nkd,nd->nk", whole[rows], queries)
        best: Ints = rows.gather(1, scores.topk(K, dim=1).indices).numpy()
        return best

    return found


def _race(ways: dict[str, Search], asked: Floats, count: int) -> list[dict[str, Any]]:
    took_s: dict[str, list[float]] = {name: [] for name in ways}
    answers = {name: way(asked) for name, way in ways.items()}
    for _ in range(_ROUNDS):
        for name, way in ways.items():
            turn_ends = time.perf_counter() + _TURN_S
            while (started := time.perf_counter()) < turn_ends:
                way(asked)
                took_s[name].append(time.perf_counter() - started)
    best = answers["blocked fp32, torch"]
    return [
        {
            "name": name,
            "rows": count,
            "batch": len(asked),
            "ms": round(statistics.median(took_s[name]) * 1e3, 2),
            "queries_per_s": round(len(asked) / statistics.median(took_s[name])),
            "recall": f"{recall(answers[name], best):.4f}",
        }
        for name in ways
    ]


def _inserts_per_s(index: VectorIndex, vectors: Floats) -> float:
    """Return how many new rows a second the index takes, searching for one query after each call."""
    first = len(index)
    asked = interests(vectors[:1])
    spent_s = 0.0
    for call in range(_CALLS):
        part = slice(call * _INSERTS, (call + 1) * _INSERTS)
        started = time.perf_counter()
        index.set(np.arange(first + part.start, first + part.stop), vectors[part])
        spent_s += time.perf_counter() - started
        found = index.search(asked, K).columns
    if not np.isin(0, found - first).any():
        raise RuntimeError("a row put in is not found")
    return _INSERTS * _CALLS / spent_s


def _ratios(rows: list[dict[str, Any]], count: int) -> dict[str, float]:
    """Return speeds of the index over others', above 1 where it is faster."""
    ratios: dict[str, float] = {}
    for batch in BATCHES:
        ms = {row["name"]: row["ms"] for row in rows if row["batch"] == batch}
        planner, own = ms["index, planner"], [ms[name] for name in ("index, exact", "index, graph") if name in ms]
        told = f"{count} rows, batch of {batch}"
        ratios |= {
            f"planner over torch's blocked fp32, {told}": ms["blocked fp32, torch"] / planner,
            f"planner over the ranker's blocked fp32, {told}": ms["blocked fp32, the ranker's"] / planner,
            f"planner over the best rescored, {told}": min(ms["blocked bf16, rescored"], ms["index, exact"]) / planner,
            f"planner over the best of its choices, {told}": min(own) / planner,
        }
    return ratios
