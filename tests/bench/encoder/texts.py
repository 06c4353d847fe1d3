"""The items to encode: all films of MovieLens-100K, and products of The Complete Journey with different texts."""

from __future__ import annotations

import random
from pathlib import Path

from msgspec.structs import replace

from streams.datasets import journey
from streams.datasets.movielens import movielens
from streams.encoding.backlog import text_of
from streams.wire.items import Item

_PRODUCT_TEXTS = 2_000


def films(cache_dir: Path) -> list[Item]:
    """Return titles with years and genres."""
    return movielens(cache_dir).items


def products(cache_dir: Path) -> list[Item]:
    """Return a seeded sample of `all_products`."""
    return random.Random(5).sample(all_products(cache_dir), _PRODUCT_TEXTS)


def numbered(cache_dir: Path, count: int) -> list[Item]:
    """Return so many products, each with a title of its own, so that no two are one text."""
    some = all_products(cache_dir)
    items = ((number, some[number % len(some)]) for number in range(count))
    return [replace(item, item_id=f"i{number}", title=f"{item.title} {number}") for number, item in items]


def all_products(cache_dir: Path) -> list[Item]:
    """Return the products, one for each text."""
    return list({text_of(item): item for item in journey.products(cache_dir)}.values())
