"""
Items on lists that should not stand there, counted from the log and from what the shop says of items.

Nothing here is shared with what makes the lists: what an item is and who met it is looked up anew. Guardrails that are
given up where a full list cannot do without (caps and the price band) count only where the catalogue could have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.histories import Histories
from models.interactions import Int32, Int64
from models.reranking import RerankParameters
from streams.evaluation.logs import EvaluationLog
from streams.interests.state import NEGATIVE_TYPES
from streams.settings import EVENT_TYPES

#: A price is far from a user's when it is more than 3.3 times of it, or less than that part: logarithms 1.2 apart.
_FAR: Final = 1.2
#: Newest events of a user that prices are taken of, as many as a worker keeps of everyone.
_NEWEST: Final = 64
#: Lists looked at together.
_AT_ONCE: Final = 8_192


class Violations(NamedTuple):
    """
    Items that break a rule, by rule.

    Attributes
    ----------
    seen
        Met before by the user of a list that should hold no such items.
    twice
        On a list already.
    withheld
        Out of stock.
    brand, category, price
        More of a brand or category than `brand_cap` and `category_cap` allow, or more prices far from the user's than
        `price_share` allows, though other items would have filled the list.

    """

    seen: int = 0
    twice: int = 0
    withheld: int = 0
    brand: int = 0
    category: int = 0
    price: int = 0

    def plus(self, other: Violations) -> Violations:
        """Return both together."""
        return Violations(*(one + more for one, more in zip(self, other, strict=True)))


class _Shop(NamedTuple):
    """What is known of items, each (items,): float64 prices with 0 for unknown ones, other codes -1."""

    in_stock: npt.NDArray[np.bool_]
    brands: Int32
    categories: Int32
    prices: npt.NDArray[np.float64]


class Guardrails:
    """
    The rules that hold for the lists of a log.

    Parameters
    ----------
    weights
        Of event types: what weighs anything and is no dislike speaks for an item, and for its price.

    """

    def __init__(self, log: EvaluationLog, weights: Mapping[str, float]) -> None:
        self._log = log.interactions
        self._histories = Histories(log.interactions)
        self._shop = _shop(log)
        speaks = [weights.get(name, 0.0) > 0 and kind not in NEGATIVE_TYPES for kind, name in enumerate(EVENT_TYPES)]
        self._speaks = np.array(speaks, np.bool_)
        order = np.argsort(self._log.users, kind="stable")
        ends = np.cumsum(np.bincount(self._log.users, minlength=len(log.users)))
        self._positions = np.split(order, ends[:-1])

    def broken(
        self, lists: Int32, users: Int32, before: Int64, parameters: Sequence[RerankParameters], *, exclude_seen: bool
    ) -> Violations:
        """
        Return what lists (n, size) break, -1 behind the last.

        Parameters
        ----------
        users, before
            (n,) whose list it is, and the position in the log before which everything had happened.
        parameters
            The caps that held for each.
        exclude_seen
            Whether no item that its user met may stand on a list.

        """
        found = Violations()
        for start in range(0, len(lists), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            found = found.plus(self._plain(lists[part], users[part], before[part], exclude_seen=exclude_seen))
        for row, limits in enumerate(parameters):
            if limits.brand_cap or limits.category_cap or limits.price_share:
                met = self._positions[users[row]]
                met = met[met < before[row]]
                found = found.plus(self._capped(lists[row], met, limits, exclude_seen=exclude_seen))
        return found

    def _plain(self, lists: Int32, users: Int32, before: Int64, *, exclude_seen: bool) -> Violations:
        stands = lists >= 0
        width = lists.shape[1]
        seen = 0
        if exclude_seen:
            met = self._histories.met(np.repeat(users, width), np.repeat(before, width), lists.ravel())
            seen = int((met & stands.ravel()).sum())
        ordered = np.sort(lists, axis=1)
        twice = int(((np.diff(ordered, axis=1) == 0) & (ordered[:, 1:] >= 0)).sum())
        return Violations(seen=seen, twice=twice, withheld=int((stands & ~self._shop.in_stock[lists]).sum()))

    def _capped(self, made: Int32, met: Int64, limits: RerankParameters, *, exclude_seen: bool) -> Violations:
        listed = made[made >= 0]
        may = self._shop.in_stock.copy()
        if exclude_seen:
            may[self._log.items[met]] = False
        offered = np.flatnonzero(may)
        brands, categories = self._shop.brands, self._shop.categories
        return Violations(
            brand=_too_many(brands[listed], brands[offered], limits.brand_cap),
            category=_too_many(categories[listed], categories[offered], limits.category_cap),
            price=self._too_far(listed, offered, met, limits.price_share, len(made)) if limits.price_share else 0,
        )

    def _too_far(self, listed: Int32, offered: Int64, met: Int64, share: float, size: int) -> int:
        """Return how many items too many have a price far from the median of the user's newest events."""
        newest = met[-_NEWEST:]
        paid = self._shop.prices[self._log.items[newest[self._speaks[self._log.kinds[newest]]]]]
        paid = np.sort(paid[paid > 0])
        if not len(paid):
            return 0
        middle = math.log(paid[(len(paid) - 1) // 2])
        prices = self._shop.prices
        far = (prices > 0) & (np.abs(np.log(np.where(prices > 0, prices, 1.0)) - middle) > _FAR)
        allowed = math.floor(round(size * (1 - share), 9))
        forced = max(len(listed) - int((~far[offered]).sum()) - allowed, 0)
        return max(int(far[listed].sum()) - allowed - forced, 0)


def _too_many(listed: Int32, offered: Int32, cap: float) -> int:
    """
    Return how many of the listed codes exceed a cap without need; -1 is no code.

    >>> (
    ...     _too_many(np.array([4, 4, 4, 5]), np.array([4, 4, 4, 5, 6, 6]), 2),
    ...     _too_many(np.array([4, 4]), np.array([4, 4]), 1),
    ... )
    (1, 0)
    """
    if not cap:
        return 0
    most = math.ceil(cap)
    _, counts = np.unique(listed[listed >= 0], return_counts=True)
    _, could = np.unique(offered[offered >= 0], return_counts=True)
    room = int(np.minimum(could, most).sum() + (offered < 0).sum())
    return max(int(np.maximum(counts - most, 0).sum()) - max(len(listed) - room, 0), 0)


def _shop(log: EvaluationLog) -> _Shop:
    card_of = {card.item_id: card for card in log.cards}
    cards = [card_of.get(item) for item in log.items]
    return _Shop(
        np.array([card is None or card.in_stock for card in cards], np.bool_),
        _codes([card.brand if card else "" for card in cards]),
        _codes([card.category if card else "" for card in cards]),
        np.array([(card.price if card else None) or 0.0 for card in cards]),
    )


def _codes(names: Sequence[str]) -> Int32:
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) if name else -1 for name in names], np.int32)
