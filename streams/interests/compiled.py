"""
Compiled functions: numba's decorators with types that survive them, and one place for their options.

Machine code is kept in `NUMBA_CACHE_DIR`, without it beside the modules, in a folder named after the sources of this
package: numba itself looks only at the file of each function, and would go on running what it had inlined from others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def _digest_of_sources() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# numba keeps its options as attributes that no type checker knows.
_OPTIONS: Any = numba.config
#: Where machine code of these sources is kept.
CACHE_FOLDER: Final = (
    Path(_OPTIONS.CACHE_DIR or Path(__file__).parent / "__pycache__") / f"compiled-{_digest_of_sources()}"
)
_OPTIONS.CACHE_DIR = str(CACHE_FOLDER)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """
    Compile at the first call.

    No fast-math: the same events must give the same bytes on every machine.
    """
    return cast("Callable[P, R]", numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def compiled_loosely(function: Callable[P, R]) -> Callable[P, R]:
    """Compile sums over vectors, whose terms may be added in any order: that makes them several times faster."""
    return cast(
        "Callable[P, R]",
        numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})(function),
    )
