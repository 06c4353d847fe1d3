"""Which model is taken: the folder of the setting, an id in the local cache, or the default."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from models.artifact import load_spec
from streams.encoding.source import DEFAULT_MODEL, load_encoder, model_folder, model_name
from streams.errors import ModelError
from streams.settings import Settings
from tests.support.tiny_model import make_tiny_model


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    """`model_path` names the folder; its name names the model."""
    path = make_tiny_model(tmp_path / "tiny")
    settings = Settings(model_path=path, device="cpu", encoder_threads=1, encoder_batch_tokens=99)
    assert model_folder(settings) == load_spec(path)
    assert model_name(settings) == "tiny"
    assert load_encoder(settings).batch_tokens == 99


def test_the_required_hash_is_checked(tmp_path: Path) -> None:
    """`model_sha256` refuses other weights with the operator's exit code."""
    path = make_tiny_model(tmp_path / "tiny")
    with pytest.raises(ModelError, match="expected 00"):
        model_folder(Settings(model_path=path, model_sha256="0" * 64))


def test_an_id_is_found_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`org/name` means the cached snapshot of that model, without a network."""
    revision = "1" * 40
    entry = tmp_path / "hub" / "models--org--tiny"
    snapshot = make_tiny_model(entry / "snapshots" / revision)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text(revision, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = model_folder(Settings(model_path=Path("org/tiny")))
    assert dataclasses.replace(found, path=snapshot) == load_spec(snapshot)


def test_an_id_that_is_not_cached_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded for a setting."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="org/absent does not exist"):
        model_folder(Settings(model_path=Path("org/absent")))


def test_no_setting_is_the_default_model() -> None:
    """Its name stands on lists."""
    assert model_name(Settings()) == DEFAULT_MODEL
