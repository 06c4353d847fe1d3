"""The images component on top of production: the encoder has the folder of images, read-only, and nobody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streams.settings import ENV_PREFIX, Settings
from tests.support.rendered import Rendered


@pytest.fixture(scope="module")
def mounted(with_component: Callable[[str], Rendered]) -> Rendered:
    """The production overlay with the component added."""
    return with_component("images")


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
