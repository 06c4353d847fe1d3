"""
Nearest rows of many queries while rows come, change and go: one interface over exact and approximate search.

Every answer is scored from the vectors and ordered like `models.scan` does it, whichever way it was found. The exact
way finds the same rows on every machine; the way through a graph misses some two in a hundred. A graph is built in a
thread of its own from the rows as they are; what changes after its begin is searched exactly beside it.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import numpy as np

from models.contenders import Flags, Ints, Rows
from models.graph import Graph, candidates
from models.planner import Timings, Wanted, Way, graph_is_due, way
from models.quantisation import quantise, uncoded
from models.ranking import Barred, Floats, Queries, Top
from models.rebuild import Builder, Built
from models.scan import Scan, exact_top, of_few, of_queries

_FIRST_CAPACITY = 1_024
#: Squares of much larger numbers leave float32, and the bounds with them.
_LARGEST = 1e9
#: Queries of one pass through a graph.
_PASS_QUERIES = 128
#: Queries remembered, that a graph is tried on.
_REMEMBERED = 64
#: How fast old rates are forgotten: a minute's changes, and some ten searches.
_CHURN_S = 60.0
_SEARCH_SHARE = 0.1


class VectorIndex:
    """
    Rows of vectors, searched in batches. One thread changes and searches it.

    Parameters
    ----------
    dim
        Dimension of the vectors.
    graphs
        Whether graphs may be built; without them every answer is exact and the same on every machine.

    Attributes
    ----------
    vectors
        (capacity, dim) float32; not to be changed by others.

    >>> from models.scan import interests
    >>> index = VectorIndex(2)
    >>> index.set(np.array([0, 1, 2]), np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32))
    >>> index.remove(np.array([1]))
    >>> index.search(interests(np.array([[0, 1]], np.float32)), k=2).columns.tolist()
    [[2, 0]]

    """

    def __init__(self, dim: int, *, graphs: bool = True) -> None:
        self._graphs = graphs
        self._count = 0
        self._revision = 0
        self.vectors: Floats = np.zeros((_FIRST_CAPACITY, dim), np.float32)
        self._coded = uncoded(_FIRST_CAPACITY, dim)
        self._live = np.zeros(_FIRST_CAPACITY, np.bool_)
        self._changed_at = np.zeros(_FIRST_CAPACITY, np.int64)
        self._built: Built | None = None
        #: Rows of the graph that are no longer as it knows them, and live rows that it does not know as they are.
        self._stale = np.zeros(_FIRST_CAPACITY, np.bool_)
        self._delta: Ints | None = None
        self._builder: Builder | None = None
        self._begun_at = 0
        self._asked: Floats = np.empty((0, dim), np.float32)
        self._churn_per_s = 0.0
        self._churned_s = time.monotonic()
        self._exact_s_per_query = 0.0

    def __enter__(self) -> Self:
        """Return the index, which `close` ends."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Return the number of rows that may be found."""
        return int(np.count_nonzero(self._live[: self._count]))

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return int(self.vectors.shape[1])

    @property
    def has_graph(self) -> bool:
        """Whether there is a graph to search."""
        self._adopt()
        return self._built is not None

    @property
    def timings(self) -> Timings | None:
        """How the graph did when it was built."""
        return None if self._built is None else self._built.timings

    def close(self) -> None:
        """End a build that is under way."""
        if self._builder is not None:
            self._builder.end()
            self._builder = None

    def set(self, rows: Ints, vectors: Floats) -> None:
        """
        Put vectors (n, dim) float32 in rows (n,), each but once; new rows or others than before.

        Raises
        ------
        ValueError
            When the shapes do not fit, a row is negative, or a number is not finite or beyond 1e9.

        """
        if vectors.shape != (len(rows), self.dim):
            raise ValueError(f"vectors of shape {vectors.shape} do not fit {len(rows)} rows of dimension {self.dim}")
        if not (np.abs(vectors) < _LARGEST).all():
            raise ValueError(f"a vector has numbers that are not finite or beyond {_LARGEST:g}")
        if not len(rows):
            return
        if rows.min() < 0:
            raise ValueError("a row is negative")
        self._reserve(int(rows.max()) + 1)
        vectors = vectors.astype(np.float32, copy=False)
        self.vectors[rows] = vectors
        self._coded.put(rows, quantise(vectors))
        self._live[rows] = True
        self._change(rows)

    def remove(self, rows: Ints) -> None:
        """Take rows (n,) out; those that are not there stay so."""
        rows = rows[(rows >= 0) & (rows < self._count)]
        rows = rows[self._live[rows]]
        self._live[rows] = False
        self._change(rows)

    def search(
        self,
        asked: Queries,
        k: int,
        *,
        popularity: Floats | None = None,
        allowed: Flags | None = None,
        order: Ints | None = None,
        barred: Barred | None = None,
        by: Way | None = None,
    ) -> Top:
        """
        Return each query's k best rows.

        Parameters
        ----------
        asked
            Of n queries; `interests` makes them of vectors alone.
        k
            Most rows for each query.
        popularity
            (rows,) float32; zeros unless given.
        allowed
            (rows,) bool, a filter for all queries.
        order
            (rows,) int64, distinct in 0..2^32-1: the smaller wins a tie. The rows themselves unless given.
        barred
            Rows that may not be listed for a query; no way lists them.
        by
            The way to go; the planner's choice unless given.

        Raises
        ------
        RuntimeError
            When the last graph could not be built.

        """
        self._adopt()
        count = self._count
        usable = self._live[:count] if allowed is None else self._live[:count] & allowed[:count]
        searched = Rows(
            self.vectors[:count],
            self._coded.first(count),
            np.zeros(count, np.float32) if popularity is None else popularity[:count],
            usable,
            np.arange(count) if order is None else order[:count],
        )
        if by is None:
            by = self._way(asked, usable)
        if by == "graph" and self._built is not None:
            return self._through_graph(self._built.graph, asked, searched, k, barred)
        started = time.perf_counter()
        top = exact_top(asked, searched, k, barred)
        self._exact_took(asked, time.perf_counter() - started)
        return top

    def build(self) -> None:
        """Begin a graph, unless one is under way; searches take it up when it is done."""
        if self._builder is None:
            self._begun_at = self._revision
            self._builder = Builder(self._snapshot(), self._asked, self._revision)

    def wait(self, timeout_s: float) -> bool:
        """Wait until no graph is under way; return whether that came to pass."""
        if self._builder is not None:
            self._builder.thread.join(timeout_s)
        self._adopt()
        return self._builder is None

    def _way(self, asked: Queries, usable: Flags) -> Way:
        if self._built is None or not len(usable):
            return "exact"
        share = float(np.count_nonzero(usable)) / len(usable)
        angle_only = not asked.popularity.any() and not asked.negative.any()
        wanted = Wanted(len(asked.interest), len(usable), share, len(self._changed_rows()), angle_only)
        return way(wanted, self._built.timings)

    def _through_graph(self, graph: Graph, asked: Queries, searched: Rows, k: int, barred: Barred | None) -> Top:
        parts = []
        for start in range(0, len(asked.interest), _PASS_QUERIES):
            part = Queries(*(column[start : start + _PASS_QUERIES] for column in asked))
            mine = of_queries(barred, start, len(part.interest))
            parts.append(self._part_through_graph(graph, part, searched, k, mine))
        if not parts:
            return exact_top(asked, searched, k, barred)
        return Top(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _part_through_graph(self, graph: Graph, asked: Queries, searched: Rows, k: int, barred: Barred | None) -> Top:
        known = searched.usable[graph.rows] & ~self._stale[graph.rows]
        share = float(np.count_nonzero(known)) / max(len(graph), 1)
        most = 0 if barred is None else int(np.diff(barred.ends, prepend=0).max(initial=0))
        found = graph.nearest(asked.interest, round((candidates(k) + most) / max(share, 0.01)))
        found[self._stale[found]] = -1
        scan = Scan(asked, searched, k, barred)
        scan.given_rows(found)
        scan.some_rows(self._changed_rows())
        top = scan.top()
        short = np.flatnonzero(top.columns[:, -1] < 0) if k else np.empty(0, np.int64)
        if short.size:
            again = exact_top(Queries(*(column[short] for column in asked)), searched, k, of_few(barred, short))
            top.columns[short], top.steps[short] = again.columns, again.steps
        return top

    def _change(self, rows: Ints) -> None:
        self._revision += 1
        self._changed_at[rows] = self._revision
        self._stale[rows] = True
        self._delta = None
        now_s = time.monotonic()
        passed_s = max(now_s - self._churned_s, 1e-3)
        self._churned_s = now_s
        left = np.exp(-passed_s / _CHURN_S)
        self._churn_per_s = float(self._churn_per_s * left + len(rows) / _CHURN_S)

    def _changed_rows(self) -> Ints:
        """Return the live rows that the graph does not know as they are."""
        if self._delta is None:
            count = self._count
            self._delta = np.flatnonzero(self._stale[:count] & self._live[:count])
        return self._delta

    def _exact_took(self, asked: Queries, seconds: float) -> None:
        queries = len(asked.interest)
        if not queries:
            return
        before = self._exact_s_per_query or seconds / queries
        self._exact_s_per_query = before + _SEARCH_SHARE * (seconds / queries - before)
        speaking = asked.interest[asked.interest.any(axis=1)]
        self._asked = np.concatenate([self._asked, speaking[:_REMEMBERED]])[-_REMEMBERED:]
        if self._graphs and self._builder is None:
            changed = int(np.count_nonzero(self._changed_at[: self._count] > self._begun_at))
            graph_rows = 0 if self._built is None else len(self._built.graph)
            if graph_is_due(len(self), changed, graph_rows, self._churn_per_s, self._exact_s_per_query):
                self.build()

    def _snapshot(self) -> Rows:
        """Return the rows as they are; what changes in them later is searched beside the graph."""
        count = self._count
        nothing = np.zeros(count, np.float32)
        live = self._live[:count].copy()
        return Rows(self.vectors[:count], self._coded.first(count), nothing, live, np.arange(count))

    def _adopt(self) -> None:
        """Take up a graph that is done."""
        builder = self._builder
        if builder is None or builder.thread.is_alive():
            return
        self._builder = None
        if builder.error is not None:
            raise RuntimeError("the graph of the vector index could not be built") from builder.error
        if builder.built is not None:
            self._built = builder.built
            self._stale[:] = self._changed_at > self._built.revision
            self._delta = None

    def _reserve(self, count: int) -> None:
        self._count = max(self._count, count)
        before = len(self._live)
        if count <= before:
            return
        larger = max(count, 2 * before)
        vectors, coded = np.zeros((larger, self.dim), np.float32), uncoded(larger, self.dim)
        vectors[:before] = self.vectors
        coded.put(np.arange(before), self._coded)
        self.vectors, self._coded = vectors, coded
        self._live = np.append(self._live, np.zeros(larger - before, np.bool_))
        self._stale = np.append(self._stale, np.zeros(larger - before, np.bool_))
        self._changed_at = np.append(self._changed_at, np.zeros(larger - before, np.int64))
