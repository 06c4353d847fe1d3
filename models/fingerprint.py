"""The name of a vector space: what decides which vector an item gets, in 16 hex characters."""

from __future__ import annotations

import hashlib

from models.artifact import ModelFolder, preprocessing_of
from models.text import TEMPLATE_VERSION

#: fp32, fp16 and bf16 agree to a cosine of 0.999 and better, so their vectors are one space: a GPU and a CPU worker
#: may share a fingerprint. An integer precision would not and gets a class of its own.
PRECISION_CLASS = "float"


def fingerprint(folder: ModelFolder, max_tokens: int, image_weight: float = 0.0) -> str:
    """
    Name the vector space: blake2b-64, in hex, of everything that decides what vector a given item gets.

    Two workers with equal fingerprints may write each other's vectors; a changed model, tokenizer, prompt, pooling,
    size, limit, text template or way of taking images in is another space with its own keys.

    Raises
    ------
    ModelError
        When images count and the folder does not say how they are prepared.

    """
    parts = {
        "weights": folder.weights_sha256,
        "tokenizer": folder.tokenizer_sha256,
        "pooling": folder.pooling,
        "normalise": "l2",
        "max_tokens": min(max_tokens, folder.max_tokens),
        "template": TEMPLATE_VERSION,
        "dim": folder.dim,
        "precision": PRECISION_CLASS,
    }
    # Named only where they change a vector, so that other models keep the names they had.
    if folder.prompt:
        parts["prompt"] = repr(folder.prompt)
    if folder.lower_case:
        parts["case"] = "lower"
    if folder.padding is not None:
        parts["padding"] = repr(folder.padding)
    for number, layer in enumerate(folder.dense):
        parts[f"dense{number}"] = f"{layer.sha256} {layer.activation}"
    if image_weight:
        parts["images"] = image_weight
        parts["preprocessing"] = repr(preprocessing_of(folder))
    text = "\n".join(f"{name}={value}" for name, value in parts.items())
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
