"""Building a graph in a thread of its own, from rows that go on changing, and trying it beside the exact search."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from models.contenders import Rows
from models.graph import Graph, candidates
from models.planner import Timings
from models.ranking import Floats, Top, unit
from models.scan import Scan, exact_top, interests

#: Queries that a graph is tried on, and of how many best rows the recall is meant.
_TRIED = 64
_TRIED_K = 100
_TIMED = 4
#: Rows whose mean stands for a user before users have asked.
_MIXED = 3


class Built(NamedTuple):
    """A graph, the revision of the rows it was begun at, and how it did."""

    graph: Graph
    revision: int
    timings: Timings


class Builder:
    """A thread that builds and tries a graph; `built` or `error` is set when it has ended."""

    def __init__(self, searched: Rows, asked: Floats, revision: int) -> None:
        self.built: Built | None = None
        self.error: BaseException | None = None
        self._wanted = True
        self._searched = searched
        self._asked = asked
        self._revision = revision
        self.thread = threading.Thread(target=self._run, name="vector-graph", daemon=True)
        self.thread.start()

    def end(self) -> None:
        """Stop soon."""
        self._wanted = False
        self.thread.join()

    def _run(self) -> None:
        try:
            searched = self._searched
            rows = np.flatnonzero(searched.usable)
            graph = Graph(searched.coded.codes, rows, lambda: self._wanted)
            self.built = Built(graph, self._revision, _tried(graph, searched, self._asked))
        except InterruptedError:
            return
        except Exception as error:  # noqa: BLE001 -- told to the thread that searches
            self.error = error


def _tried(graph: Graph, searched: Rows, asked: Floats) -> Timings:
    """Try a graph beside the exact search, on queries asked lately or, before there are, on mixtures of rows."""
    if not len(asked):
        random = np.random.default_rng(0)
        asked = unit(searched.vectors[random.choice(graph.rows, (_TRIED, _MIXED))].mean(axis=1))
    one, many = interests(asked[:1]), interests(asked)
    exact_one_s, _ = _timed(lambda: exact_top(one, searched, _TRIED_K))
    exact_many_s, best = _timed(lambda: exact_top(many, searched, _TRIED_K))
    found = graph.tune(asked, best.columns)

    def through_graph() -> Top:
        scan = Scan(many, searched, _TRIED_K)
        scan.given_rows(graph.nearest(asked, candidates(_TRIED_K)))
        return scan.top()

    graph_s, _ = _timed(through_graph)
    return Timings(len(searched.order), exact_one_s, exact_many_s, max(len(asked), 2), graph_s / len(asked), found)


def _timed(search: Callable[[], Top]) -> tuple[float, Top]:
    """Return the least seconds that a search took, and its answer; the first compiles or fills caches."""
    took_s = []
    for _ in range(_TIMED):
        started = time.perf_counter()
        top = search()
        took_s.append(time.perf_counter() - started)
    return min(took_s), top
