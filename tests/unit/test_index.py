"""The index's own rules: what it refuses, when it builds, what it does when a build fails or is ended."""

from __future__ import annotations

import numpy as np
import pytest

from models import planner, rebuild
from models.graph import Graph
from models.index import VectorIndex
from models.ranking import SCORE_STEP, Barred, Queries
from models.scan import interests
from tests.support.vectors import clustered

DIM = 16


def filled(count: int, *, graphs: bool = False) -> VectorIndex:
    """Return an index of clustered rows."""
    index = VectorIndex(DIM, graphs=graphs)
    index.set(np.arange(count), clustered(1, count, DIM))
    return index


@pytest.mark.parametrize(
    ("rows", "vectors", "message"),
    [
        ([0], np.zeros((1, DIM + 1), np.float32), "do not fit"),
        ([0, 1], np.zeros((1, DIM), np.float32), "do not fit"),
        ([-1], np.zeros((1, DIM), np.float32), "negative"),
        ([0], np.full((1, DIM), np.nan, np.float32), "not finite"),
        ([0], np.full((1, DIM), -1e30, np.float32), "beyond"),
    ],
)
def test_what_does_not_fit_is_refused(rows: list[int], vectors: np.ndarray, message: str) -> None:
    """Wrong shapes, negative rows and numbers that are not finite change nothing."""
    index = VectorIndex(DIM)
    with pytest.raises(ValueError, match=message):
        index.set(np.array(rows), vectors)

    assert len(index) == 0


@pytest.mark.parametrize("k", [0, 5])
def test_an_empty_index_and_an_empty_batch(k: int) -> None:
    """Nothing to find and nobody who asks are no errors: -1 fills up."""
    with VectorIndex(DIM) as index:
        assert [[-1] * k] == index.search(interests(clustered(2, 1, DIM)), k).columns.tolist()
        assert (0, k) == index.search(interests(np.empty((0, DIM), np.float32)), k).columns.shape


def test_rows_far_apart_are_kept() -> None:
    """Rows may be given in any order and with gaps; what was there stays."""
    with filled(3) as index:
        before = index.vectors[:3].copy()
        index.set(np.array([5_000]), clustered(9, 1, DIM))

        assert len(index) == 4
        np.testing.assert_array_equal(before, index.vectors[:3])
        assert [[5_000]] == index.search(interests(clustered(9, 1, DIM)), 1).columns.tolist()


def test_a_row_changed_while_a_graph_is_built_is_found_as_it_is() -> None:
    """The graph may have either vector of it: it is looked at beside the graph."""
    with filled(500) as index:
        index.build()
        wanted = clustered(77, 1, DIM)
        index.set(np.array([123]), wanted)
        assert index.wait(30.0)

        assert index.has_graph
        top = index.search(interests(wanted), 1, by="graph")
        assert [[123]] == top.columns.tolist()
        np.testing.assert_allclose([[1.0]], top.steps * SCORE_STEP, atol=1e-5)


def test_barred_rows_are_never_listed_by_a_graph() -> None:
    """A user who had the 300 nearest rows already gets the next ones."""
    with filled(1_000) as index:
        index.build()
        index.wait(30.0)
        asked = interests(clustered(3, 2, DIM))
        nearest = index.search(asked, 310).columns
        barred = Barred(nearest[0, :300].astype(np.int32), np.array([300, 300]))
        top = index.search(asked, 10, barred=barred, by="graph")

    assert nearest[0, 300:].tolist() == top.columns[0].tolist()
    assert nearest[1, :10].tolist() == top.columns[1].tolist()


def test_a_graph_is_built_when_exact_search_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rows are many and stay as they are, searches begin a graph, and the next ones go through it."""
    monkeypatch.setattr(planner, "MIN_GRAPH_ROWS", 1_000)
    monkeypatch.setattr(planner, "_GRAPH_PAYS_S", 0.0)
    monkeypatch.setattr(planner, "_BUILD_ROWS_PER_S", 1e9)
    asked = interests(clustered(3, 1, DIM))
    with filled(2_000, graphs=True) as index:
        exact = index.search(asked, 5)
        assert index.wait(60.0)

        assert index.has_graph
        assert index.timings is not None
        assert exact.columns.tolist() == index.search(asked, 5, by="graph").columns.tolist()
        index.set(np.arange(300), clustered(4, 300, DIM))
        first = index._built
        index.search(asked, 5, by="exact")
        assert index.wait(60.0)
        assert first is not index._built


def test_without_graphs_none_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """`graphs=False` keeps every answer exact, however slow it is."""
    monkeypatch.setattr(planner, "MIN_GRAPH_ROWS", 0)
    monkeypatch.setattr(planner, "_GRAPH_PAYS_S", 0.0)
    with filled(2_000) as index:
        index.search(interests(clustered(3, 1, DIM)), 5)

        assert index.wait(0.0)
        assert not index.has_graph


def test_a_build_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error reaches the thread that searches, once; the index goes on exactly."""

    def broken(*_: object) -> Graph:
        raise MemoryError("no room")

    monkeypatch.setattr(rebuild, "Graph", broken)
    with filled(100) as index:
        index.build()
        assert index._builder is not None
        index._builder.thread.join()
        with pytest.raises(RuntimeError, match="could not be built"):
            index.search(interests(clustered(3, 1, DIM)), 5)
        assert (1, 5) == index.search(interests(clustered(3, 1, DIM)), 5).columns.shape


def test_closing_ends_a_build() -> None:
    """A build is not waited for to its end."""
    index = filled(30_000)
    index.build()
    builder = index._builder
    assert builder is not None
    index.close()

    assert not builder.thread.is_alive()
    assert builder.built is None
    assert builder.error is None


def test_dislikes_and_popularity_never_go_through_a_graph() -> None:
    """A graph knows angles only: the planner takes the exact way where more counts."""
    timings = planner.Timings(1_000, exact_one_s=1.0, exact_many_s=2.0, many=64, graph_s=1e-6, recall=1.0)
    wanted = planner.Wanted(1, 1_000, 1.0, 0, angle_only=True)

    assert "graph" == planner.way(wanted, timings)
    assert "exact" == planner.way(wanted._replace(angle_only=False), timings)
    assert "exact" == planner.way(wanted._replace(usable=0.1), timings)
    assert "exact" == planner.way(wanted, timings._replace(recall=0.97))
    assert "exact" == planner.way(wanted, None)


def test_popular_rows_come_first_for_those_who_want_them() -> None:
    """The index scores as the ranking does: interest, less likeness to what is disliked, plus popularity."""
    with VectorIndex(2) as index:
        index.set(np.arange(3), np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32))
        asked = Queries(
            np.array([[1, 0], [1, 0], [1, 0]], np.float32),
            np.array([[0, 0], [0.5, 0], [0, 0]], np.float32),
            np.array([0, 0, 2], np.float32),
        )
        top = index.search(asked, 2, popularity=np.array([0, 0, 1], np.float32))

    assert [[0, 1], [0, 1], [2, 0]] == top.columns.tolist()
    np.testing.assert_allclose(np.array([[1, 0.8], [0.5, 0.4], [2, 1]]), top.steps * SCORE_STEP, atol=1e-5)
