"""
A model folder, checked before anything in it is used: files, hashes, architecture, configuration, pooling.

Only data is ever read: safetensors weights, JSON and the tokenizer's own JSON. No pickle, no code from the folder,
no network. What transformers would import, download or execute because of a key in `config.json` is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ModelError
from models.files import read_json, sha256_of
from models.images import Preprocessing, read_preprocessing
from models.modules import DenseLayer, Pooling, read_modules
from models.towers import TAKE_IMAGES, Padding, Towers, read_towers

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
CONFIG = "config.json"
MANIFEST = "SHA256SUMS"
_REQUIRED = (CONFIG, TOKENIZER, WEIGHTS)

#: Encoders, and decoders that serve as such, that transformers implements itself, without code from the folder.
ARCHITECTURES = frozenset({
    "albert", "bert", "camembert", "clip", "deberta-v2", "distilbert", "electra", "ernie", "llama", "mistral",
    "modernbert", "mpnet", "nomic_bert", "qwen2", "qwen3", "roberta", "siglip", "xlm-roberta",
})  # fmt: skip

#: Architectures whose first position id is padding_idx + 1, so that two positions are never used.
_OFFSET_POSITIONS = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta"})

#: Keys that make transformers import code, fetch kernels or other weights, or spread a model over machines
#: (CVE-2026-4372 was one of them). An encoder needs none.
_REFUSED_KEYS = frozenset({
    "attn_implementation", "auto_map", "custom_pipelines", "distributed_config", "experts_implementation",
    "fusion_config", "kernel_config", "quantization_config", "trust_remote_code", "use_kernels",
})  # fmt: skip
#: Old releases wrote these two; every other private key sets an internal of transformers.
_HARMLESS_PRIVATE_KEYS = frozenset({"_name_or_path", "_commit_hash"})

#: What models call the prompt of the texts that are looked for, in sentence-transformers' order.
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")

#: Where the steps before the image tower are told: old releases of transformers, and new ones.
_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")

#: Where neither the folder nor its architecture says how long a text may be.
_DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """
    A checked model folder.

    Attributes
    ----------
    architecture
        transformers' `model_type`.
    max_tokens
        Longest input, special tokens included.
    pooling
        How token states become one vector.
    dense
        Layers behind the pooling, in their order.
    dim
        Elements of a vector.
    full_dim
        Elements that the model gives, of which the first `dim` are kept.
    prompt
        Stands before every text.
    lower_case
        Whether texts are written in lower case first.
    padding
        To what texts are padded, None where they may have any length.
    preprocessing
        What becomes of images before the model; None of a model that takes none.
    weights_sha256, tokenizer_sha256
        Hashes of the two files that decide what a vector is, lower-case hex.

    """

    path: Path
    architecture: str
    max_tokens: int
    pooling: Pooling
    dense: tuple[DenseLayer, ...]
    dim: int
    full_dim: int
    prompt: str
    lower_case: bool
    padding: Padding | None
    preprocessing: Preprocessing | None
    weights_sha256: str
    tokenizer_sha256: str


def load_spec(
    path: Path,
    sha256: str = "",
    manifest: Mapping[str, str] | None = None,
    *,
    prompt: str | None = None,
    dim: int = 0,
) -> ModelFolder:
    """
    Check a model folder and say what is in it. Weights are hashed, not loaded.

    Parameters
    ----------
    path
        Folder as transformers and sentence-transformers write it: `config.json`, `tokenizer.json`,
        `model.safetensors`, and optionally `modules.json`, `sentence_bert_config.json`, `1_Pooling/config.json`,
        `config_sentence_transformers.json`.
    sha256
        Required hash of `model.safetensors`; empty accepts any.
    manifest
        Required hashes by file name inside the folder. A file `SHA256SUMS` in the folder (as `sha256sum` writes it)
        is checked as well.
    prompt
        Stands before every text; None takes the folder's own for documents.
    dim
        Elements kept of a vector, for models trained so that the first ones say the most (Matryoshka); 0 keeps all.

    Raises
    ------
    ModelError
        With one sentence: what is missing, altered or refused.

    """
    if not path.is_dir():
        raise ModelError(f"the model folder {path} does not exist")
    _require_files(path)
    weights_sha256 = sha256_of(path / WEIGHTS)
    if sha256 and weights_sha256 != sha256:
        raise ModelError(f"{path / WEIGHTS} has SHA-256 {weights_sha256}, expected {sha256}")
    _check_manifest(path, {**_read_manifest(path), **(manifest or {})})
    config = read_json(path / CONFIG)
    _check_config(config, path / CONFIG)
    towers = read_towers(config, path)
    dim_of_states = towers.dim if towers is not None else _dim(config, path)
    layers = read_modules(path, dim_of_states, projects=towers is not None)
    full_dim = layers.dim
    if dim > full_dim:
        raise ModelError(f"vectors of {path} have {full_dim} elements, of which {dim} cannot be kept")
    prompt = _own_prompt(path) if prompt is None else prompt
    if prompt and not layers.pools_prompt:
        raise ModelError(f"{path} leaves its prompt out of the pooling, which Freshet does not do; set no prompt")
    return ModelFolder(
        path=path,
        architecture=config["model_type"],
        max_tokens=_max_tokens(path, config, towers),
        pooling=layers.pooling,
        dense=layers.dense,
        dim=dim or full_dim,
        full_dim=full_dim,
        prompt=prompt,
        lower_case=_lower_case(path) or (towers is not None and towers.lower_case),
        padding=towers.padding if towers is not None else None,
        preprocessing=_preprocessing(path, towers) if towers is not None else None,
        weights_sha256=weights_sha256,
        tokenizer_sha256=sha256_of(path / TOKENIZER),
    )


def preprocessing_of(folder: ModelFolder) -> Preprocessing:
    """
    Return the steps before the image tower of a folder that takes images.

    Raises
    ------
    ModelError
        When it takes none, or does not say the steps.

    """
    if folder.preprocessing is not None:
        return folder.preprocessing
    if folder.architecture not in TAKE_IMAGES:
        raise ModelError(f"the model in {folder.path} is of {folder.architecture!r} and takes no images")
    raise ModelError(f"{folder.path} has no {_PREPROCESSORS[0]}, which says how images are prepared")


def _require_files(path: Path) -> None:
    missing = [name for name in _REQUIRED if not (path / name).is_file()]
    if not missing:
        if (path / "adapter_config.json").exists():
            raise ModelError(f"{path} holds an adapter; merge it into its model and save that as {WEIGHTS}")
        return
    if missing == [WEIGHTS]:
        if (path / f"{WEIGHTS}.index.json").exists():
            raise ModelError(f"the weights in {path} are split over several files; save them as one {WEIGHTS}")
        if any(found for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt") for found in path.glob(pattern)):
            raise ModelError(f"{path} has only pickled weights, which can run code; convert them to {WEIGHTS}")
    if missing == [TOKENIZER]:
        raise ModelError(f"{path} has no {TOKENIZER}; save the model with its fast tokenizer")
    raise ModelError(f"{path} is not a model folder: {', '.join(missing)} missing")


def _read_manifest(path: Path) -> dict[str, str]:
    """Read `SHA256SUMS`: lines of hash, blank, blank or `*`, name."""
    if not (path / MANIFEST).exists():
        return {}
    hashes = {}
    for line in (path / MANIFEST).read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](?:\./)?(.+)", line)
        if match is None:
            raise ModelError(f"{path / MANIFEST} has a line that is not `<sha256>  <name>`")
        hashes[match[2]] = match[1]
    return hashes


def _check_manifest(path: Path, manifest: Mapping[str, str]) -> None:
    for name, expected in manifest.items():
        file = path / name
        if not file.resolve().is_relative_to(path.resolve()) or not file.is_file():
            raise ModelError(f"{path} lacks {name}, which its manifest names")
        if (found := sha256_of(file)) != expected:
            raise ModelError(f"{file} has SHA-256 {found}, expected {expected}")


def _check_config(config: Any, path: Path) -> None:
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object")
    _refuse_keys(config, path)
    architecture = config.get("model_type")
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"the architecture {architecture!r} in {path} is not supported; supported are "
            f"{', '.join(sorted(ARCHITECTURES))}"
        )


def _refuse_keys(value: Any, path: Path) -> None:
    """Look at every depth: composite configurations nest."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _REFUSED_KEYS or (key.startswith("_") and key not in _HARMLESS_PRIVATE_KEYS):
                raise ModelError(f"{path} contains {key!r}, which can make transformers run or fetch code; remove it")
            _refuse_keys(inner, path)
    elif isinstance(value, list):
        for inner in value:
            _refuse_keys(inner, path)


