"""Machine code of an image is taken, so that a new container does not compile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.prebuilt import take_prebuilt

_MODULE = """
from models.compiled import compiled
from models.prebuilt import take_prebuilt

@compiled
def doubled(number):
    return 2 * number

take_prebuilt()
doubled(3)
print(sum(doubled.stats.cache_hits.values()))
"""
_ROOT = Path(__file__).parents[2]


def _hits(module: Path, **environment: str) -> int:
    """Return how many functions a process that starts with such folders did not have to compile."""
    done = subprocess.run(
        [sys.executable, str(module)],
        env=os.environ | {"PYTHONPATH": str(_ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_a_new_container_does_not_compile(tmp_path: Path) -> None:
    """A process with an empty folder of its own loads what another one, in the image's build, had compiled."""
    module, built, own = tmp_path / "module.py", tmp_path / "built", tmp_path / "own"
    module.write_text(_MODULE)

    assert 0 == _hits(module, NUMBA_CACHE_DIR=str(built))
    assert 1 == _hits(module, NUMBA_CACHE_DIR=str(own), NUMBA_PREBUILT_DIR=str(built))


def test_what_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that starts again keeps what it has compiled since; without an image nothing happens."""
    built, own = tmp_path / "built", tmp_path / "own"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(own))
    monkeypatch.setenv("NUMBA_PREBUILT_DIR", str(built))
    take_prebuilt()

    assert not own.exists()

    for folder, text in ((built, "image"), (own, "own")):
        (folder / "package").mkdir(parents=True)
        (folder / "package" / "index").write_text(text)
    (built / "package" / "code").write_text("image")
    take_prebuilt()

    assert ("own", "image") == tuple((own / "package" / name).read_text() for name in ("index", "code"))

    shutil.rmtree(built)
    take_prebuilt()
