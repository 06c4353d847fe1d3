"""Cards of items: what the shop tells stands over sightings; the card that counts leaves."""

from __future__ import annotations

from streams.catalogue.records import ItemSource
from streams.wire.items import Item


class Cards:
    """
    The card of each item.

    >>> cards = Cards()
    >>> cards.tell(Item("a", title="seen"), "item-sightings")
    >>> cards.tell(Item("a", title="told"), "items")
    >>> cards.of("a").title
    'told'
    >>> cards.withdraw("a", "items")
    >>> cards.of("a") is None
    True
    """

    def __init__(self) -> None:
        #: None for what the shop deleted: its word too, no sighting brings the item back.
        self._told: dict[str, Item | None] = {}
        self._seen: dict[str, Item] = {}

    def of(self, item_id: str) -> Item | None:
        """Return the item as the shop, or while it says nothing a sighting, last told it; None when gone."""
        if item_id in self._told:
            return self._told[item_id]
        return self._seen.get(item_id)

    def tell(self, item: Item, source: ItemSource) -> None:
        """Take a snapshot."""
        if source == "items":
            self._told[item.item_id] = item
        else:
            self._seen[item.item_id] = item

    def withdraw(self, item_id: str, source: ItemSource) -> None:
        """Take a tombstone."""
        if source == "items":
            self._told[item_id] = None
        else:
            self._seen.pop(item_id, None)
