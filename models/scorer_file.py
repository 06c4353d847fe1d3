"""
Files of a learned scorer: safetensors with what it belongs to, checked before anything of it is used. No pickle.

Tensors are `inner` (h, d), `outer` (h,) and `bias` (1,), all float32; see `models.scorer`. The metadata says `format`,
the `fingerprint` of the encoder whose vectors it was taught on, `dim`, `hidden`, and `made`: how, for the reader.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from models.errors import ModelError
from models.scorer import Scorer

FORMAT: Final = "freshet-interaction-network-1"
#: Time of a ranking goes with them.
MAX_HIDDEN: Final = 64
_MAX_DIM = 65_535
#: The largest network, and 1 MB for what is said of it.
_MAX_BYTES = 4 * MAX_HIDDEN * (_MAX_DIM + 1) + 4 + 2**20
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_WHOLE = re.compile(r"[1-9][0-9]{0,4}")


@dataclass(frozen=True, slots=True)
class TrainedScorer:
    """
    A scorer and what it belongs to.

    Attributes
    ----------
    scorer
        Its weights.
    fingerprint
        Of the encoder whose vectors it was taught on: of others it knows nothing.
    made
        How it was taught.

    """

    scorer: Scorer
    fingerprint: str
    made: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hidden(self) -> int:
        """Hidden units."""
        return len(self.scorer.inner)

    @property
    def dim(self) -> int:
        """Elements of a vector."""
        return int(self.scorer.inner.shape[1])


def save_scorer(trained: TrainedScorer, path: Path) -> None:
    """
    Write a scorer; a reader sees the old file or the new one.

    Raises
    ------
    ModelError
        When the file cannot be written.

    """
    scorer = trained.scorer
    tensors = {
        "inner": np.ascontiguousarray(scorer.inner),
        "outer": scorer.outer.astype(np.float32),
        "bias": np.array([scorer.bias], np.float32),
    }
    metadata = {
        "format": FORMAT,
        "fingerprint": trained.fingerprint,
        "dim": str(trained.dim),
        "hidden": str(trained.hidden),
        "made": json.dumps(trained.made, sort_keys=True),
    }
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(save(tensors, metadata))
        scratch.replace(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror}") from error


def load_scorer(path: Path) -> TrainedScorer:
    """
    Return the scorer in a file.

    Raises
    ------
    ModelError
        When it cannot be read, is of another format or too large, or says numbers that cannot be.

    """
    try:
        if (size := path.stat().st_size) > _MAX_BYTES:
            raise ModelError(f"{path} has {size:,} bytes, more than any scorer")
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            hidden, dim = _shape(path, metadata)
            # Nothing is read before all of it is known to be as it should.
            found = {name: (file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 -- no mapping
            if found != {"inner": ("F32", [hidden, dim]), "outer": ("F32", [hidden]), "bias": ("F32", [1])}:
                raise ModelError(f"{path} does not hold the weights of {hidden} units over {dim} elements")
            inner, outer, bias = (np.array(file.get_tensor(name)) for name in ("inner", "outer", "bias"))
            made = json.loads(metadata.get("made", "{}"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no scorer: {error}") from error
    if not all(np.isfinite(weights).all() for weights in (inner, outer, bias)):
        raise ModelError(f"{path} holds weights that are not finite")
    if not isinstance(made, dict):
        raise ModelError(f"{path} does not say in an object how it was made")
    scorer = Scorer(np.ascontiguousarray(inner), outer.astype(np.float64), float(bias[0]))
    return TrainedScorer(scorer, metadata["fingerprint"], made)


def _shape(path: Path, metadata: Mapping[str, str]) -> tuple[int, int]:
    """Return hidden units and elements as the metadata say, checked."""
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path} is no scorer of the format {FORMAT}")
    if not _FINGERPRINT.fullmatch(metadata.get("fingerprint", "")):
        raise ModelError(f"{path} does not name the encoder it belongs to")
    told = metadata.get("hidden", ""), metadata.get("dim", "")
    if not all(_WHOLE.fullmatch(one) for one in told):
        raise ModelError(f"{path} does not say how large it is")
    hidden, dim = map(int, told)
    if hidden > MAX_HIDDEN or dim > _MAX_DIM:
        raise ModelError(f"{path} has {hidden} units over {dim} elements; {MAX_HIDDEN} over {_MAX_DIM} are the most")
    return hidden, dim
