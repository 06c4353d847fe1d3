"""A checked model folder's network and tokenizer, on a device; nothing is downloaded and no code of the folder runs."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel
from transformers.utils import logging as transformers_logging

from models.artifact import TOKENIZER, ModelFolder
from models.errors import ModelError


def device_of(name: str) -> torch.device:
    """
    Return the device that `auto`, `cpu`, `cuda` or `cuda:N` means here.

    Raises
    ------
    ModelError
        When that GPU is not there.

    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda"):
        index = int(name.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            raise ModelError(f"the device {name} is not there: {torch.cuda.device_count()} GPUs are visible")
    return torch.device(name)


def load_tokenizer(folder: ModelFolder, max_tokens: int) -> Tokenizer:
    """
    Return the folder's tokenizer, which cuts at `max_tokens` and pads only what the model wants padded.

    Raises
    ------
    ModelError
        When it cannot be read, or does not know the token that texts are padded with.

    """
    try:
        tokenizer = Tokenizer.from_file(str(folder.path / TOKENIZER))
    except Exception as error:  # the Rust parser raises plain Exception
        raise ModelError(f"{folder.path / TOKENIZER} cannot be read: {first_line(error)}") from error
    # The file may ask for a fixed padding and a shorter limit of its own.
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=max_tokens)
    if (padding := folder.padding) is not None:
        pad = tokenizer.token_to_id(padding.token)
        if pad is None:
            raise ModelError(f"the tokenizer in {folder.path} does not know {padding.token!r}, with which it pads")
        side = "left" if padding.left else "right"
        tokenizer.enable_padding(direction=side, pad_id=pad, pad_token=padding.token, length=padding.length)
    return tokenizer


def load_model(folder: ModelFolder, dtype: torch.dtype, device: torch.device, tokenizer: Tokenizer) -> tuple[Any, int]:
    """
    Return (model, padding id).

    Raises
    ------
    ModelError
        When it cannot be loaded, weights are missing, or it knows fewer tokens than its tokenizer.

    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # what it would report is checked below
    local: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(folder.path, **local)
        # A decoder would keep the keys and values of every layer for tokens that nobody asks for.
        config.use_cache = False
        model, info = AutoModel.from_pretrained(
            folder.path,
            config=config,
            use_safetensors=True,
            # Stated, because transformers 5 takes the checkpoint's own precision otherwise. Attention is not: it is
            # torch's own where the architecture has that, and plain in MPNet and DeBERTa, which have not.
            dtype=dtype,
            output_loading_info=True,
            **local,
        )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ModelError(f"the model in {folder.path} cannot be loaded: {first_line(error)}") from error
    # transformers fills what a checkpoint lacks with random numbers. Only the pooler may be missing: it is not used.
    if missing := sorted(name for name in info["missing_keys"] if not name.startswith("pooler.")):
        raise ModelError(f"the weights in {folder.path} lack {len(missing)} tensors, {missing[0]} among them")
    texts = config.get_text_config()  # of a model for texts and images the part for texts
    if tokenizer.get_vocab_size() > texts.vocab_size:
        raise ModelError(
            f"the tokenizer in {folder.path} knows {tokenizer.get_vocab_size()} tokens, its model {texts.vocab_size}"
        )
    pad = getattr(texts, "pad_token_id", None)
    return model.eval().requires_grad_(requires_grad=False).to(device), pad if isinstance(pad, int) else 0


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, its name when it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