def _own_prompt(path: Path) -> str:
    """Return what sentence-transformers puts before documents: the first of these names, else the default prompt."""
    file = path / "config_sentence_transformers.json"
    config = read_json(file) if file.exists() else {}
    prompts = config.get("prompts") or {}
    for name in (*_DOCUMENT_PROMPTS, config.get("default_prompt_name")):
        if prompt := prompts.get(name):
            if not isinstance(prompt, str):
                raise ModelError(f"the prompt {name!r} in {file} is not a text")
            return prompt
    return ""


def _lower_case(path: Path) -> bool:
    file = path / "sentence_bert_config.json"
    return file.exists() and read_json(file).get("do_lower_case") is True


def _preprocessing(path: Path, towers: Towers) -> Preprocessing | None:
    """Return the steps before the image tower; None where nothing says them."""
    # Read here as data and never by transformers, so its keys can make nothing run.
    for file in (path / name for name in _PREPROCESSORS):
        if file.exists():
            steps = read_json(file)
            inner = steps.get("image_processor", steps) if isinstance(steps, dict) else steps
            return read_preprocessing(inner, towers.image_size, file, towers.processor)
    return None


def _max_tokens(path: Path, config: dict[str, Any], towers: Towers | None) -> int:
    limits = []
    positions = config.get("max_position_embeddings") if towers is None else towers.max_tokens
    if isinstance(positions, int):
        limits.append(positions - 2 if config["model_type"] in _OFFSET_POSITIONS else positions)
    if (path / "sentence_bert_config.json").exists():
        given = read_json(path / "sentence_bert_config.json").get("max_seq_length")
        if isinstance(given, int):
            limits.append(given)
    longest = min(limits, default=_DEFAULT_MAX_TOKENS)
    if longest < 3:
        raise ModelError(f"{path} allows {longest} tokens, which leaves no room for text")
    return longest


def _dim(config: dict[str, Any], path: Path) -> int:
    dim = config.get("hidden_size", config.get("dim"))  # DistilBERT calls it `dim`
    if not isinstance(dim, int) or not 1 <= dim <= 65_535:
        raise ModelError(f"{path / CONFIG} does not say the size of its vectors")
    return dim
