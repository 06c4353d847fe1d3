"""Compiled functions: numba's decorator with types that survive it, and one place for its options."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """
    Compile at the first call, and keep the machine code beside the module (or in `NUMBA_CACHE_DIR`).

    The GIL is free meanwhile. No fast-math: the same input must give the same bytes on every machine.
    """
    return cast("Callable[P, R]", numba.njit(cache=True, nogil=True, error_model="numpy")(function))
