"""
What likeness to items already chosen takes from a candidate: MMR and fast greedy DPP, over a window of last choices.

MMR: Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking", 1998. DPP: Chen, Zhang and Zhou, "Fast Greedy
MAP Inference for Determinantal Point Process", 2018, arXiv 1709.05135, with the kernel's quality kept apart: the greedy
step of `(1 - w) sum s_i + w log det S` looks for the largest `(1 - w) s_i + w log d_i^2`, `d_i^2` being what of the
item lies outside the span of the chosen ones.

A term only falls while more is chosen. So an old one bounds it from above, and only candidates that lead by their bound
are looked at again: the choice is that of the plain greedy algorithm.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled, compiled_loosely

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: What is asked of the chosen: nothing, maximal marginal relevance, a determinantal point process.
OFF: Final = 0
MMR: Final = 1
DPP: Final = 2
#: Likenesses are rounded to this, so that the last bits of a sum in float32 decide nothing.
LIKENESS_STEP: Final = 1e-5
_STEPS: Final = round(1 / LIKENESS_STEP)
#: Less than this outside the span of the chosen is rounding; from there on relevance alone decides.
LEAST_RESIDUAL: Final = 1e-4


class Repulsion(NamedTuple):
    """
    What is known of m candidates while up to k are chosen, scratch.

    Attributes
    ----------
    terms
        (m,) float64, what is added to a candidate's value: as of its `seen`, and never less than it is now.
    seen
        (m,) int64, how many of the chosen ones the term knows.
    known
        (m,) int64, of how many of the chosen ones the likeness is known.
    residuals
        (m,) float64, `d^2` of the DPP.
    likeness
        (m, k) float64, scalar products with the chosen ones.
    factors
        (m, k) float64, the DPP's `c`: a row of the Cholesky factor.

    """

    terms: Doubles
    seen: Ints
    known: Ints
    residuals: Doubles
    likeness: Doubles
    factors: Doubles


def no_repulsion(pool: int, size: int) -> Repulsion:
    """Return scratch for pools and choices of up to so many items."""
    terms, residuals = np.zeros((2, pool))
    seen, known = np.zeros((2, pool), np.int64)
    likeness, factors = np.zeros((2, pool, max(size, 1)))
    return Repulsion(terms, seen, known, residuals, likeness, factors)


@compiled
def begin(repulsion: Repulsion, count: int) -> None:
    """Forget what is known of the first `count` candidates."""
    for candidate in range(count):
        repulsion.terms[candidate] = 0.0
        repulsion.seen[candidate] = 0
        repulsion.known[candidate] = 0
        repulsion.residuals[candidate] = 1.0


@compiled
def slide(method: int, repulsion: Repulsion, count: int, chosen: Ints, first: int, last: int) -> None:
    """
    Let the window begin at choice `first`: terms may have risen, so they are bounded anew.

    Parameters
    ----------
    chosen
        (k,) the candidates chosen, `last` of them.

    """
    for candidate in range(count):
        repulsion.terms[candidate] = 0.0
        repulsion.seen[candidate] = first
        repulsion.residuals[candidate] = 1.0
    if method == DPP:
        for place in range(first, last):
            _extend(repulsion, chosen, first, chosen[place], place)


@compiled
def look(
    method: int, repulsion: Repulsion, rows: npt.NDArray[np.int32], vectors: Floats, chosen: Ints, first: int,
    last: int, candidate: int,
) -> None:  # fmt: skip
    """
    Bring a candidate's term up to date with the choices from `first` to before `last`.

    Parameters
    ----------
    rows
        (m,) rows of the candidates.
    vectors
        (items, d) unit vectors, or zeros: an item without one is like no other.

    """
    for place in range(repulsion.known[candidate], last):
        product = likeness(vectors[rows[candidate]], vectors[rows[chosen[place]]])
        repulsion.likeness[candidate, place] = np.rint(np.float64(product) * _STEPS) / _STEPS
    repulsion.known[candidate] = last
    if method == MMR:
        for place in range(repulsion.seen[candidate], last):
            # An item unlike all others earns nothing: terms must not rise.
            repulsion.terms[candidate] = min(repulsion.terms[candidate], -repulsion.likeness[candidate, place])
        repulsion.seen[candidate] = last
    else:
        _extend(repulsion, chosen, first, candidate, last)


@compiled
def _extend(repulsion: Repulsion, chosen: Ints, first: int, candidate: int, last: int) -> None:
    """Add to a candidate's row of the Cholesky factor the choices it does not know."""
    factors, residual = repulsion.factors, repulsion.residuals[candidate]
    for place in range(repulsion.seen[candidate], last):
        other = chosen[place]
        left = repulsion.likeness[candidate, place]
        for before in range(first, place):
            left -= factors[other, before] * factors[candidate, before]
        outside = repulsion.residuals[other]
        factor = left / math.sqrt(outside) if outside > LEAST_RESIDUAL else 0.0
        factors[candidate, place] = factor
        residual -= factor * factor
    repulsion.seen[candidate] = last
    repulsion.residuals[candidate] = residual
    repulsion.terms[candidate] = math.log(max(residual, LEAST_RESIDUAL))


@compiled_loosely
def likeness(one: Floats, other: Floats) -> np.float32:
    """Return the scalar product of two vectors, summed in float32."""
    total = np.float32(0)
    for axis in range(len(one)):
        total += one[axis] * other[axis]
    return total
