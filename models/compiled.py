"""
Compiled functions: numba's decorator with types that survive it, and one place for its options.

Machine code is kept in `NUMBA_CACHE_DIR`, without it beside the modules, in a folder named after the sources of this
package: numba itself looks only at the file of each function, and would go on with constants it had from others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

# numba keeps its options as attributes that no type checker knows.
_OPTIONS: Any = numba.config


def _digest_of_sources() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


_FOLDER = str(Path(_OPTIONS.CACHE_DIR or Path(__file__).parent / "__pycache__") / f"models-{_digest_of_sources()}")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """
    Compile at the first call; the GIL is free meanwhile.

    No fast-math: the same input must give the same bytes on every machine.
    """
    # The folder is an option of the whole process, read when a function is decorated; others have theirs.
    others, _OPTIONS.CACHE_DIR = _OPTIONS.CACHE_DIR, _FOLDER
    try:
        return cast("Callable[P, R]", numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    finally:
        _OPTIONS.CACHE_DIR = others
