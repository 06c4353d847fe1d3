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

import math
from collections.abc import Iterator
from typing import Any

import numkong
import numpy as np
import numpy.typing as npt

from models.asked import asked_of
from models.contenders import Ints, Rows, collect, expect, nothing_found, ranked, settle, take
from models.quantisation import multiply
from models.ranking import SCORE_STEP, Barred, Floats, Queries, Top, nothing_barred

#: Products of one block, 1 MB: they are read again at once and should still lie in the core's cache.
_BLOCK_PRODUCTS = 1 << 18
#: Queries of one pass over the codes. More gain nothing in the product and take the cache from each other.
_PASS_QUERIES = 128
#: Up to so many queries, dislikes counted apart, are multiplied row by row: a tile of the matrix units has 16 lanes,
#: used or not. One query over 10,000 rows takes 0.1 ms this way and 0.6 that way; from five on the tile is faster.
_FEW_QUERIES = 4
#: Below this share of usable rows their codes are gathered first, above it all are multiplied.
GATHER_BELOW = 0.5
#: Rows that tell what to expect: so many or such a share, from this number of rows on.
_SAMPLE = 512
_SAMPLE_SHARE = 0.04
SAMPLED_FROM = 4 * _SAMPLE


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
        self._count = count = len(asked.interest)
        highest = np.abs(searched.popularity).max(initial=0)
        self._asked, self.codes = asked_of(asked, highest, barred or nothing_barred(count))
        self._found = nothing_found(len(self._asked.scale), k)
        self._found.threshold[count:] = np.inf
        self._expected = np.full(count, -np.inf, np.float32)
        self._packed: Any = None

    def expect(self) -> None:
        """
        Judge by some of all rows what the best will reach, and pass over rows that do not; call it first, if at all.

        Of ten thousand rows a query then has some two hundred looked at twice instead of seven hundred. `fell_short`
        tells of whom too much was expected: their answer is not the true one.
        """
        rows = len(self._searched.order)
        if rows < SAMPLED_FROM or not self._k or not self._count:
            return
        sample = max(_SAMPLE, round(rows * _SAMPLE_SHARE))
        shown = np.arange(0, rows, rows // sample)
        likely = self._k * len(shown) / max(int(np.count_nonzero(self._searched.usable)), 1)
        # So many of the best that three deviations of chance seldom leave fewer than k rows above the last of them.
        rank = math.ceil(likely + 3 * math.sqrt(likely) + 4)
        if rank > self._found.low.shape[1]:
            return
        for taken, products in self._products(shown, len(shown)):
            expect(products, taken, rank, self._searched, self._asked, self._found)
        self._expected = self._found.threshold[: self._count].copy()

    def fell_short(self, top: Top) -> Ints:
        """Return the queries whose best rows did not reach what was expected."""
        if not self._k:
            return np.empty(0, np.int64)
        # Two steps are more than rounding moves.
        reached = (top.columns[:, -1] >= 0) & ((top.steps[:, -1] - 2) * SCORE_STEP >= self._expected)
        return np.flatnonzero(~reached & (self._expected > -np.inf))

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
        for taken, products in self._products(rows, count):
            collect(products, taken, self._searched, self._asked, self._found)

    def _products(self, rows: Ints | None, count: int) -> Iterator[tuple[Ints, npt.NDArray[np.int32]]]:
        """Yield rows (p,) and the products (p, lanes) of their codes, which stand until the next ones are made."""
        codes = self._searched.coded.codes
        lanes = len(self.codes)
        block = max(_BLOCK_PRODUCTS // lanes, 1)
        used = self._used_lanes()
        few = len(used) <= _FEW_QUERIES
        if self._packed is None and not few:
            self._packed = numkong.dots_pack(self.codes)
        products = (np.zeros if few else np.empty)((min(block, count), lanes), np.int32)
        for start in range(0, count, block):
            stop = min(start + block, count)
            taken = np.arange(start, stop) if rows is None else rows[start:stop]
            shown = codes[start:stop] if rows is None else codes[taken]
            part = products[: stop - start]
            if few:
                multiply(shown, self.codes, used, part)
            else:
                numkong.dots_packed(shown, self._packed, out=numkong.from_dlpack(part))
            yield taken, part

    def _used_lanes(self) -> Ints:
        """Return the lanes that are to be multiplied: none without a vector space."""
        if not self.codes.shape[1]:
            return np.empty(0, np.int64)
        return np.concatenate([np.arange(self._count), np.arange(len(self._found.threshold), len(self.codes))])

    def given_rows(self, candidates: Ints) -> None:
        """Score candidates (n, c) of each query, each but once; negative ones and rows out of use are passed over."""
        if self._k:
            take(candidates, self._searched, self._asked, self._found)

    def top(self) -> Top:
        """Return the best rows of each query, best first."""
        shape = self._count, self._k
        top = Top(np.full(shape, -1, np.int64), np.zeros(shape, np.int64))
        if self._k:
            settle(self._searched, self._asked, self._found)
            ranked(self._found, top)
        return top


def exact_top(asked: Queries, searched: Rows, k: int, barred: Barred | None = None) -> Top:
    """Return each query's k best usable rows, exactly; -1 fills up."""
    parts = []
    for start in range(0, len(asked.interest), _PASS_QUERIES):
        part = Queries(*(column[start : start + _PASS_QUERIES] for column in asked))
        mine = of_queries(barred, start, len(part.interest))
        scan = Scan(part, searched, k, mine)
        scan.expect()
        scan.all_rows()
        top = scan.top()
        if (short := scan.fell_short(top)).size:
            again = Scan(Queries(*(column[short] for column in part)), searched, k, of_few(mine, short))
            again.all_rows()
            top.columns[short], top.steps[short] = again.top()
        parts.append(top)
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


def of_few(barred: Barred | None, queries: Ints) -> Barred | None:
    """Return what is barred for some queries (n,), ascending."""
    if barred is None:
        return None
    starts = np.append(0, barred.ends)
    mine = [barred.columns[starts[query] : starts[query + 1]] for query in queries]
    return Barred(np.concatenate(mine), np.cumsum([len(columns) for columns in mine]))
