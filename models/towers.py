"""What the configuration of a model with a tower for texts and one for images says, and what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from models.errors import ModelError
from models.files import read_json

_TOKENIZER_CONFIG = "tokenizer_config.json"


class _Defaults(NamedTuple):
    """What transformers takes where a configuration says nothing."""

    dim: int
    max_tokens: int
    image_size: int
    processor: str


_KNOWN: Mapping[str, _Defaults] = MappingProxyType(
    {
        "clip": _Defaults(dim=512, max_tokens=77, image_size=224, processor="CLIPImageProcessor"),
        "siglip": _Defaults(dim=768, max_tokens=64, image_size=224, processor="SiglipImageProcessor"),
    }
)
TAKE_IMAGES = frozenset(_KNOWN)

#: Tokenizers that pad on the left where their file names no side; others pad on the right.
_PAD_LEFT = frozenset({"GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer"})


@dataclass(frozen=True, slots=True)
class Padding:
    """
    To what every text is padded, of a model that was trained so and attends to the padding.

    Attributes
    ----------
    token
        As the tokenizer writes it.
    length
        Tokens of every text.
    left
        Whether the padding stands before the text.

    """

    token: str
    length: int
    left: bool


@dataclass(frozen=True, slots=True)
class Towers:
    """
    Both towers of a model.

    Attributes
    ----------
    dim
        Elements of a vector, of a text or an image.
    max_tokens
        Longest text, special tokens included.
    image_size
        Height and width of an image.
    processor
        transformers' class that prepares images where their file names none.
    padding
        None of a model whose texts may have any length.
    lower_case
        Whether texts are written in lower case first, whatever the folder says.

    """

    dim: int
    max_tokens: int
    image_size: int
    processor: str
    padding: Padding | None
    lower_case: bool


def read_towers(config: dict[str, Any], path: Path) -> Towers | None:
    """
    Read the towers of a folder's configuration; None of an architecture that takes no images.

    SigLIP (arXiv 2303.15343) was trained on texts in lower case, all padded to one length without a mask, and takes
    the state of the last token, which mostly is padding.

    Raises
    ------
    ModelError
        When a size is not known, the towers differ in theirs, or it is not said what texts are padded with.

    """
    architecture = config["model_type"]
    if architecture not in _KNOWN:
        return None
    defaults = _KNOWN[architecture]
    texts, images = (_part(config, name) for name in ("text_config", "vision_config"))
    max_tokens = _size(texts.get("max_position_embeddings", defaults.max_tokens), "the length of texts", path)
    image_size = _size(images.get("image_size", defaults.image_size), "the size of images", path)
    if architecture == "clip":
        dim = _size(config.get("projection_dim", defaults.dim), "the size of vectors", path)
        return Towers(dim, max_tokens, image_size, defaults.processor, padding=None, lower_case=False)
    dim = _size(images.get("hidden_size", defaults.dim), "the size of vectors", path)
    of_text = texts.get("projection_size") or texts.get("hidden_size", defaults.dim)
    if of_text != dim or images.get("vision_use_head") is False:
        raise ModelError(f"{path} has towers whose vectors cannot be compared")
    padding = _read_padding(path, max_tokens)
    return Towers(dim, max_tokens, image_size, defaults.processor, padding, lower_case=True)


def _read_padding(path: Path, length: int) -> Padding:
    file = path / _TOKENIZER_CONFIG
    config = read_json(file) if file.exists() else {}
    token = config.get("pad_token")
    if isinstance(token, dict):  # as old releases wrote it
        token = token.get("content")
    if not isinstance(token, str) or not token:
        raise ModelError(f"{file} does not say what token texts are padded with, which this model attends to")
    side = config.get("padding_side")
    if side not in {None, "left", "right"}:
        raise ModelError(f"{file} pads texts on the side {side!r}, which is not known")
    return Padding(token, length, left=side == "left" or (side is None and config.get("tokenizer_class") in _PAD_LEFT))


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the configuration of one tower; what is missing has its default."""
    part = config.get(name)
    return part if isinstance(part, dict) else {}


def _size(given: Any, what: str, path: Path) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= 65_535:
        raise ModelError(f"the configuration in {path} gives {what} as {given!r}, which is not known")
    return given
