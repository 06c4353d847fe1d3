"""Item attributes follow the cards."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from streams.catalogue.attributes import ItemAttributes, price_mark
from streams.catalogue.matrix import Catalogue
from streams.wire.items import Item


def test_attributes_are_those_of_the_card() -> None:
    """Brand, category and price are the shop's last word; before it a sighting's, after its tombstone nobody's."""
    catalogue = Catalogue(2)
    catalogue.upsert_item(Item("a", brand="B", category="C", price=2.0))
    catalogue.upsert_item(Item("b", brand="B", category="D", price=3.0), "item-sightings")
    catalogue.upsert_item(Item("c", category="C"))
    brands, categories, prices, marks = catalogue.attributes.first(3)
    assert ([0, 0, -1], [0, 1, 0], [2.0, 3.0, 0.0]) == (brands.tolist(), categories.tolist(), prices.tolist())

    catalogue.upsert_item(Item("b", brand="E", price=4.0))
    catalogue.delete_item("a")
    assert (0, price_mark(4.0)) == (marks[0], marks[1])
    assert ([-1, 1, -1], [-1, -1, 0], [0.0, 4.0, 0.0]) == (brands.tolist(), categories.tolist(), prices.tolist())


def test_columns_grow_with_the_catalogue() -> None:
    """Rows beyond all cards know nothing, and growing keeps what is known."""
    attributes = ItemAttributes()
    attributes.set(5_000, Item("a", brand="B", price=1.5))
    brands, _, prices, _ = attributes.first(6_000)
    assert (6_000, 0, 1.5) == (len(brands), brands[5_000], prices[5_000])
    assert 1 == int((brands >= 0).sum())
    assert attributes.first(9_000).prices[5_000] == np.float32(1.5)


def test_neighbouring_prices_have_different_marks() -> None:
    """No two neighbouring prices of a shop share a mark; no price has mark 0; a card's mark is that of its price."""
    marks = [price_mark(cents / 100) for cents in range(2_000)]
    assert all(one != other for one, other in pairwise(marks))
    assert [0] == [cents for cents, mark in enumerate(marks) if mark == 0]
    attributes = ItemAttributes()
    attributes.set(0, Item("a", price=19.99))
    assert [marks[1_999]] == attributes.first(1).price_marks.tolist()
