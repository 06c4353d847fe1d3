"""Files of a learned scorer: what is written is read, an old file is still read, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from models.errors import ModelError
from models.scorer import Scorer
from models.scorer_file import FORMAT, MAX_HIDDEN, TrainedScorer, load_scorer, save_scorer
from tests.support.scoring import random_scorer

GOLDEN = Path(__file__).parent / "golden" / "scorer-1.safetensors"
FINGERPRINT = "00000000feedbeef"
METADATA = {"format": FORMAT, "fingerprint": FINGERPRINT, "dim": "4", "hidden": "2", "made": "{}"}


def tensors(**changes: Any) -> dict[str, Any]:
    """Return sound weights but for some."""
    sound = {name: np.ones(shape, np.float32) for name, shape in (("inner", (2, 4)), ("outer", 2), ("bias", 1))}
    return {name: value for name, value in {**sound, **changes}.items() if value is not None}


def weights(scorer: Scorer) -> list[Any]:
    """Return the weights as plain numbers."""
    return [scorer.inner.tolist(), scorer.outer.tolist(), scorer.bias]


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 99))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, hidden: int, dim: int, seed: int) -> None:
    """Weights, fingerprint and how it was made come back as they were."""
    path = tmp_path_factory.getbasetemp() / "scorer.safetensors"
    written = TrainedScorer(random_scorer(hidden, dim, seed), FINGERPRINT, {"log": "shop", "auc": 0.75})
    save_scorer(written, path)
    read = load_scorer(path)
    assert (written.fingerprint, written.made, hidden, dim) == (read.fingerprint, read.made, read.hidden, read.dim)
    assert weights(written.scorer) == weights(read.scorer)


def test_a_file_of_before_is_still_read() -> None:
    """What this format's first file says."""
    read = load_scorer(GOLDEN)
    assert (FINGERPRINT, {"log": "shop", "seed": 1}) == (read.fingerprint, read.made)
    assert [[[1.0, -2.0, 0.5, 4.0], [0.0, 3.0, -1.0, 0.25]], [0.5, -1.5], 0.125] == weights(read.scorer)


@pytest.mark.parametrize(
    ("content", "metadata", "reason"),
    [
        (tensors(), {"format": "freshet-interaction-network-2"}, "no scorer of the format"),
        (tensors(), {"fingerprint": "../../../etc/pass"}, "does not name the encoder"),
        (tensors(), {"dim": "-4"}, "does not say how large"),
        (tensors(), {"hidden": "2.0"}, "does not say how large"),
        (tensors(), {"hidden": str(MAX_HIDDEN + 1)}, "are the most"),
        (tensors(), {"dim": "99999"}, "are the most"),
        (tensors(), {"dim": "5"}, "does not hold the weights of 2 units over 5"),
        (tensors(), {"made": "[]"}, "does not say in an object"),
        (tensors(), {"made": "{"}, "is no scorer"),
        (tensors(), {"made": "[" * 100_000}, "is no scorer"),
        (tensors(bias=None), {}, "does not hold the weights"),
        (tensors(more=np.ones(1, np.float32)), {}, "does not hold the weights"),
        (tensors(outer=np.ones(2)), {}, "does not hold the weights"),
        (tensors(outer=np.ones((2, 1), np.float32)), {}, "does not hold the weights"),
        (tensors(inner=np.full((2, 4), np.nan, np.float32)), {}, "not finite"),
        (tensors(outer=np.array([1, np.inf], np.float32)), {}, "not finite"),
        (tensors(bias=np.array([-np.inf], np.float32)), {}, "not finite"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, content: dict[str, Any], metadata: dict[str, str], reason: str
) -> None:
    """The sentence names the file and what is wrong with it."""
    path = tmp_path / "scorer.safetensors"
    save_file(content, path, {**METADATA, **metadata})
    with pytest.raises(ModelError, match=reason) as raised:
        load_scorer(path)
    assert str(path) in str(raised.value)


def test_a_file_without_metadata_is_refused(tmp_path: Path) -> None:
    """Weights alone do not say what they belong to."""
    path = tmp_path / "scorer.safetensors"
    save_file(tensors(), path)
    with pytest.raises(ModelError, match="no scorer of the format"):
        load_scorer(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """As are folders, which cannot be read either."""
    for path in (tmp_path / "nothing.safetensors", tmp_path):
        with pytest.raises(ModelError, match=str(path)):
            load_scorer(path)


def test_a_large_file_is_not_opened(tmp_path: Path) -> None:
    """More than any scorer takes is refused by its size alone."""
    path = tmp_path / "scorer.safetensors"
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ModelError, match="more than any scorer"):
        load_scorer(path)


def test_damaged_files_are_refused_or_read_whole(tmp_path: Path) -> None:
    """Cut anywhere it is refused; with any byte changed it is refused, or finite weights of the same shape."""
    path = tmp_path / "scorer.safetensors"
    sound = save(tensors(), METADATA)
    for at in range(len(sound)):
        path.write_bytes(sound[:at])
        with pytest.raises(ModelError):
            load_scorer(path)
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :])
        try:
            read = load_scorer(path)
        except ModelError:
            continue
        assert (2, 4) == read.scorer.inner.shape
        assert np.isfinite(read.scorer.inner).all()


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Bytes that are no scorer, a pickle among them, are a ModelError and nothing else."""
    path = tmp_path_factory.getbasetemp() / "bytes.safetensors"
    path.write_bytes(len(content).to_bytes(8, "little") + json.dumps({"a": content.hex()}).encode() + content)
    with pytest.raises(ModelError):
        load_scorer(path)
    path.write_bytes(content)
    with pytest.raises(ModelError):
        load_scorer(path)
