"""The image: lint-free, unprivileged, with freshet as process 1 and only locked packages."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.rendered import DEPLOY, Rendered, image_environment

TEXT = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
LOCK = DEPLOY / "requirements.lock"


def names(lock: str) -> set[str]:
    """Return the packages of a lock."""
    return set(re.findall(r"^([a-z0-9-]+)==", lock, flags=re.MULTILINE))


def test_hadolint_has_nothing_to_say() -> None:
    """The Dockerfile keeps to hadolint's rules, each of them."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [str(hadolint), "--no-color", str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_freshet_is_process_one() -> None:
    """The entry point is in exec form, so that SIGTERM reaches freshet and not a shell."""
    assert re.findall(r"^ENTRYPOINT (.*)$", TEXT, flags=re.MULTILINE) == ['["freshet"]']


def test_image_and_pods_agree_on_the_user(rendered: Rendered) -> None:
    """The image's user is a number, and the pods run as that number."""
    (user,) = re.findall(r"^USER (\d+):(\d+)$", TEXT, flags=re.MULTILINE)

    for pod in rendered.pods().values():
        security = pod["spec"]["securityContext"]
        assert (str(security["runAsUser"]), str(security["runAsGroup"])) == user


def test_image_never_downloads_models() -> None:
    """Nothing at run time may ask a model hub."""
    assert image_environment()["HF_HUB_OFFLINE"] == "1"


def test_machine_code_is_kept_where_pods_may_write() -> None:
    """The folder of the code is read-only and there is no home: without a folder of its own numba refuses to start."""
    assert image_environment()["NUMBA_CACHE_DIR"].startswith("/tmp/")  # noqa: S108 -- the image's own scratch folder


def test_machine_code_comes_with_the_image() -> None:
    """What the build compiles lies where roles take it from, and both roles' code is there."""
    prebuilt = image_environment()["NUMBA_PREBUILT_DIR"]
    build = TEXT.partition("\nFROM ")[2].partition("\nFROM ")[0]

    assert prebuilt in re.findall(r"NUMBA_CACHE_DIR=(\S+)", build)
    assert {"refresh", "signals"} == set(re.findall(r"-m streams\.(\w+)\.warm", build))


def test_only_locked_packages_are_installed() -> None:
    """Packages come in the lock's versions; without its constraints come only the project and the CPU torch."""
    installs = re.findall(r"uv pip install ([^;\\&\n]+)", TEXT)

    assert [line.strip() for line in installs] == [
        '--no-deps --index-url "$TORCH_INDEX" "$torch"',
        "-r pyproject.toml -c constraints.lock",
        "--no-deps .",
    ]
    assert not re.findall(r"https?://", TEXT)


def test_lock_has_every_dependency_with_hashes() -> None:
    """Each run-time dependency stands in the lock, and each locked package has its hashes and no index address."""
    text = LOCK.read_text()
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=!~;\[ ]", requirement)[0] for requirement in project["dependencies"]}

    assert needed <= names(text)
    for entry in re.split(r"\n(?=[a-z0-9])", text.partition("\n" + min(names(text)))[2]):
        assert "--hash=sha256:" in entry
    assert not re.findall(r"https?://", text)


def test_cpu_image_leaves_cuda_out(tmp_path: Path) -> None:
    """A CPU image leaves out torch (it comes from another index) and the CUDA libraries, and nothing else."""
    (program,) = re.findall(r"awk '([^']+)'", TEXT)
    done = subprocess.run(["awk", program, str(LOCK)], capture_output=True, text=True, check=True, cwd=tmp_path)
    everything, kept = names(LOCK.read_text()), names(done.stdout)

    assert "torch" in everything
    assert all(re.match(r"torch$|triton$|nvidia-|cuda-", name) for name in everything - kept)
    assert not any(re.match(r"torch$|triton$|nvidia-|cuda-", name) for name in kept)
    assert len(re.findall(r"--hash=", done.stdout)) >= len(kept)


@pytest.mark.parametrize(
    "name", ["pyproject.toml", "README.md", "LICENSE", "deploy/requirements.lock", "streams", "models"]
)
def test_build_context_is_what_is_copied(name: str) -> None:
    """The ignore file lets in what the Dockerfile copies, so that nothing else of a checkout gets into the image."""
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()

    assert allowed[0] == "*"
    assert f"!{name}" in allowed
    assert re.search(rf"^COPY .*\b{re.escape(name)}\b", TEXT, flags=re.MULTILINE)
    assert (DEPLOY.parent / name).exists()
