"""Dense layers behind the pooling: sentence-transformers' arithmetic, part of the space, or refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.artifact import load_spec
from models.dense import _ACTIVATIONS
from models.encoder import Encoder
from models.errors import ModelError
from models.fingerprint import fingerprint
from models.modules import ACTIVATIONS
from tests.support.tiny_model import DIM, edit_json, make_tiny_model

TEXTS = ["a blue mug", "red cup of the gift film and drama, a comedy", "mug"]
KINDS = ("Transformer", "Pooling", "Dense", "Dense", "Normalize")


def dense_folder(folder: Path, kinds: tuple[str, ...] = KINDS) -> tuple[Path, list[torch.nn.Linear]]:
    """Write a tiny model with the layers of `kinds`: 16 -> 24 with tanh and a bias, 24 -> 8 without either."""
    make_tiny_model(folder)
    names = [f"{number}_{kind}" if number else "" for number, kind in enumerate(kinds)]
    listed = [
        {"type": f"sentence_transformers.models.{kind}", "path": name} for kind, name in zip(kinds, names, strict=True)
    ]
    (folder / "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    random = torch.Generator().manual_seed(3)
    layers: list[torch.nn.Linear] = []
    for name in names:
        if name.endswith("Dense"):
            first = not layers
            layer = torch.nn.Linear(DIM, 24) if first else torch.nn.Linear(24, 8, bias=False)
            with torch.no_grad():
                layer.weight.normal_(generator=random)
            edit_json(
                folder / name / "config.json",
                in_features=layer.in_features,
                out_features=layer.out_features,
                bias=first,
                activation_function=f"torch.nn.modules.{'activation.Tanh' if first else 'linear.Identity'}",
            )
            tensors = {f"linear.{key}": value.contiguous() for key, value in layer.state_dict().items()}
            save_file(tensors, folder / name / "model.safetensors")
            layers.append(layer)
    return folder, layers


def test_vectors_go_through_the_layers(tmp_path: Path) -> None:
    """Pooled, product and activation one after the other, unit at the end, as sentence-transformers computes it."""
    folder, (first, second) = dense_folder(tmp_path / "dense")
    plain = make_tiny_model(tmp_path / "plain")
    spec = load_spec(folder)
    assert (spec.dim, spec.full_dim, [layer.outputs for layer in spec.dense]) == (8, 8, [24, 8])
    encoder = Encoder(spec, "cpu", threads=1, precision="fp32")
    model = Encoder(load_spec(plain), "cpu", threads=1, precision="fp32")._network.model
    for text, vector in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        with torch.inference_mode():
            pooled = model(input_ids=torch.tensor(encoder.tokenize([text]))).last_hidden_state.mean(1)
            expected = torch.nn.functional.normalize(second(torch.tanh(first(pooled))))[0].numpy()
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    cut = Encoder(load_spec(folder, dim=4), "cpu", threads=1, precision="fp32").encode(TEXTS)
    kept = encoder.encode(TEXTS)[:, :4]
    np.testing.assert_allclose(cut, kept / np.linalg.norm(kept, axis=1, keepdims=True), atol=1e-5)


def test_the_layers_are_part_of_the_space(tmp_path: Path) -> None:
    """Other weights or another activation are another fingerprint."""
    folder, _ = dense_folder(tmp_path / "dense")
    names = {fingerprint(load_spec(make_tiny_model(tmp_path / "plain")), 32), fingerprint(load_spec(folder), 32)}
    edit_json(folder / "3_Dense" / "config.json", activation_function="torch.nn.modules.activation.Tanh")
    names.add(fingerprint(load_spec(folder), 32))
    save_file({"linear.weight": torch.ones(8, 24)}, folder / "3_Dense" / "model.safetensors")
    names.add(fingerprint(load_spec(folder), 32))
    assert len(names) == 4


def test_every_activation_that_is_allowed_is_known() -> None:
    """A folder that passes its check can be loaded."""
    assert set(_ACTIVATIONS) == ACTIVATIONS


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"in_features": 23}, "takes vectors of 23 elements, the layer before it gives 24"),
        ({"out_features": None}, "does not say out_features"),
        ({"out_features": True}, "does not say out_features"),
        ({"activation_function": "os.system"}, "the activation 'system'"),
        ({"module_input_name": "token_embeddings"}, "module_input_name 'token_embeddings'"),
    ],
)
def test_other_layers_are_refused(tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    """What would not be applied as trained gives wrong vectors quietly."""
    folder, _ = dense_folder(tmp_path / "dense")
    edit_json(folder / "3_Dense" / "config.json", **config)
    with pytest.raises(ModelError, match=reason):
        load_spec(folder)


def test_pickled_layers_are_refused(tmp_path: Path) -> None:
    """Old folders have `pytorch_model.bin` there."""
    folder, _ = dense_folder(tmp_path / "dense")
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights can run code"):
        load_spec(folder)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    """Also such as lack what the configuration promises."""
    folder, _ = dense_folder(tmp_path / "dense")
    save_file({"linear.weight": torch.ones(24, DIM)}, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(ModelError, match="its configuration says"):
        Encoder(load_spec(folder), "cpu", threads=1)
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ModelError, match="cannot be loaded"):
        Encoder(load_spec(folder), "cpu", threads=1)


@pytest.mark.parametrize(
    "kinds", [("Transformer", "Dense", "Pooling"), ("Transformer", "Pooling", "Normalize", "Dense")]
)
def test_another_order_is_refused(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    """Layers are applied in one order only."""
    folder, _ = dense_folder(tmp_path / "dense", kinds)
    with pytest.raises(ModelError, match="the order must be"):
        load_spec(folder)
