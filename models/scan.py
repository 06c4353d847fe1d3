"""
Exact top-k over codes: every row is scored as integers, those that may be among the best again from their vectors.

A row's score of codes and the bound of `models.quantisation` give an interval that holds its true score. Of each query
are kept the rows whose interval reaches the k-th best; what lies below by more than rounding can move is passed over,
mostly without a look at its vector. The true score is

    interest . v - max(0, negative . v) + popularity weight * popularity

in float64, rounded to `models.ranking.SCORE_STEP`, ties by order. So the answer is that of brute force, whatever the
codes leave out: a worse bound costs time, never an item.
"""

from __future__ import annotations

import numkong
import numpy as np

from models.contenders import GROUP, ORDER_BITS, SLACK, Asked, Ints, Rows, collect, nothing_found, settle, take
from models.quantisation import Quantised, quantise
from models.ranking import Barred, Floats, Queries, Top, nothing_barred

#: Products of one block, 1 MB: they are read again at once and should still lie in the core's cache.
_BLOCK_PRODUCTS = 1 << 18
#: Queries of one pass over the codes. More gain nothing in the product and take the cache from each other.
_PASS_QUERIES = 128
#: Below this share of usable rows their codes are gathered first, above it all are multiplied.
GATHER_BELOW = 0.5


class Scan:
    """
    The search of one batch of queries: rows are shown to it in any parts, then it tells the best.

    Parameters
    ----------
    asked
        Of n queries.
    searched
        What is searched; stands still meanwhile.
    k
        Most rows for each query.
    barred
        Rows that may not be listed for a query.

    """

    def __init__(self, asked: Queries, searched: Rows, k: int, barred: Barred | None = None) -> None:
        self._searched = searched
        self._k = k
        self._count = len(asked.interest)
        asked = _whole_groups(asked)
        coded = quantise(asked.interest)
        disliking = np.flatnonzero(asked.negative.any(axis=1))
        coded_negative = quantise(asked.negative)
        self.codes = np.concatenate([coded.codes, coded_negative.codes[disliking]])
        self._asked = _prepared(
            asked, coded, coded_negative, disliking, searched, barred or nothing_barred(self._count)
        )
        self._found = nothing_found(len(asked.interest), k)
        self._found.threshold[self._count :] = np.inf

    def all_rows(self) -> None:
        """Look at every usable row."""
        usable = self._searched.usable
        count = int(np.count_nonzero(usable))
        self.some_rows(np.flatnonzero(usable) if count < GATHER_BELOW * len(usable) else None)

    def some_rows(self, rows: Ints | None) -> None:
        """Look at rows (p,), each but once; None for all."""
        count = len(self._searched.order) if rows is None else len(rows)
        if not count or not self._k or not len(self.codes):
            return
        codes = self._searched.coded.codes
        lanes = len(self.codes)
        packed = numkong.dots_pack(self.codes)
        block = max(_BLOCK_PRODUCTS // lanes, 1)
        products = np.empty((min(block, count), lanes), np.int32)
        for start in range(0, count, block):
            stop = min(start + block, count)
            taken = np.arange(start, stop) if rows is None else rows[start:stop]
            shown = codes[start:stop] if rows is None else codes[taken]
            part = products[: stop - start]
            numkong.dots_packed(shown, packed, out=numkong.from_dlpack(part))
            collect(part, taken, self._searched, self._asked, self._found)

    def given_rows(self, candidates: Ints) -> None:
        """Score candidates (n, c) of each query, each but once; negative ones and rows out of use are passed over."""
        if self._k:
            take(candidates, self._searched, self._asked, self._found)

    def top(self) -> Top:
        """Return the best rows of each query, best first."""
        found = self._found
        if self._k:
            settle(self._searched, self._asked, found)
        keys, rows = found.keys[: self._count], found.rows[: self._count]
        best = np.argsort(keys, axis=1)[:, ::-1]
        keys, rows = np.take_along_axis(keys, best, axis=1), np.take_along_axis(rows, best, axis=1)
        return Top(rows, np.where(rows >= 0, keys >> ORDER_BITS, 0))


def exact_top(asked: Queries, searched: Rows, k: int, barred: Barred | None = None) -> Top:
    """Return each query's k best usable rows, exactly; -1 fills up."""
    parts = []
    for start in range(0, len(asked.interest), _PASS_QUERIES):
        part = Queries(*(column[start : start + _PASS_QUERIES] for column in asked))
        scan = Scan(part, searched, k, of_queries(barred, start, len(part.interest)))
        scan.all_rows()
        parts.append(scan.top())
    if not parts:
        return Top(np.empty((0, k), np.int64), np.empty((0, k), np.int64))
    return Top(np.concatenate([top.columns for top in parts]), np.concatenate([top.steps for top in parts]))


def interests(vectors: Floats) -> Queries:
    """Return queries of vectors (n, dim) alone: without dislikes, and whatever is popular."""
    return Queries(np.ascontiguousarray(vectors, np.float32), np.zeros_like(vectors, np.float32),
                   np.zeros(len(vectors), np.float32))  # fmt: skip


def of_queries(barred: Barred | None, first: int, count: int) -> Barred | None:
    """Return what is barred for some queries in a row."""
    if barred is None:
        return None
    ends = barred.ends[first : first + count]
    before = barred.ends[first - 1] if first else 0
    return Barred(barred.columns[before : ends[-1] if len(ends) else before], ends - before)


def _whole_groups(asked: Queries) -> Queries:
    """Return the queries with as many that ask for nothing as fill the last group."""
    missing = -len(asked.interest) % GROUP
    return Queries(*(np.pad(column, [(0, missing)] + [(0, 0)] * (column.ndim - 1)) for column in asked))


def _prepared(
    asked: Queries, coded: Quantised, negative: Quantised, disliking: Ints, searched: Rows, barred: Barred
) -> Asked:
    count = len(asked.interest)
    length, negative_length = coded.length + coded.residual, negative.length + negative.residual
    lane = np.full(count, -1, np.int32)
    lane[disliking] = count + np.arange(len(disliking))
    highest = np.abs(searched.popularity).max(initial=0)
    ends = np.pad(barred.ends, (1, count - len(barred.ends)), constant_values=(0, len(barred.columns)))
    sorting = np.lexsort((barred.columns, np.repeat(np.arange(count), np.diff(ends))))
    return Asked(
        interest=np.ascontiguousarray(asked.interest),
        negative=np.ascontiguousarray(asked.negative),
        popularity=asked.popularity,
        scale=coded.scale,
        near=length * (1 + SLACK),
        far=coded.residual + length * SLACK,
        fixed=SLACK * np.abs(asked.popularity) * highest,
        negative_lane=lane,
        negative_scale=negative.scale,
        negative_near=negative_length * (1 + SLACK),
        negative_far=negative.residual + negative_length * SLACK,
        barred_start=ends,
        barred=barred.columns[sorting].astype(np.int64),
    )
