"""What may be listed now, and what the shop puts forward: the cards' stock and the rules of `item-rules` together."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.reranking import Promotions, nothing_promoted
from streams.wire.items import Item
from streams.wire.limits import MAX_EPOCH_MS
from streams.wire.rules import Rule

Flags = npt.NDArray[np.bool_]

#: Why an item that the shop lists is not offered, when no rule blocks it.
OUT_OF_STOCK: Final = "out_of_stock"


class Changes(NamedTuple):
    """
    What changed since the changes were taken last, by row.

    Attributes
    ----------
    closed
        Rows that may be listed no more.
    withheld
        Why rows are withheld, of those for which that is new or another reason.
    released
        Rows that are withheld no more.

    """

    closed: list[int]
    withheld: dict[int, str]
    released: list[int]


class _Ruled(NamedTuple):
    row: int
    rule: Rule


class Offer:
    """
    Which rows may be listed.

    An item is withheld when a rule blocks it, or when it is listed and out of stock. What is deleted is not offered
    either, but nobody withholds it.

    Attributes
    ----------
    listed, in_stock, open
        (capacity,) bool: has a card; its card says so; may be listed: has a card, is in stock and not blocked.
    revision
        Grows with each change of a rule, of stock, and when the time of a rule comes or goes.

    >>> from streams.wire.rules import Block
    >>> offer = Offer(4)
    >>> offer.tell_card(0, Item("a"))
    >>> offer.tell_rule(0, Rule("a", block=Block("recall")), now_ms=5)
    >>> offer.open.any(), offer.take_changes()
    (np.False_, Changes(closed=[], withheld={0: 'recall'}, released=[]))
    """

    def __init__(self, capacity: int) -> None:
        self.listed: Flags = np.zeros(capacity, np.bool_)
        self.in_stock: Flags = np.zeros(capacity, np.bool_)
        self.open: Flags = np.zeros(capacity, np.bool_)
        self.revision = 0
        self._rules: dict[str, _Ruled] = {}
        #: Reason of each row that a rule blocks now.
        self._blocked: dict[int, str] = {}
        #: When a part of a rule begins or ends next.
        self._next_ms = MAX_EPOCH_MS
        self._now_ms = 0
        self._told: dict[int, str] = {}
        #: Rows that changed, and whether they were open when the changes were taken last.
        self._touched: dict[int, bool] = {}
        self._promotions: tuple[int, Promotions] | None = None

    def tell_card(self, row: int, card: Item | None) -> None:
        """Take what a row's card says now; None when it has none any more."""
        self.listed[row] = card is not None
        self.in_stock[row] = card is not None and card.in_stock
        self._settle(row)

    def tell_rule(self, row: int, rule: Rule, now_ms: int) -> None:
        """Take the rules of an item, in place of those before."""
        self._rules[rule.item_id] = _Ruled(row, rule)
        self._apply(row, rule, now_ms)

    def drop_rule(self, item_id: str) -> None:
        """Take an item's rules back."""
        known = self._rules.pop(item_id, None)
        if known is not None:
            self._blocked.pop(known.row, None)
            self._promotions = None
            self._settle(known.row)
            self.revision += 1

    def pass_time(self, now_ms: int) -> None:
        """Let rules begin and end whose time has come."""
        if now_ms < self._next_ms:
            return
        self._next_ms = MAX_EPOCH_MS
        for known in self._rules.values():
            self._apply(known.row, known.rule, now_ms)

    def take_changes(self) -> Changes:
        """Return what changed since the last call."""
        touched, self._touched = self._touched, {}
        changes = Changes([], {}, [])
        for row, was_open in touched.items():
            if was_open and not self.open[row]:
                changes.closed.append(row)
            reason = self._reason(row)
            if reason == self._told.get(row, ""):
                continue
            if reason:
                self._told[row] = changes.withheld[row] = reason
            else:
                del self._told[row]
                changes.released.append(row)
        return changes

    def withheld(self) -> dict[int, str]:
        """Return why each row that is withheld is, as of the last changes taken."""
        return dict(self._told)

    def promotions(self, count: int) -> Promotions:
        """Return what is put forward of the first `count` rows; the item whose id comes first wins a slot."""
        made = self._promotions
        if made is None or (made[0] != count and len(made[1].boosts)):
            made = self._promotions = count, self._promote(count)
        return made[1]

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        more = capacity - len(self.open)
        self.listed, self.in_stock, self.open = (
            np.append(flags, np.zeros(more, np.bool_)) for flags in (self.listed, self.in_stock, self.open)
        )

    def _apply(self, row: int, rule: Rule, now_ms: int) -> None:
        """Let the parts of a rule hold that hold now, and note when that changes next."""
        self._now_ms = now_ms
        for part in (rule.block, rule.pin, rule.boost):
            if part is not None:
                coming = [bound for bound in (part.span.from_ms, part.span.until_ms) if bound > now_ms]
                self._next_ms = min(self._next_ms, *coming) if coming else self._next_ms
        if rule.block is not None and rule.block.span.holds(now_ms):
            self._blocked[row] = rule.block.reason
        else:
            self._blocked.pop(row, None)
        self._promotions = None
        self._settle(row)
        self.revision += 1

    def _settle(self, row: int) -> None:
        """Say whether a row is open, after something about it changed."""
        self._touched.setdefault(row, bool(self.open[row]))
        is_open = bool(self.listed[row] and self.in_stock[row]) and row not in self._blocked
        if is_open != self.open[row]:
            self.open[row] = is_open
            self.revision += 1
            self._promotions = None

    def _reason(self, row: int) -> str:
        """Return why a row is withheld; empty when it is not."""
        if row in self._blocked:
            return self._blocked[row]
        return OUT_OF_STOCK if self.listed[row] and not self.in_stock[row] else ""

    def _promote(self, count: int) -> Promotions:
        pins: dict[int, int] = {}
        boosts: dict[int, float] = {}
        for _, (row, rule) in sorted(self._rules.items()):
            if row >= count or not self.open[row]:
                continue
            if rule.pin is not None and rule.pin.span.holds(self._now_ms):
                pins.setdefault(rule.pin.slot - 1, row)
            if rule.boost is not None and rule.boost.span.holds(self._now_ms):
                boosts[row] = rule.boost.by
        if not (pins or boosts):
            return nothing_promoted()
        pinned = np.full(max(pins, default=-1) + 1, -1, np.int32)
        pinned[list(pins)] = list(pins.values())
        by = np.zeros(count if boosts else 0, np.float32)
        by[list(boosts)] = list(boosts.values())
        return Promotions(pinned, by)
