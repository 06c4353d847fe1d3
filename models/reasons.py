"""
Why an item stands in a list: the exact additive contribution of each event to the personal part of the score.

The personal part is `q . v` with `q` a weighted sum of event item vectors, so it falls apart into one number for each
event: taking the event away, with the lengths of the interest vectors held, lowers it by just that number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def event_weights(short: npt.ArrayLike, long: npt.ArrayLike, short_scale: float, long_scale: float) -> Floats:
    """
    Return the factor (e,) with which each event's item vector stands in the query.

    Parameters
    ----------
    short, long
        (e,) decayed weights with which the events stand in the short and in the long vector.
    short_scale, long_scale
        Ranking weight divided by the vector's length; 0 for a vector of length 0.

    """
    return short_scale * np.asarray(short, np.float64) + long_scale * np.asarray(long, np.float64)


def contributions(weights: Floats, event_vectors: Floats, item_vectors: Floats) -> Floats:
    """
    Return (k, e): what each of e events adds to the personal score of each of k items.

    >>> contributions(np.array([2.0]), np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])).tolist()
    [[1.0]]
    """
    result: Floats = (item_vectors @ event_vectors.T) * weights
    return result


def shares(contributed: Floats, personal: Floats) -> Floats:
    """
    Return (k, e): each event's share, 0..1, of all that speaks for the item; 0 where it speaks against it.

    Parameters
    ----------
    contributed
        (k, e) from `contributions`.
    personal
        (k,) the whole personal score; what the events do not explain comes from older history and counts as one
        more contribution.

    """
    positive = np.maximum(contributed, 0.0)
    older = np.maximum(personal - contributed.sum(axis=1), 0.0)
    whole = (positive.sum(axis=1) + older)[:, None]
    share: Floats = np.divide(positive, whole, out=np.zeros_like(positive), where=whole > 0)
    return share


def strongest(share: Floats, count: int) -> npt.NDArray[np.int64]:
    """
    Return (k, min(count, e)): the columns of the largest shares, largest first, ties to the first column.

    >>> strongest(np.array([[0.1, 0.5, 0.4]]), 2).tolist()
    [[1, 2]]
    """
    order: npt.NDArray[np.int64] = np.argsort(-share, axis=1, kind="stable")
    return order[:, :count]
