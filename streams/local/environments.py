"""Python environments of what Freshet is compared with, beside its own: made with uv, kept in the cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from streams.errors import DependencyError

#: The largest environment holds some GB, most of it torch.
_INSTALL_TIMEOUT_S: Final = 1800.0


def environment(cache_dir: Path, name: str, packages: Sequence[str], wanted: bytes) -> Path:
    """
    Return the Python of an environment; the first call makes it.

    Parameters
    ----------
    name
        What it is for, in its folder's name and in errors.
    packages
        Arguments of `uv pip install`.
    wanted
        What the packages depend on: another environment is made when it changes, or the Python does.

    Raises
    ------
    DependencyError
        When uv is missing or a package cannot be installed.

    """
    digest = hashlib.sha256(wanted + sys.version.encode()).hexdigest()[:12]
    target = cache_dir / f"{name}-venv-{digest}"
    python = target / "bin" / "python"
    if (target / "complete").exists():
        return python
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise DependencyError(
            f"the environment {name} is made with uv, which is missing; deploy/local/setup installs it"
        )
    cache_dir.mkdir(parents=True, exist_ok=True)
    make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(target)]
    run_tool(make, f"making the environment {name}", cache_dir, _INSTALL_TIMEOUT_S)
    install = [uv, "pip", "install", "--quiet", "--python", str(python), *packages]
    run_tool(install, f"installing the environment {name}", cache_dir, _INSTALL_TIMEOUT_S)
    (target / "complete").touch()
    return python


def run_tool(command: list[str], what: str, folder: Path, timeout_s: float) -> None:
    """
    Run a program in a folder.

    Raises
    ------
    DependencyError
        When it fails, with the last thing it said.

    """
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout_s, cwd=folder)  # noqa: S603  # fixed command line
    except subprocess.CalledProcessError as error:
        said = [line for line in f"{error.stdout}\n{error.stderr}".splitlines() if line.strip()] or ["no reason given"]
        raise DependencyError(f"{what} failed: {said[-1]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DependencyError(f"{what} failed: {error}") from error
