"""What sentence-transformers does behind the transformer: pooling, and dense layers, as `modules.json` lists them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.errors import ModelError
from models.files import read_json, sha256_of

#: `projection` is the model's own: CLIP projects the state of the closing token, SigLIP that of the last position.
Pooling = Literal["mean", "cls", "lasttoken", "projection"]

_LIST = "modules.json"
_POOLING = "1_Pooling"
_CONFIG = "config.json"
DENSE_WEIGHTS = "model.safetensors"

#: What may stand in the list, and in which order; any other layer would change the vectors silently.
_ORDER = ("Transformer", "Pooling", "Dense", "Normalize")

#: By the last part of the name in a layer's configuration.
ACTIVATIONS = frozenset({"GELU", "Identity", "ReLU", "SiLU", "Sigmoid", "Tanh"})


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """
    One linear layer and its activation.

    Attributes
    ----------
    inputs, outputs
        Elements of a vector before and after.
    activation
        One of `ACTIVATIONS`, what follows the product.
    sha256
        Hash of its weights, lower-case hex.

    """

    path: Path
    inputs: int
    outputs: int
    bias: bool
    activation: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Layers:
    """
    What stands behind the transformer.

    Attributes
    ----------
    pools_prompt
        Whether the pooling takes in the prompt's tokens.
    dim
        Elements of a vector at the end.

    """

    pooling: Pooling
    pools_prompt: bool
    dense: tuple[DenseLayer, ...]
    dim: int


def read_modules(path: Path, dim: int, *, projects: bool = False) -> Layers:
    """
    Read a model folder's layers; without a list there is a mean pooling.

    Parameters
    ----------
    dim
        Elements of a token's state.
    projects
        Whether the model gives finished vectors, of that size, by itself.

    Raises
    ------
    ModelError
        When a layer is not known, not complete, or does not fit the one before it.

    """
    if projects:
        return Layers("projection", pools_prompt=True, dense=(), dim=dim)
    listed = _listed(path)
    pooling = next((folder for kind, folder in listed if kind == "Pooling"), _POOLING)
    mode, pools_prompt = _read_pooling(_inside(path, pooling) / _CONFIG)
    dense: list[DenseLayer] = []
    for kind, folder in listed:
        if kind == "Dense":
            dense.append(_read_dense(_inside(path, folder), dim))
            dim = dense[-1].outputs
    return Layers(mode, pools_prompt, tuple(dense), dim)


def _listed(path: Path) -> list[tuple[str, str]]:
    """Return (kind, folder) of the layers, in their order."""
    file = path / _LIST
    if not file.exists():
        return []
    listed = [(str(one.get("type", "")).rpartition(".")[2], str(one.get("path", ""))) for one in read_json(file)]
    kinds = [kind for kind, _ in listed]
    if unknown := sorted(set(kinds) - set(_ORDER)):
        raise ModelError(f"{file} has a layer {unknown[0]!r}, which Freshet does not apply")
    if kinds != sorted(kinds, key=_ORDER.index) or kinds.count("Pooling") > 1:
        raise ModelError(f"{file} lists {', '.join(kinds)}; the order must be {', '.join(_ORDER)}")
    return listed


def _inside(path: Path, folder: str) -> Path:
    found = path / folder
    if not found.resolve().is_relative_to(path.resolve()):
        raise ModelError(f"{path / _LIST} points out of its folder")
    return found


def _read_pooling(file: Path) -> tuple[Pooling, bool]:
    """Return the pooling, and whether it takes in the prompt's tokens."""
    if not file.exists():
        return "mean", True
    config = read_json(file)
    # New releases of sentence-transformers write one name, old ones a flag per mode.
    named = config.get("pooling_mode")
    if isinstance(named, str):
        modes = {named}
    else:
        flags = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "lasttoken"}
        modes = {
            flags.get(name.removeprefix("pooling_mode_"), name)
            for name, on in config.items()
            if name.startswith("pooling_mode_") and on is True
        }
    # The first and the last token are what they are with a prompt or without.
    if modes == {"mean"}:
        return "mean", config.get("include_prompt") is not False
    if modes == {"cls"}:
        return "cls", True
    if modes == {"lasttoken"}:
        return "lasttoken", True
    raise ModelError(f"{file} asks for pooling {sorted(modes)}; supported are mean, cls and lasttoken, one at a time")


def _read_dense(path: Path, dim: int) -> DenseLayer:
    file = path / _CONFIG
    config = read_json(file)
    inputs, outputs = (_size(config.get(name), name, file) for name in ("in_features", "out_features"))
    if inputs != dim:
        raise ModelError(f"{file} takes vectors of {inputs} elements, the layer before it gives {dim}")
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise ModelError(f"{file} asks for the activation {activation!r}; known are {', '.join(sorted(ACTIVATIONS))}")
    # New releases let a layer read or write something else than the vector.
    for name in ("module_input_name", "module_output_name"):
        if config.get(name) not in {None, "sentence_embedding"}:
            raise ModelError(f"{file} has {name} {config[name]!r}, which Freshet does not apply")
    if not (path / DENSE_WEIGHTS).is_file():
        raise ModelError(f"{path} has no {DENSE_WEIGHTS}; pickled weights can run code, convert them")
    return DenseLayer(
        path, inputs, outputs, config.get("bias", True) is True, activation, sha256_of(path / DENSE_WEIGHTS)
    )


def _size(given: Any, name: str, file: Path) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= 65_535:
        raise ModelError(f"{file} does not say {name}")
    return given
