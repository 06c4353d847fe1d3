"""Item vectors of an evaluation: cards enter, a vector space leaves; each text is encoded once and kept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from models.fingerprint import fingerprint
from models.text import CONTENT_HASH_BYTES, content_hash
from streams.encoding.backlog import text_of
from streams.encoding.source import load_encoder, model_folder, model_name
from streams.evaluation.progress import Bars, Progress
from streams.settings import Settings
from streams.wire.items import Item
from streams.wire.models import Served
from streams.wire.vectors import encode_vector, vector_key

#: Texts encoded between two steps of the progress bar.
_BATCH = 256


class EncodedItems(NamedTuple):
    """
    The vectors of n items in one space.

    Attributes
    ----------
    served
        Name and dimension of the space.
    ids, hashes
        Of each item: its id, and the hash of its text.
    vectors
        (n, d) float32, unit rows.

    """

    served: Served
    ids: list[str]
    hashes: list[bytes]
    vectors: npt.NDArray[np.float32]

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the records (key, value) that the encoder role would write on `item-vectors`."""
        for item_id, digest, vector in zip(self.ids, self.hashes, self.vectors, strict=True):
            yield vector_key(self.served.fingerprint, item_id), encode_vector(digest, vector)

    def matrix(self, items: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the vectors (m, d) of items by id, zeros where there is none."""
        place_of = {item_id: place for place, item_id in enumerate(self.ids)}
        places = np.array([place_of.get(item_id, -1) for item_id in items], np.int64)
        found = np.zeros((len(items), self.served.dim), np.float32)
        found[places >= 0] = self.vectors[places[places >= 0]]
        return found


def encode_items(settings: Settings, items: Sequence[Item], bars: Bars) -> EncodedItems:
    """
    Return the vectors of the items that say anything, by the configured encoder.

    Vectors are kept under `cache_dir` by the encoder's fingerprint and the hash of the text, as the encoder role tells
    which items it has to encode.

    Parameters
    ----------
    bars
        Told how many texts are going to be encoded, where any are; gives what is told as they are.

    Raises
    ------
    ModelError, DependencyError
        As `streams.encoding.source.load_encoder`.

    """
    texts = [(item.item_id, text) for item in items if (text := text_of(item))]
    hashes = [content_hash(text) for _, text in texts]
    folder = model_folder(settings)
    name = fingerprint(folder, settings.encoder_max_tokens)
    path = settings.cache_dir / f"vectors-{name}.safetensors"
    known = _read(path)
    missing = {digest: text for digest, (_, text) in zip(hashes, texts, strict=True) if digest not in known}
    if missing:
        known |= _encode(settings, missing, bars("item texts encoded", len(missing)))
        _write(path, known)
    vectors = np.array([known[digest] for digest in hashes], np.float32).reshape(-1, folder.dim)
    return EncodedItems(Served(name, folder.dim, model_name(settings)), [i for i, _ in texts], hashes, vectors)


def _encode(settings: Settings, texts: dict[bytes, str], progress: Progress) -> dict[bytes, npt.NDArray[np.float32]]:
    encoder = load_encoder(settings)
    # Texts of like length together, as the encoder role batches them.
    waiting = sorted(texts, key=lambda digest: len(texts[digest]))
    found: dict[bytes, npt.NDArray[np.float32]] = {}
    for start in range(0, len(waiting), _BATCH):
        digests = waiting[start : start + _BATCH]
        found.update(zip(digests, encoder.encode([texts[digest] for digest in digests]), strict=True))
        progress(len(digests))
    return found


def _read(path: Path) -> dict[bytes, npt.NDArray[np.float32]]:
    """Return the kept vectors by hash; none where the file is not there or cannot be read, which costs encoding."""
    try:
        kept = load_file(path)
        return dict(zip(map(bytes, kept["hashes"]), kept["vectors"], strict=True))
    except (FileNotFoundError, SafetensorError, KeyError, ValueError):
        return {}


def _write(path: Path, vectors: dict[bytes, npt.NDArray[np.float32]]) -> None:
    """Keep vectors; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hashes = np.frombuffer(b"".join(vectors), np.uint8).reshape(-1, CONTENT_HASH_BYTES)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".vectors-") as folder:
        scratch = Path(folder) / path.name
        save_file({"hashes": hashes, "vectors": np.stack(list(vectors.values()))}, scratch)
        scratch.replace(path)
