"""
Compiled functions: numba's decorators with types that survive them, and one place for their options.

Machine code is kept in `NUMBA_CACHE_DIR`, without it beside the modules, in a folder named after the sources it was
made of: those of the function's own package and of this one. numba itself looks only at the file of each function, and
would go on running what it had inlined from others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

# numba keeps its options as attributes that no type checker knows.
_OPTIONS: Any = numba.config
# It knows options that its own types do not.
_NJIT: Any = numba.njit
_BASE: Final = _OPTIONS.CACHE_DIR


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """
    Compile at the first call; the GIL is free meanwhile.

    No fast-math: the same input must give the same bytes on every machine.
    """
    return _compiled(function, fastmath=False)


def compiled_loosely(function: Callable[P, R]) -> Callable[P, R]:
    """Compile sums over vectors, whose terms may be added in any order: that makes them several times faster."""
    return _compiled(function, fastmath={"reassoc", "contract", "nsz"})


def _compiled(function: Callable[P, R], *, fastmath: bool | set[str]) -> Callable[P, R]:
    # The folder is an option of the whole process, read when a function is decorated.
    before = _OPTIONS.CACHE_DIR
    _OPTIONS.CACHE_DIR = str(_folder(Path(function.__code__.co_filename).parent))
    try:
        # Always into its callers: our arguments are tuples of arrays, and a call copies a kilobyte of them. And without
        # numba's reference counts, whose atomic steps were a fifth of a fold: compiled code makes no arrays, and those
        # it is given are held by its caller.
        decorate = _NJIT(cache=True, nogil=True, error_model="numpy", fastmath=fastmath, forceinline=True, _nrt=False)
        return cast("Callable[P, R]", decorate(function))
    finally:
        _OPTIONS.CACHE_DIR = before


@lru_cache
def _folder(package: Path) -> Path:
    """Return where the machine code of a package is kept."""
    digest = hashlib.sha256(numba.__version__.encode())
    for folder in sorted({package, Path(__file__).parent}):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.read_bytes())
    return Path(_BASE or package / "__pycache__") / f"compiled-{digest.hexdigest()[:16]}"
