"""Vectors of a real shop's products: the texts of The Complete Journey, encoded once and kept."""

from __future__ import annotations

import numpy as np

from models.encoder import Encoder
from models.ranking import Floats
from streams.encoding.backlog import text_of
from streams.encoding.source import model_folder
from streams.settings import Settings
from tests.bench.encoder.texts import all_products

_BATCH = 1_024


def vectors(settings: Settings) -> Floats:
    """Return the unit vectors (n, d) of the texts by the configured encoder; kept in the cache."""
    folder = model_folder(settings)
    path = settings.cache_dir / f"bench-products-{folder.weights_sha256[:12]}.npy"
    if path.exists():
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    products = all_products(settings.cache_dir)
    texts = sorted((text for product in products if (text := text_of(product))), key=len)
    print(f"encoding {len(texts)} product texts, a minute or two", flush=True)
    encoder = Encoder(folder)
    parts = [encoder.encode(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
    found = np.concatenate(parts)
    np.save(path, found, allow_pickle=False)
    return found
