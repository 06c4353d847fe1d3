"""The images component on top of production: the encoder has the folder of images, read-only, and nobody else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import yaml

from streams.settings import ENV_PREFIX, Settings
from tests.support import kubectl
from tests.support.rendered import DEPLOY, Rendered


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rendered]:
    """The production overlay with the component added."""
    folder = tmp_path_factory.mktemp("images")
    shutil.copytree(DEPLOY, folder / "deploy")
    file = folder / "deploy/overlays/prod/kustomization.yaml"
    overlay = yaml.safe_load(file.read_text(encoding="utf-8"))
    overlay["components"].append("../../components/images")
    file.write_text(yaml.safe_dump(overlay), encoding="utf-8")
    binary = kubectl.unpack(folder)
    yield Rendered("overlays/prod", kubectl.render(binary, file.parent))
    binary.unlink()


def test_the_encoder_reads_the_claim_where_its_setting_says(mounted: Rendered, kustomized: dict[str, Rendered]) -> None:
    """Mounted read-only at `image_root`; every other resource is as it was."""
    container = mounted.containers()["encoder"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "images"]
    (volume,) = [one for one in mounted.pods()["encoder"]["spec"]["volumes"] if one["name"] == "images"]

    assert "image_root" in Settings.model_fields
    assert mounted.environment("encoder")[f"{ENV_PREFIX}IMAGE_ROOT"] == mount["mountPath"]
    assert mount["readOnly"] is True
    assert volume["persistentVolumeClaim"] == {"claimName": "item-images", "readOnly": True}
    before = kustomized["overlays/prod"].resources
    changed = [now["metadata"]["name"] for now, then in zip(mounted.resources, before, strict=True) if now != then]
    assert changed == ["encoder"]
