"""Item vectors of an evaluation: cards enter, a vector space leaves; each text and image is encoded once and kept."""

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
from models.text import CONTENT_HASH_BYTES
from streams.encoding.backlog import Job
from streams.encoding.direct import encode_jobs, jobs_of
from streams.encoding.images import Images
from streams.encoding.source import image_weight_of, images_of, load_encoder, model_folder, model_name
from streams.evaluation.progress import Bars, Progress
from streams.settings import Settings
from streams.wire.items import Item
from streams.wire.models import Served
from streams.wire.vectors import encode_vector, vector_key

#: Items encoded between two steps of the progress bar.
_BATCH = 256

_Vectors = dict[bytes, npt.NDArray[np.float32]]


class EncodedItems(NamedTuple):
    """
    The vectors of n items in one space.

    Attributes
    ----------
    served
        Name and dimension of the space.
    ids, hashes
        Of each item: its id, and the hash of its text and image.
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
    Return the vectors of the items that say anything, by the configured encoder: those that its role would publish.

    Vectors are kept under `cache_dir` by the encoder's fingerprint and the hash of text and image, as the encoder role
    tells which items it has to encode. An item that gives no vector is left out, and the log says so.

    Parameters
    ----------
    bars
        Told how many items are going to be encoded, where any are; gives what is told as they are.

    Raises
    ------
    ConfigurationError, ModelError, DependencyError
        As `streams.encoding.source.load_encoder` and `images_of`.

    """
    folder = model_folder(settings)
    images = images_of(settings, folder)
    name = fingerprint(folder, settings.encoder_max_tokens, image_weight_of(settings, folder))
    path = settings.cache_dir / f"vectors-{name}.safetensors"
    known = _read(path)
    try:
        jobs = [(job.item_id, job.content_hash, job) for job in jobs_of(items, images)]
        missing = {digest: job for _, digest, job in jobs if digest not in known}
        if missing:
            progress = bars("items encoded", len(missing))
            found = _encode(settings, list(missing.values()), images, progress)
            known |= found
            _write(path, known)
            # An image that could not be read this time counts as none, and is looked for again the next time.
            known |= {digest: found[job.content_hash] for digest, job in missing.items() if job.content_hash in found}
    finally:
        if images is not None:
            images.close()
    with_vector = [(item_id, digest) for item_id, digest, _ in jobs if digest in known]
    hashes = [digest for _, digest in with_vector]
    vectors = np.array([known[digest] for digest in hashes], np.float32).reshape(-1, folder.dim)
    return EncodedItems(Served(name, folder.dim, model_name(settings)), [i for i, _ in with_vector], hashes, vectors)


def _encode(settings: Settings, jobs: list[Job], images: Images | None, progress: Progress) -> _Vectors:
    """Return the vectors of jobs by the hash that each has in the end."""
    encoder = load_encoder(settings)
    # Texts of like length together, as the encoder role batches them.
    jobs.sort(key=lambda job: len(job.text))
    found: _Vectors = {}
    for start in range(0, len(jobs), _BATCH):
        batch = jobs[start : start + _BATCH]
        ready, encoded = encode_jobs(encoder, images, batch)
        found |= {
            job.content_hash: encoded.vectors[place] for place, job in enumerate(ready) if place not in encoded.faults
        }
        for job in batch:
            job.pixels = None  # some hundred KB each
        progress(len(batch))
    return found


def _read(path: Path) -> _Vectors:
    """Return the kept vectors by hash; none where the file is not there or cannot be read, which costs encoding."""
    try:
        kept = load_file(path)
        return dict(zip(map(bytes, kept["hashes"]), kept["vectors"], strict=True))
    except (FileNotFoundError, SafetensorError, KeyError, ValueError):
        return {}


def _write(path: Path, vectors: _Vectors) -> None:
    """Keep vectors; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hashes = np.frombuffer(b"".join(vectors), np.uint8).reshape(-1, CONTENT_HASH_BYTES)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".vectors-") as folder:
        scratch = Path(folder) / path.name
        save_file({"hashes": hashes, "vectors": np.stack(list(vectors.values()))}, scratch)
        scratch.replace(path)
