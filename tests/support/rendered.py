"""Rendered Kubernetes resources, and the questions the deployment tests ask of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).parents[2] / "deploy"
FOLDERS = ("base", "overlays/dev", "overlays/prod")
WORKLOADS = ("Deployment", "StatefulSet")


@dataclass(frozen=True)
class Rendered:
    """The resources of one kustomization."""

    folder: str
    resources: list[dict[str, Any]]

    def of_kind(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the resources of these kinds."""
        return [resource for resource in self.resources if resource["kind"] in kinds]

    def named(self, kind: str, name: str) -> dict[str, Any]:
        """Return the one resource of this kind and name."""
        (found,) = [resource for resource in self.of_kind(kind) if resource["metadata"]["name"] == name]
        return found

    def workloads(self) -> list[dict[str, Any]]:
        """Return what keeps running: Deployments and StatefulSets."""
        return self.of_kind(*WORKLOADS)

    def pods(self) -> dict[str, dict[str, Any]]:
        """Return the pod template of each workload and Job, by its name."""
        return {
            resource["metadata"]["name"]: resource["spec"]["template"] for resource in self.of_kind(*WORKLOADS, "Job")
        }

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return the one container of each workload and Job, by the workload's name."""
        found = {}
        for name, pod in self.pods().items():
            (container,) = pod["spec"]["containers"]
            found[name] = container
        return found

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a workload, the image's below its own; references become example values."""
        container = self.containers()[name]
        variables = image_environment()
        for source in container.get("envFrom", []):
            variables |= self.named("ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in container.get("env", []):
            variables[variable["name"]] = variable.get("value") or _example(variable["valueFrom"], name)
        return variables


def image_environment() -> dict[str, str]:
    """Return what the last stage of the Dockerfile sets."""
    last = (DEPLOY / "Dockerfile").read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    lines = [line.removeprefix("ENV ") for line in last.splitlines() if line.startswith("ENV ")]
    return dict(pair.split("=", 1) for line in lines for pair in line.split())


def _example(source: dict[str, Any], name: str) -> str:
    if "fieldRef" in source:
        assert source["fieldRef"]["fieldPath"] == "metadata.name"
        return f"{name}-0"
    assert source["resourceFieldRef"] == {"resource": "requests.cpu", "divisor": "1"}
    return "1"
