"""
Machine code that an image brings along: without it every pod would compile for half a minute before it is ready.

numba takes no folder that it cannot write to, and an image's own is read-only: the code is copied to where numba keeps
its own. For another kind of CPU than the one it was compiled on numba does not take it, and compiles as it would have.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def take_prebuilt() -> None:
    """Copy the code in `NUMBA_PREBUILT_DIR` to `NUMBA_CACHE_DIR`, where both are set; what is there stays."""
    prebuilt, own = os.environ.get("NUMBA_PREBUILT_DIR"), os.environ.get("NUMBA_CACHE_DIR")
    if prebuilt and own and Path(prebuilt).is_dir():
        shutil.copytree(prebuilt, own, copy_function=_copied, dirs_exist_ok=True)


def _copied(source: str, target: str) -> None:
    if not Path(target).exists():
        shutil.copyfile(source, target)
