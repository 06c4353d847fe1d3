"""What may be listed: cards, stock and rules together, and when rules come and go."""

from __future__ import annotations

import numpy as np

from streams.catalogue.matrix import Catalogue
from streams.catalogue.records import Applied, ItemGone, ItemTold, RuleGone, RuleRefused, RuleTold, decode_rule_record
from streams.wire.items import Item
from streams.wire.rules import Block, Boost, Pin, Rule, Span

NOW_MS = 1_700_000_000_000


class Shop:
    """A catalogue of items a, b, c and so on, and a clock that the test moves."""

    def __init__(self, items: str = "abc") -> None:
        self.now_ms = NOW_MS
        self.catalogue = Catalogue(clock=lambda: self.now_ms / 1000)
        self.tell(*(ItemTold(Item(item_id), "items") for item_id in items))

    def tell(self, *records: ItemTold | ItemGone | RuleTold | RuleGone | RuleRefused) -> Applied:
        """Apply records."""
        return self.catalogue.apply(records)

    def rule(
        self, item_id: str, block: Block | None = None, pin: Pin | None = None, boost: Boost | None = None
    ) -> Applied:
        """Apply a rule."""
        return self.tell(RuleTold(Rule(item_id, block, pin, boost)))

    def offered(self) -> str:
        """Return what may be listed."""
        view = self.catalogue.view()
        return "".join(view.ids[row] for row in np.flatnonzero(view.offered).tolist())

    def promoted(self) -> tuple[list[str | None], dict[str, float]]:
        """Return the pinned item of each slot, and the boosts."""
        view = self.catalogue.view()
        pinned, boosts = view.promotions
        rows = np.flatnonzero(boosts).tolist()
        return [view.ids[row] if row >= 0 else None for row in pinned.tolist()], {
            view.ids[row]: float(boosts[row]) for row in rows
        }


def test_a_block_closes_and_its_tombstone_opens() -> None:
    """A blocked item is not offered and is told with its reason, until the rule is taken back."""
    shop = Shop()
    told = shop.rule("b", Block("recall"))
    assert ("ac", [1], {"b": "recall"}, {"b": "recall"}) == (
        shop.offered(), told.closed, told.withheld, shop.catalogue.withheld(),
    )  # fmt: skip
    told = shop.tell(RuleGone("b"))
    assert ("abc", [], ["b"], {}) == (shop.offered(), told.closed, told.released, shop.catalogue.withheld())


def test_stock_and_rule_both_have_to_open() -> None:
    """An item that is out of stock and blocked stays away until neither holds; the rule's reason is told first."""
    shop = Shop()
    gone = ItemTold(Item("b", in_stock=False), "items")
    assert {"b": "out_of_stock"} == shop.tell(gone).withheld
    assert {"b": "recall"} == shop.rule("b", Block("recall")).withheld
    assert Applied(cards=[Item("b")]) == shop.tell(ItemTold(Item("b"), "items"))
    assert "ac" == shop.offered()
    assert ["b"] == shop.tell(RuleGone("b")).released
    assert "abc" == shop.offered()


def test_a_deleted_item_closes_without_being_withheld() -> None:
    """A tombstone on `items` closes the row; there is nothing left that could be withheld."""
    shop = Shop()
    told = shop.tell(ItemGone("b", "items"))
    assert ([1], {}) == (told.closed, told.withheld)


def test_rules_keep_their_times() -> None:
    """A rule holds from its `from`, included, to its `until`, excluded; nothing has to be sent for that."""
    shop = Shop()
    shop.rule("b", Block("launch", Span(NOW_MS + 100, NOW_MS + 200)), Pin(1, Span(until_ms=NOW_MS + 100)))
    seen = []
    for after_ms in (0, 99, 100, 199, 200):
        shop.now_ms = NOW_MS + after_ms
        told = shop.catalogue.pass_time()
        seen.append((after_ms, shop.offered(), shop.promoted()[0], told.closed, told.released))
    assert seen == [
        (0, "abc", ["b"], [], []),
        (99, "abc", ["b"], [], []),
        (100, "ac", [], [1], []),
        (199, "ac", [], [], []),
        (200, "abc", [], [], ["b"]),
    ]


def test_revision_grows_with_what_may_be_listed_alone() -> None:
    """Lists tell by which rules and stock they were made; a new title is neither."""
    shop = Shop()
    offer, seen = shop.catalogue.offer, []
    for record in (
        ItemTold(Item("a", title="A"), "items"),
        ItemTold(Item("a", in_stock=False), "items"),
        RuleTold(Rule("b", boost=Boost(1))),
        RuleGone("b"),
        RuleGone("c"),
    ):
        before = offer.revision
        shop.tell(record)
        seen.append(offer.revision - before)
    assert seen == [0, 1, 1, 1, 0]


def test_the_first_id_that_may_be_listed_wins_a_slot() -> None:
    """Two items pinned to one slot: the one whose id comes first has it, while it may be listed."""
    shop = Shop("cab")
    for item_id in "cba":
        shop.rule(item_id, pin=Pin(2))
    assert [None, "a"] == shop.promoted()[0]
    shop.rule("a", Block(), Pin(2))
    assert [None, "b"] == shop.promoted()[0]


def test_boosts() -> None:
    """A boost counts while the item may be listed; rows of items met later get nothing."""
    shop = Shop()
    shop.rule("a", boost=Boost(0.5))
    shop.rule("b", Block(), boost=Boost(0.5))
    assert {"a": 0.5} == shop.promoted()[1]
    shop.tell(ItemTold(Item("d"), "items"))
    assert 4 == len(shop.catalogue.view().promotions.boosts)


def test_a_rule_may_come_before_its_item() -> None:
    """A rule of an item that nobody told of holds when the item comes."""
    shop = Shop("")
    shop.rule("a", Block("recall"))
    shop.tell(ItemTold(Item("a"), "items"), ItemTold(Item("b"), "items"))
    assert ("b", {"a": "recall"}) == (shop.offered(), shop.catalogue.withheld())


def test_a_bad_rule_leaves_the_one_before_in_force() -> None:
    """A record that cannot be used changes nothing and is handed on as a dead letter."""
    shop = Shop()
    shop.rule("b", Block("recall"))
    refused = decode_rule_record("item-rules", 3, 7, NOW_MS, b"b", b"{}")
    assert isinstance(refused, RuleRefused)
    told = shop.tell(refused)
    assert ("ac", [(3, 7, "missing_field", b"{}")]) == (
        shop.offered(),
        [(letter.partition, letter.offset, letter.reason, letter.value) for letter in told.refused],
    )
