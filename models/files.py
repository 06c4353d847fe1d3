"""Files of a model folder: small JSON, and the hashes of large ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from models.errors import ModelError

#: A JSON file of a model is a few KB (label maps included); the tokenizer is read by its own parser.
_MAX_JSON_BYTES = 4 << 20


def sha256_of(path: Path) -> str:
    """
    Return the SHA-256 of a file, lower-case hex.

    Raises
    ------
    ModelError
        When it cannot be read.

    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def read_json(path: Path) -> Any:
    """
    Return what a JSON file holds.

    Raises
    ------
    ModelError
        When it cannot be read, is no JSON or unreasonably large.

    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ModelError(f"{path} is larger than {_MAX_JSON_BYTES} bytes")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
