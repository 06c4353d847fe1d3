"""Dense layers behind the pooling, on a device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from models.errors import ModelError
from models.modules import DENSE_WEIGHTS, DenseLayer

#: torch is never asked for a name from a file.
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "GELU": torch.nn.functional.gelu,
    "Identity": lambda values: values,
    "ReLU": torch.relu,
    "SiLU": torch.nn.functional.silu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
}


def load_dense(layer: DenseLayer, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """
    Return what turns (n, inputs) float32 into (n, outputs) float32 on a device.

    Raises
    ------
    ModelError
        When the weights cannot be read or have another shape.

    """
    file = layer.path / DENSE_WEIGHTS
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be loaded: {error}") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wanted: dict[str, tuple[int, ...]] = {"linear.weight": (layer.outputs, layer.inputs)}
    if layer.bias:
        wanted["linear.bias"] = (layer.outputs,)
    if shapes != wanted:
        raise ModelError(f"{file} has the tensors {shapes}, its configuration says {wanted}")
    weight, bias = (
        weights[name].float().to(device) if name in weights else None for name in ("linear.weight", "linear.bias")
    )
    assert weight is not None
    activate = _ACTIVATIONS[layer.activation]
    return lambda values: activate(torch.nn.functional.linear(values, weight, bias))
