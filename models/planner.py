"""
Which way a search goes: exactly over all rows, or through a graph and exactly over what changed since it was built.

Exact search wins where batches are large (its product reads each row once for all queries), where filters leave few
rows, where rows change faster than a graph is built, and where more counts than the angle. A graph wins where single
queries meet very many rows. How many depends on machine and data, so both are timed when a graph has been built.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from models.graph import MIN_RECALL

Way = Literal["exact", "graph"]

#: A search through a graph took 1.5 ms on product texts at the recall asked for; a build pays at twice that.
_GRAPH_PAYS_S = 0.003
#: Below this an exact search takes a few ms whatever the batch, and a graph is not worth its memory.
MIN_GRAPH_ROWS = 50_000
#: Nodes that a core builds in a second (1,500 to 3,500 were measured).
_BUILD_ROWS_PER_S = 1_500.0
#: A graph is built again when this share of its rows was changed, added or removed.
MAX_CHANGED = 0.1
#: Below this share of usable rows a graph search meets too few of them.
MIN_USABLE = 0.3


class Timings(NamedTuple):
    """
    Seconds of exact searches over `rows` rows, by size of the batch, and of the graph by query.

    Attributes
    ----------
    rows
        Rows searched.
    exact_one_s, exact_many_s
        A batch of one query, and of `many`.
    many
        Queries of the larger batch.
    graph_s
        One query through the graph.
    recall
        What the graph found of the true best.

    """

    rows: int
    exact_one_s: float
    exact_many_s: float
    many: int
    graph_s: float
    recall: float


class Wanted(NamedTuple):
    """
    What is asked of a search.

    Attributes
    ----------
    queries
        Queries of the batch.
    rows
        Rows there are.
    usable
        Share of them that may be listed.
    changed
        Rows that the graph does not know as they are.
    angle_only
        Whether the score is the interest's alone; a graph knows no popularity and no dislikes.

    """

    queries: int
    rows: int
    usable: float
    changed: int
    angle_only: bool


def way(wanted: Wanted, timings: Timings | None) -> Way:
    """
    Return the faster way for a search.

    >>> slow = Timings(1_000_000, exact_one_s=0.06, exact_many_s=0.3, many=64, graph_s=0.005, recall=0.985)
    >>> [way(Wanted(queries, 1_000_000, 1.0, 0, angle_only=True), slow) for queries in (1, 16, 256)]
    ['graph', 'graph', 'exact']
    >>> way(Wanted(1, 1_000_000, 0.01, 0, angle_only=True), slow)
    'exact'
    """
    if timings is None or timings.recall < MIN_RECALL or not wanted.angle_only or wanted.usable < MIN_USABLE:
        return "exact"
    per_query = (timings.exact_many_s - timings.exact_one_s) / (timings.many - 1)
    exact_s = timings.exact_one_s + max(per_query, 0.0) * (wanted.queries - 1)
    graph_s = timings.graph_s * wanted.queries / wanted.usable + exact_s * wanted.changed / timings.rows
    return "graph" if graph_s < exact_s * wanted.rows / timings.rows else "exact"


def graph_is_due(rows: int, changed: int, graph_rows: int, churn_per_s: float, exact_s_per_query: float) -> bool:
    """
    Return whether a graph should be built now.

    Parameters
    ----------
    rows
        Rows there are.
    changed
        Rows changed, added or removed since the last graph was begun.
    graph_rows
        Rows of that graph; 0 where there is none.
    churn_per_s
        Rows changed in a second, lately.
    exact_s_per_query
        What an exact search takes for each of its queries, lately.

    >>> graph_is_due(1_000_000, 0, 0, churn_per_s=10.0, exact_s_per_query=0.06)
    True
    >>> graph_is_due(1_000_000, 0, 0, churn_per_s=1_000.0, exact_s_per_query=0.06)
    False

    """
    if rows < MIN_GRAPH_ROWS or exact_s_per_query < _GRAPH_PAYS_S:
        return False
    # What changes while it is built must leave it usable for a while.
    if churn_per_s > MAX_CHANGED * _BUILD_ROWS_PER_S:
        return False
    return not graph_rows or changed > MAX_CHANGED * graph_rows
