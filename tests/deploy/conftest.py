"""Renders the kustomizations once; every test of this folder reads the rendered resources."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import kubectl
from tests.support.rendered import DEPLOY, FOLDERS, Rendered


@pytest.fixture(scope="session")
def kustomized(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Rendered]]:
    """Every kustomization of deploy/, rendered by kubectl."""
    binary = kubectl.unpack(tmp_path_factory.mktemp("kubectl"))
    yield {folder: Rendered(folder, kubectl.render(binary, DEPLOY / folder)) for folder in FOLDERS}
    binary.unlink()  # 60 MB; pytest keeps the folders of its last runs


@pytest.fixture(params=FOLDERS)
def rendered(kustomized: dict[str, Rendered], request: pytest.FixtureRequest) -> Rendered:
    """One kustomization after the other."""
    return kustomized[request.param]
