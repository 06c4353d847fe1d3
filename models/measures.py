"""
What lists are worth: measures of ranked lists against what really came next, over all items (never a sample of them).

Lists are (n, size) int32, best first, -1 behind the last. Right answers are ragged: `targets` (t,) int32 of all
questions, those of one together and distinct, and `ends` (n,) int64 behind the last target of each; every question has
at least one. What is measured of each question comes as (n,) float32, so that means, intervals and slices can be taken.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from models.interactions import Int32, Int64

#: Lengths at which lists are cut.
CUTS: Final = (5, 10, 20, 100)

#: Share of the history's own categories mixed into a list's, so that a category the list lacks costs a finite amount.
_CALIBRATION_MIX = 0.01

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def accuracy(lists: Int32, targets: Int32, ends: Int64, candidates: Int64) -> dict[str, Floats]:
    """
    Return HR, NDCG, MRR, recall, precision and F1 at 5, 10, 20 and 100, and AUC, of each question: `hr@10`, ..., `auc`.

    HR is 1 where a target is among the first K; recall, the share of targets that are; precision, the share of K that
    are targets; MRR, 1 / rank of the first. NDCG has gains 1 / log2(rank + 1) and the best possible order as its unit.

    AUC is how often a target stands above an item that is none. An item that is not on the list stands below all that
    are, and level with all others that are not: such pairs count one half.

    Parameters
    ----------
    lists, targets, ends
        As the module describes them.
    candidates
        (n,) int64: how many items could have been on each list.

    >>> measured = accuracy(np.array([[7, 3, 5]], np.int32), np.array([3], np.int32), np.array([1]), np.array([5]))
    >>> [round(float(measured[name][0]), 3) for name in ("hr@5", "ndcg@10", "mrr@20", "precision@5", "f1@5", "auc")]
    [1.0, 0.631, 0.5, 0.2, 0.333, 0.75]
    """
    ranks = ranks_of(lists, targets, ends)
    counts = np.diff(ends, prepend=0)
    owners = np.repeat(np.arange(len(ends)), counts)
    listed = ranks >= 0
    gains = np.where(listed, 1 / np.log2(np.maximum(ranks, 0) + 2), 0.0)
    most = int(counts.max(initial=0))
    ideal = np.concatenate(([0.0], np.cumsum(1 / np.log2(np.arange(max(most, 1)) + 2))))
    first = np.full(len(ends), np.inf)
    np.minimum.at(first, owners[listed], ranks[listed] + 1.0)
    measured: dict[str, Floats] = {}
    for cut in CUTS:
        within = listed & (ranks < cut)
        hits = np.bincount(owners, within, len(ends))
        measured[f"hr@{cut}"] = (hits > 0).astype(np.float32)
        gained = np.bincount(owners, np.where(within, gains, 0.0), len(ends))
        measured[f"ndcg@{cut}"] = (gained / ideal[np.minimum(counts, cut)]).astype(np.float32)
        measured[f"mrr@{cut}"] = np.where(first <= cut, 1 / first, 0.0).astype(np.float32)
        measured[f"recall@{cut}"] = (hits / counts).astype(np.float32)
        measured[f"precision@{cut}"] = (hits / cut).astype(np.float32)
        # The harmonic mean of hits / cut and hits / counts, also where both are 0.
        measured[f"f1@{cut}"] = (2 * hits / (cut + counts)).astype(np.float32)
    measured["auc"] = _auc(lists, ranks, owners, counts, candidates)
    return measured


def ranks_of(lists: Int32, targets: Int32, ends: Int64) -> Int32:
    """
    Return where each target stands on its question's list, 0 the first: (t,) int32, -1 where it does not.

    >>> ranks_of(np.array([[7, 3], [1, -1]], np.int32), np.array([3, 7, 4], np.int32), np.array([2, 3])).tolist()
    [1, 0, -1]
    """
    ranks = np.full(len(targets), -1, np.int32)
    _find(np.ascontiguousarray(lists), targets, ends, ranks)
    return ranks


@compiled
def _find(lists: Int32, targets: Int32, ends: Int64, ranks: Int32) -> None:
    begin = 0
    for question in range(len(ends)):
        for target in range(begin, ends[question]):
            for rank in range(lists.shape[1]):
                if lists[question, rank] == targets[target]:
                    ranks[target] = rank
                    break
        begin = ends[question]


def _auc(lists: Int32, ranks: Int32, owners: npt.NDArray[np.intp], counts: Int64, candidates: Int64) -> Floats:
    listed = ranks >= 0
    others = candidates - counts
    hits = np.bincount(owners, listed, len(counts))
    others_listed = (lists >= 0).sum(axis=1) - hits
    # Of the targets of one question in the order of rank, each has as many targets above it as stand before it.
    order = np.lexsort((ranks, owners, ~listed))
    above = np.zeros(len(ranks), np.int64)
    sorted_owners = owners[order]
    above[order] = np.arange(len(ranks)) - np.searchsorted(sorted_owners[: listed.sum()], sorted_owners, side="left")
    below = np.where(
        listed, others[owners] - (ranks - above), (others[owners] - others_listed[owners]) / 2
    ) / np.maximum(others[owners], 1)
    mean = np.bincount(owners, below, len(counts)) / counts
    return np.where(others > 0, mean, 0.5).astype(np.float32)


def part(targets: Int32, ends: Int64, chosen: Bools) -> tuple[Int64, Int32, Int64]:
    """
    Return the questions (m,) that have any of the chosen targets, and these targets with their ends.

    >>> asked, targets, ends = part(np.array([7, 8, 9], np.int32), np.array([2, 3]), np.array([False, True, False]))
    >>> asked.tolist(), targets.tolist(), ends.tolist()
    ([0], [8], [1])
    """
    owners = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    counts = np.bincount(owners[chosen], minlength=len(ends))
    asked = np.flatnonzero(counts)
    return asked, targets[chosen], np.cumsum(counts[asked])


def distinct(targets: Int32, ends: Int64) -> tuple[Int32, Int64]:
    """
    Return the targets without those that came before in the same question.

    >>> [column.tolist() for column in distinct(np.array([4, 4, 1, 4], np.int32), np.array([3, 4]))]
    [[4, 1, 4], [2, 3]]
    """
    owners = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    pairs = owners * (int(targets.max(initial=0)) + 1) + targets
    kept = np.sort(np.unique(pairs, return_index=True)[1])
    return targets[kept], np.cumsum(np.bincount(owners[kept], minlength=len(ends)))


def exposure(lists: Int32, items: int) -> Int64:
    """Return on how many lists each item stands, (items,) int64."""
    return np.bincount(lists[lists >= 0], minlength=items)


def coverage(lists: Int32, items: int) -> float:
    """
    Return the share of all items that stand on any list.

    >>> coverage(np.array([[0, 1], [0, -1]], np.int32), 4)
    0.5
    """
    return float((exposure(lists, items) > 0).mean())


def gini(shown: Int64) -> float:
    """
    Return how unevenly exposure is spread over items: 0 when all are shown alike, near 1 when one is shown alone.

    >>> gini(np.array([5, 5, 5, 5])), gini(np.array([0, 0, 0, 5]))
    (0.0, 0.75)
    """
    ordered = np.sort(shown).astype(np.float64)
    total = ordered.sum()
    if total == 0:
        return 0.0
    count = len(ordered)
    return float(2 * (np.arange(1, count + 1) @ ordered) / (count * total) - (count + 1) / count)


def novelty(lists: Int32, popularity: Int64) -> Floats:
    """
    Return the mean surprise of the items of each list in bits: -log2 of an item's share of all interactions.

    Every item counts one interaction more than it had, so that one never met has a finite surprise.

    >>> novelty(np.array([[0, 1], [0, -1]], np.int32), np.array([2, 0])).round(1).tolist()
    [1.2000000476837158, 0.4000000059604645]
    """
    share = (popularity + 1) / (popularity.sum() + len(popularity))
    return _mean_of_listed(lists, -np.log2(share))


def _mean_of_listed(lists: Int32, values: Doubles) -> Floats:
    listed = lists >= 0
    sums = np.where(listed, values[np.maximum(lists, 0)], 0.0).sum(axis=1)
    return np.asarray(sums / np.maximum(listed.sum(axis=1), 1), np.float32)


def spread_of_vectors(lists: Int32, vectors: Floats) -> Floats:
    """
    Return the mean of 1 - cosine over all pairs of each list (intra-list distance).

    Items without a vector are left out; a list with fewer than two others has 0.

    Parameters
    ----------
    lists
        (n, size) int32.
    vectors
        (items, d) float32 of length 1, zeros for an item without one.

    >>> spread_of_vectors(np.array([[0, 1], [0, 2]], np.int32), np.array([[1, 0], [0, 1], [1, 0]], np.float32)).tolist()
    [1.0, 0.0]
    """
    known = np.asarray(vectors.any(axis=1), bool)
    spread = np.zeros(len(lists), np.float32)
    for row, items in enumerate(lists):
        chosen = items[items >= 0]
        chosen = chosen[known[chosen]]
        count = len(chosen)
        if count > 1:
            # The squared length of a sum of unit vectors is all their products, n of them with themselves.
            total = vectors[chosen].sum(axis=0, dtype=np.float64)
            spread[row] = 1 - (total @ total - count) / (count * (count - 1))
    return spread


def spread_of_categories(lists: Int32, categories: Int32) -> Floats:
    """
    Return the share of pairs of each list that are of different categories.

    Items without a category (-1) are left out; a list with fewer than two others has 0.

    >>> spread_of_categories(np.array([[0, 1, 2]], np.int32), np.array([7, 7, 3], np.int32)).round(3).tolist()
    [0.6669999957084656]
    """
    spread = np.zeros(len(lists), np.float32)
    for row, items in enumerate(lists):
        found = categories[items[items >= 0]]
        found = found[found >= 0]
        count = len(found)
        if count > 1:
            together = np.unique(found, return_counts=True)[1]
            spread[row] = 1 - (together @ together - count) / (count * (count - 1))
    return spread


def miscalibration(lists: Int32, histories: Int32, ends: Int64, categories: Int32) -> Floats:
    """
    Return how far the categories of each list are from those of its user's history, KL divergence in nats.

    KL(p || q~), q~ = .99 q + .01 p, with p the shares of categories in the history and q those in the list (Steck:
    "Calibrated Recommendations", RecSys 2018). 0 where either has no item with a category.

    Parameters
    ----------
    lists
        (n, size) int32.
    histories, ends
        Ragged: (h,) int32 items of all histories, repeats counted; (n,) int64 where each ends.
    categories
        (items,) int32; -1 for an item without one.

    >>> categories = np.array([0, 0, 1], np.int32)
    >>> lists, histories = np.array([[0, 1], [0, 2]], np.int32), np.array([1, 2, 0, 2], np.int32)
    >>> miscalibration(lists, histories, np.array([2, 4]), categories).round(2).tolist()
    [1.9600000381469727, 0.0]
    """
    divergence = np.zeros(len(lists), np.float32)
    count = int(categories.max(initial=-1)) + 1
    begin = 0
    for row, end in enumerate(ends):
        wanted = _shares(categories[histories[begin:end]], count)
        shown = _shares(categories[lists[row][lists[row] >= 0]], count)
        begin = end
        if wanted is not None and shown is not None:
            mixed = (1 - _CALIBRATION_MIX) * shown + _CALIBRATION_MIX * wanted
            here = wanted > 0
            divergence[row] = wanted[here] @ np.log(wanted[here] / mixed[here])
    return divergence


def _shares(categories: Int32, count: int) -> Doubles | None:
    found = categories[categories >= 0]
    return np.bincount(found, minlength=count) / len(found) if len(found) else None


def rbo(first: Int32, second: Int32, persistence: float = 0.9) -> Floats:
    """
    Return the extrapolated rank-biased overlap of two lists each, (n,) float32: 1 when they are the same.

    (X_k / k) p^k + ((1 - p) / p) sum over depths d = 1..k of (X_d / d) p^d, with X_d the items that both have among
    their first d (Webber, Moffat, Zobel: "A similarity measure for indefinite rankings", TOIS 2010). Of lists of
    different lengths the shorter says how deep both are read; with an empty one it is 0, two empty ones are the same.

    Parameters
    ----------
    first, second
        (n, size) int32, distinct items, -1 behind the last.
    persistence
        p in (0, 1); at .9 the first ten ranks have 86 % of the weight.

    >>> rbo(np.array([[1, 2, 3]], np.int32), np.array([[1, 3, 2]], np.int32)).round(4).tolist()
    [0.9549999833106995]
    """
    similar = np.zeros(len(first), np.float32)
    _rbo(np.ascontiguousarray(first), np.ascontiguousarray(second), persistence, similar)
    return similar


@compiled
def _rbo(first: Int32, second: Int32, persistence: float, similar: Floats) -> None:
    for row in range(first.shape[0]):
        both, power, total, depth = 0, 1.0, 0.0, 0
        for rank in range(min(first.shape[1], second.shape[1])):
            if first[row, rank] < 0 or second[row, rank] < 0:
                break
            depth = rank + 1
            power *= persistence
            for above in range(depth):
                both += first[row, rank] == second[row, above]
                both += above < rank and second[row, rank] == first[row, above]
            total += both / depth * power
        if depth > 0:
            similar[row] = both / depth * power + (1 - persistence) / persistence * total
        elif _empty(first, row) and _empty(second, row):
            similar[row] = 1.0


@compiled
def _empty(lists: Int32, row: int) -> bool:
    return lists.shape[1] == 0 or bool(lists[row, 0] < 0)
