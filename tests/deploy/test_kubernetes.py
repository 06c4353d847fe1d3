"""What every rendered kustomization must keep to: valid against Kubernetes' schemas and fit for a careful cluster."""

from __future__ import annotations

import tomllib
from typing import Any

import kubernetes_validate

from tests.support.rendered import DEPLOY, Rendered

VERSION = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["version"]
#: Volumes a restricted namespace allows and that hold nothing durable of the node.
ALLOWED_VOLUMES = {"emptyDir", "secret", "configMap"}


def labels_match(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a `matchLabels` selector takes in these labels."""
    assert set(selector) <= {"matchLabels"}
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def test_resources_are_valid(rendered: Rendered) -> None:
    """Kubernetes' own schemas accept each resource and know each of its fields."""
    for resource in rendered.resources:
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def test_resources_carry_the_common_labels(rendered: Rendered) -> None:
    """Each resource says what it is part of, and the version is the package's."""
    for resource in rendered.resources:
        labels = resource["metadata"]["labels"]

        assert labels["app.kubernetes.io/part-of"] == "freshet"
        assert labels["app.kubernetes.io/version"] == VERSION


def test_namespace_enforces_the_restricted_profile(rendered: Rendered) -> None:
    """The namespace admits only pods that keep to the restricted security standard."""
    (namespace,) = rendered.of_kind("Namespace")
    labels = namespace["metadata"]["labels"]

    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"
    for resource in rendered.resources:
        if resource["kind"] != "Namespace":
            assert resource["metadata"]["namespace"] == namespace["metadata"]["name"]


def test_pods_keep_to_the_restricted_profile(rendered: Rendered) -> None:
    """No pod runs as root, gains privileges, writes to its root or touches the node."""
    for pod in rendered.pods().values():
        spec = pod["spec"]
        security = spec["securityContext"]
        (container,) = spec["containers"]

        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for volume in spec["volumes"]:
            assert set(volume) - {"name"} <= ALLOWED_VOLUMES


def test_every_mount_has_its_volume(rendered: Rendered) -> None:
    """Mounts and volumes pair up, /tmp is writable and secrets are mounted read-only for the group alone."""
    for pod in rendered.pods().values():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        mounts = {mount["name"]: mount for mount in pod["spec"]["containers"][0]["volumeMounts"]}

        assert set(mounts) == set(volumes)
        assert "/tmp" in {mount["mountPath"] for mount in mounts.values()}  # noqa: S108  # a path inside the pod
        for name, volume in volumes.items():
            if "secret" in volume:
                assert mounts[name]["readOnly"] is True
                assert volume["secret"]["defaultMode"] == 0o440
            else:
                assert "sizeLimit" in volume["emptyDir"]


def test_each_role_has_its_own_account_without_a_token(rendered: Rendered) -> None:
    """Nothing here talks to the Kubernetes API, so nothing has a token for it."""
    accounts = {account["metadata"]["name"]: account for account in rendered.of_kind("ServiceAccount")}

    for name, pod in rendered.pods().items():
        assert pod["spec"]["serviceAccountName"] == name
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["enableServiceLinks"] is False
        assert accounts[name]["automountServiceAccountToken"] is False
    assert not rendered.of_kind("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "Secret")


def test_images_are_pinned(rendered: Rendered) -> None:
    """An image has this version's tag; `latest` would change under a running rollout."""
    for container in rendered.containers().values():
        name, _, tag = container["image"].rpartition(":")

        assert name == "freshet"
        assert tag in {f"{VERSION}-cpu", f"{VERSION}-gpu"}
        assert container["imagePullPolicy"] == "IfNotPresent"


def test_memory_is_reserved_and_processors_are_not_throttled(rendered: Rendered) -> None:
    """A pod's memory limit is its request; it has a processor request and no processor limit."""
    for container in rendered.containers().values():
        resources = container["resources"]

        assert resources["limits"]["memory"] == resources["requests"]["memory"]
        assert "cpu" in resources["requests"]
        assert "cpu" not in resources["limits"]


def test_probes_ask_the_health_port(rendered: Rendered) -> None:
    """The three probes ask the paths that the health server serves, on the port it is told to take."""
    for workload in rendered.workloads():
        name = workload["metadata"]["name"]
        container = rendered.containers()[name]
        environment = rendered.environment(name)

        assert container["ports"] == [{"name": "health", "containerPort": int(environment["FRESHET_HEALTH_PORT"])}]
        assert environment["FRESHET_HEALTH_HOST"] == "0.0.0.0"  # noqa: S104  # the kubelet asks from the node
        paths = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
        for probe, path in paths.items():
            assert container[probe]["httpGet"] == {"path": path, "port": "health"}


def test_start_may_take_as_long_as_a_restore(rendered: Rendered) -> None:
    """Reading a partition's state back may take minutes; the startup probe waits at least five."""
    for workload in rendered.workloads():
        probe = rendered.containers()[workload["metadata"]["name"]]["startupProbe"]

        assert probe["periodSeconds"] * probe["failureThreshold"] >= 300


def test_grace_period_covers_the_last_commit(rendered: Rendered) -> None:
    """SIGTERM leaves time for the last commit, the consumer's stop and a margin; a session outlives such an end."""
    for workload in rendered.workloads():
        environment = rendered.environment(workload["metadata"]["name"])
        grace_s = workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]

        assert grace_s >= 2 * float(environment["FRESHET_COMMIT_TIMEOUT_S"]) + 15
        assert float(environment["FRESHET_KAFKA_SESSION_TIMEOUT_S"]) >= grace_s


def test_streaming_roles_are_static_members(rendered: Rendered) -> None:
    """A streaming role starts all pods at once, each a static member of the group under its own name."""
    for workload in rendered.of_kind("StatefulSet"):
        name = workload["metadata"]["name"]
        environment = rendered.environment(name)

        assert workload["spec"]["podManagementPolicy"] == "Parallel"
        assert environment["FRESHET_KAFKA_GROUP_INSTANCE_ID"] == f"{name}-0"
        assert environment["FRESHET_ROLE_ID"] == f"{name}-0"
        service = rendered.named("Service", workload["spec"]["serviceName"])
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["selector"] == workload["spec"]["selector"]["matchLabels"]


def test_selectors_take_in_their_own_pods(rendered: Rendered) -> None:
    """A workload's selector and its spread constraint mean its own pods and no other's."""
    pods = {name: pod["metadata"]["labels"] for name, pod in rendered.pods().items()}
    for workload in rendered.workloads():
        name = workload["metadata"]["name"]
        (spread,) = workload["spec"]["template"]["spec"]["topologySpreadConstraints"]
        for selector in (workload["spec"]["selector"], spread["labelSelector"]):
            assert [other for other, labels in pods.items() if labels_match(selector, labels)] == [name]


def test_each_budget_means_one_workload(rendered: Rendered) -> None:
    """Each role has one disruption budget that lets drains go on, one pod at a time."""
    budgets = rendered.of_kind("PodDisruptionBudget")
    pods = {name: pod["metadata"]["labels"] for name, pod in rendered.pods().items()}
    covered = []
    for budget in budgets:
        spec = budget["spec"]
        (name,) = [name for name, labels in pods.items() if labels_match(spec["selector"], labels)]
        covered.append(name)

        assert spec["maxUnavailable"] == 1
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert sorted(covered) == sorted(workload["metadata"]["name"] for workload in rendered.workloads())


def test_only_needed_connections_are_open(rendered: Rendered) -> None:
    """Everything is closed but DNS, Kafka, Redis for the interest role, and Prometheus to the health port."""
    deny = rendered.named("NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    pods = {name: pod["metadata"]["labels"] for name, pod in rendered.pods().items()}
    reach: dict[str, set[str]] = {name: set() for name in pods}
    for policy in rendered.of_kind("NetworkPolicy"):
        spec = policy["spec"]
        for name in (name for name, labels in pods.items() if labels_match(spec["podSelector"], labels)):
            for direction, peers in (("ingress", "from"), ("egress", "to")):
                for rule in spec.get(direction, []):
                    (peer,) = rule[peers]
                    namespace = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
                    ports = ",".join(sorted({str(port["port"]) for port in rule["ports"]}))
                    reach[name].add(f"{direction} {namespace} {ports}")

    kafka_port = rendered.environment("interest")["FRESHET_KAFKA_BOOTSTRAP"].rpartition(":")[2]
    common = {"egress kube-system 53", f"egress kafka {kafka_port}", "ingress monitoring 8081"}
    for name in pods:
        assert reach[name] == (common | {"egress redis 6379"} if name == "interest" else common)


def test_a_changed_value_rolls_the_pods(rendered: Rendered) -> None:
    """The ConfigMap's name carries a hash of its content, and every pod reads that one."""
    (config,) = rendered.of_kind("ConfigMap")
    name = config["metadata"]["name"]

    assert name.startswith("freshet-")
    for container in rendered.containers().values():
        assert container["envFrom"] == [{"configMapRef": {"name": name}}]


def test_the_gpu_is_asked_for_once(kustomized: dict[str, Rendered]) -> None:
    """In production the encoder, and only the encoder, holds one GPU, the CUDA image and no surge."""
    prod = kustomized["overlays/prod"]
    with_gpu = [
        name for name, container in prod.containers().items() if "nvidia.com/gpu" in container["resources"]["limits"]
    ]
    encoder = prod.named("Deployment", "encoder")["spec"]

    assert with_gpu == ["encoder"]
    assert prod.containers()["encoder"]["image"].endswith("-gpu")
    assert prod.environment("encoder")["FRESHET_DEVICE"] == "cuda"
    assert encoder["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in encoder["template"]["spec"][
        "tolerations"
    ]
