"""The index under churn: rows come, change and go in any order, and every way finds what brute force finds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.graph import MIN_RECALL, recall
from models.index import VectorIndex
from models.planner import Way
from models.ranking import Barred, Floats, Queries, nothing_barred
from models.scan import interests
from tests.support.vectors import barring, brute_force, clustered

DIM = 24
ROWS = 300


class Model:
    """The index and the plain arrays it must answer like."""

    def __init__(self) -> None:
        self.index = VectorIndex(DIM, graphs=False)
        self.vectors: Floats = np.zeros((ROWS, DIM), np.float32)
        self.live = np.zeros(ROWS, np.bool_)

    def set(self, rows: npt.NDArray[np.int64], vectors: Floats) -> None:
        """Put vectors in rows of both."""
        self.index.set(rows, vectors)
        self.vectors[rows] = vectors
        self.live[rows] = True

    def remove(self, rows: npt.NDArray[np.int64]) -> None:
        """Take rows out of both."""
        self.index.remove(rows)
        self.live[rows] = False

    def check(self, asked: Queries, allowed: npt.NDArray[np.bool_], barred: Barred, by: Way) -> None:
        """Hold that ten of each query are those of brute force."""
        order = np.arange(ROWS)[::-1].copy()
        top = self.index.search(asked, 10, allowed=allowed, order=order, barred=barred, by=by)
        expected = brute_force(
            asked, self.vectors, np.zeros(ROWS, np.float32), self.live & allowed, order, 10, barred
        )  # fmt: skip
        assert expected == top.columns.tolist()


@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(["set", "remove", "build", "wait", "search"]), max_size=14))
def test_every_way_is_brute_force_on_few_rows(seed: int, steps: list[str]) -> None:
    """
    Whatever happened, a search finds the best live, allowed and unbarred rows.

    On few rows a graph search meets every node, so that both ways have one answer: what is missing or doubled between
    graph, changed rows and removed ones would show.
    """
    random = np.random.default_rng(seed)
    model = Model()
    with model.index:
        for step in ["set", *steps, "search"]:
            rows = random.choice(ROWS, random.integers(1, 60), replace=False)
            if step == "set":
                model.set(rows, clustered(seed, len(rows), DIM))
            elif step == "remove":
                model.remove(rows)
            elif step == "build":
                model.index.build()
            elif step == "wait":
                model.index.wait(30.0)
            else:
                allowed = random.random(ROWS) < random.choice([0.02, 0.5, 1.0])
                barred = barring(random, 7, ROWS)
                asked = interests(clustered(seed + 1, 7, DIM))
                for by in ("exact", "graph"):
                    model.check(asked, allowed, barred, by)


@pytest.mark.parametrize("by", ["exact", "graph"])
def test_recall_under_churn(by: Way) -> None:
    """While a third of 4,000 rows changes and graphs are built anew, the 100 best are found to 98 % and more."""
    random = np.random.default_rng(5)
    vectors, live = clustered(3, 4_000, 32, clusters=300), np.ones(4_000, np.bool_)
    asked = interests(clustered(4, 40, 32, clusters=300))
    found: list[float] = []
    with VectorIndex(32, graphs=False) as index:
        index.set(np.arange(4_000), vectors)
        index.build()
        for step in range(8):
            changed = random.choice(4_000, 160, replace=False)
            vectors[changed] = clustered(100 + step, 160, 32, clusters=300)
            index.set(changed, vectors[changed])
            live[changed] = True
            gone = random.choice(4_000, 60, replace=False)
            index.remove(gone)
            live[gone] = False
            if step % 3 == 0:
                index.wait(30.0)
                index.build()
            top = index.search(asked, 100, by=by)
            best = brute_force(
                asked, vectors, np.zeros(4_000, np.float32), live, np.arange(4_000), 100, nothing_barred(40)
            )  # fmt: skip
            assert not np.isin(top.columns, np.flatnonzero(~live)).any()
            found.append(recall(top.columns, np.array(best)))

    assert min(found) >= (1.0 if by == "exact" else MIN_RECALL)
