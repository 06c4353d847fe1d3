"""A model folder is read as data, or refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.artifact import load_spec
from models.errors import ModelError
from streams.datasets.wheels import sha256_of
from tests.support.tiny_model import DIM, MAX_TOKENS, edit_json, make_tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good model folder."""
    return make_tiny_model(tmp_path / "tiny")


def test_a_good_folder_says_what_is_in_it(folder: Path) -> None:
    """Architecture, limit, pooling, size and hashes come from the files; without a pooling file the mean is taken."""
    spec = load_spec(folder)
    assert (spec.architecture, spec.max_tokens, spec.pooling, spec.dim) == ("bert", MAX_TOKENS, "mean", DIM)
    assert spec.weights_sha256 == sha256_of(folder / "model.safetensors")
    assert spec.tokenizer_sha256 == sha256_of(folder / "tokenizer.json")


def test_the_smaller_token_limit_counts(folder: Path) -> None:
    """sentence-transformers' limit shortens the model's."""
    edit_json(folder / "sentence_bert_config.json", max_seq_length=20)
    assert load_spec(folder).max_tokens == 20


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_pooling_comes_from_its_file(folder: Path, config: dict[str, Any], pooling: str) -> None:
    """Flags of old releases and the name of new ones are both read."""
    edit_json(folder / "1_Pooling" / "config.json", **config)
    assert load_spec(folder).pooling == pooling


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode": "weightedmean"},
        {},
    ],
)
def test_other_pooling_is_refused(folder: Path, config: dict[str, Any]) -> None:
    """A pooling that is not applied exactly as trained would give wrong vectors quietly."""
    edit_json(folder / "1_Pooling" / "config.json", **config)
    with pytest.raises(ModelError, match="asks for pooling"):
        load_spec(folder)


def test_a_further_layer_is_refused(folder: Path) -> None:
    """A layer that is not known is part of the model and is not applied here."""
    layers = [{"type": "sentence_transformers.models.Transformer", "path": ""}, {"type": "x.LSTM", "path": "2_LSTM"}]
    (folder / "modules.json").write_text(json.dumps(layers), encoding="utf-8")
    with pytest.raises(ModelError, match="'LSTM'"):
        load_spec(folder)


def test_altered_weights_are_refused(folder: Path) -> None:
    """One changed byte is another model."""
    expected = load_spec(folder).weights_sha256
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(ModelError, match=f"expected {expected}"):
        load_spec(folder, expected)
    assert load_spec(folder).weights_sha256 != expected


def test_a_manifest_is_held(folder: Path) -> None:
    """`SHA256SUMS` in the folder, as sha256sum writes it, and a given manifest are both checked."""
    (folder / "SHA256SUMS").write_text(f"{sha256_of(folder / 'config.json')}  config.json\n", encoding="utf-8")
    load_spec(folder)
    edit_json(folder / "config.json", hidden_dropout_prob=0.5)
    with pytest.raises(ModelError, match=r"config\.json has SHA-256"):
        load_spec(folder)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json has SHA-256"):
        load_spec(folder, manifest={"tokenizer.json": "0" * 64})
    with pytest.raises(ModelError, match="lacks"):
        load_spec(folder, manifest={"../tiny/../outside.json": "0" * 64})


@pytest.mark.parametrize(
    "config",
    [
        {"auto_map": {"AutoModel": "evil.Model"}},
        {"_attn_implementation_internal": "someone/kernel"},
        {"_attn_implementation": "someone/kernel"},
        {"attn_implementation": "someone/kernel"},
        {"trust_remote_code": True},
        {"quantization_config": {"quant_method": "custom"}},
        {"text_config": {"auto_map": {}}},
        {"parts": [{"_experts_implementation_internal": "x/y"}]},
    ],
)
def test_keys_that_run_or_fetch_code_are_refused(folder: Path, config: dict[str, Any]) -> None:
    """Whatever depth such a key stands at, the folder is refused before transformers sees it."""
    edit_json(folder / "config.json", **config)
    with pytest.raises(ModelError, match="run or fetch code"):
        load_spec(folder)


@pytest.mark.parametrize("architecture", ["t5", "my_model", None, 3])
def test_other_architectures_are_refused(folder: Path, architecture: object) -> None:
    """Only encoders that transformers implements itself are loaded."""
    edit_json(folder / "config.json", model_type=architecture)
    with pytest.raises(ModelError, match="is not supported"):
        load_spec(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    """A folder with only pickled weights cannot be used: reading them can run code."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        load_spec(folder)


@pytest.mark.parametrize(
    ("missing", "extra", "message"),
    [
        ("model.safetensors", "model.safetensors.index.json", "split over several files"),
        ("model.safetensors", None, "model.safetensors missing"),
        ("tokenizer.json", None, "fast tokenizer"),
        ("config.json", None, "config.json missing"),
        (None, "adapter_config.json", "adapter"),
    ],
)
def test_incomplete_folders_are_refused(folder: Path, missing: str | None, extra: str | None, message: str) -> None:
    """The sentence says what to do about it."""
    if missing:
        (folder / missing).unlink()
    if extra:
        (folder / extra).write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=message):
        load_spec(folder)


def test_a_missing_folder_is_a_sentence(tmp_path: Path) -> None:
    """A wrong path is told as such."""
    with pytest.raises(ModelError, match="does not exist"):
        load_spec(tmp_path / "nowhere")


def test_damaged_json_is_a_sentence(folder: Path) -> None:
    """A config.json that is not JSON does not end in a parser's traceback."""
    (folder / "config.json").write_text("{" * 10_000, encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        load_spec(folder)


def test_the_document_prompt_is_the_folders(folder: Path) -> None:
    """Of its prompts the one for documents, else its default one; what is set goes before, the empty text too."""
    file = folder / "config_sentence_transformers.json"
    assert load_spec(folder).prompt == ""
    edit_json(file, prompts={"query": "q: ", "sts": "s: "}, default_prompt_name=None)
    assert load_spec(folder).prompt == ""
    edit_json(file, default_prompt_name="sts")
    assert load_spec(folder).prompt == "s: "
    edit_json(file, prompts={"query": "q: ", "passage": "p: ", "sts": "s: "})
    assert (load_spec(folder).prompt, load_spec(folder, prompt="").prompt) == ("p: ", "")
    edit_json(file, prompts={"document": 3})
    with pytest.raises(ModelError, match=r"the prompt 'document' in .* is not a text"):
        load_spec(folder)


def test_a_prompt_outside_the_pooling_is_refused(folder: Path) -> None:
    """The mean without the prompt's tokens is another vector; without a prompt there is nothing to leave out."""
    edit_json(folder / "1_Pooling" / "config.json", pooling_mode="mean", include_prompt=False)
    assert load_spec(folder).pooling == "mean"
    with pytest.raises(ModelError, match="leaves its prompt out of the pooling"):
        load_spec(folder, prompt="passage: ")


def test_no_more_elements_are_kept_than_there_are(folder: Path) -> None:
    """`dim` cuts; nothing can be added."""
    assert (load_spec(folder, dim=4).dim, load_spec(folder, dim=4).full_dim) == (4, DIM)
    with pytest.raises(ModelError, match=f"have {DIM} elements, of which {DIM + 1} cannot be kept"):
        load_spec(folder, dim=DIM + 1)
