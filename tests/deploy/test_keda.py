"""The KEDA component on top of production: one ScaledObject, for the encoder, by metrics that encoders export."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from streams import metrics
from streams.encoding.intake import SOURCES
from tests.support.rendered import Rendered


@pytest.fixture(scope="module")
def scaled(with_component: Callable[[str], Rendered]) -> Rendered:
    """The production overlay with the component added."""
    return with_component("keda")


def test_it_adds_one_scaled_object_for_the_encoder(scaled: Rendered, kustomized: dict[str, Rendered]) -> None:
    """It names the Deployment, carries the common labels, and nothing else changes but who owns the count."""
    (found,) = scaled.of_kind("ScaledObject")
    encoder = scaled.named("Deployment", "encoder")
    before = kustomized["overlays/prod"].named("Deployment", "encoder")
    target = found["spec"]["scaleTargetRef"]

    assert target == {"apiVersion": encoder["apiVersion"], "kind": "Deployment", "name": "encoder"}
    assert found["metadata"]["namespace"] == encoder["metadata"]["namespace"]
    assert found["metadata"]["labels"] == encoder["metadata"]["labels"]
    assert "replicas" not in encoder["spec"]
    assert encoder["spec"] | {"replicas": before["spec"]["replicas"]} == before["spec"]
    assert len(scaled.resources) == len(kustomized["overlays/prod"].resources) + 1


def test_it_never_asks_for_none_or_for_idle_pods(scaled: Rendered) -> None:
    """At least one encoder runs, and never more than there are partitions."""
    (found,) = scaled.of_kind("ScaledObject")
    partitions = int(scaled.environment("encoder")["FRESHET_PARTITIONS"])

    assert found["spec"]["minReplicaCount"] == 1
    assert found["spec"]["minReplicaCount"] < found["spec"]["maxReplicaCount"] <= partitions


def test_it_asks_for_metrics_that_encoders_export(scaled: Rendered) -> None:
    """Names, labels and topics are the code's, the pods are the encoder's and no other workload's."""
    (found,) = scaled.of_kind("ScaledObject")
    (trigger,) = found["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    exported = {sample.name for metric in REGISTRY.collect() for sample in metric.samples}
    exported |= {metrics.LAG_RECORDS._name, f"{metrics.ENCODED._name}_total"}  # those without a sample so far
    pods = re.findall(r'pod=~"(.*?)"', query)

    assert (trigger["type"], trigger["metricType"]) == ("prometheus", "Value")
    assert float(trigger["metadata"]["threshold"]) > 0
    assert set(re.findall(r"freshet_\w+", query)) <= exported
    assert re.findall(r'topic=~"(.*?)"', query) == ["|".join(SOURCES)]
    assert set(re.findall(r'namespace="(.*?)"', query)) == {found["metadata"]["namespace"]}
    for pattern in pods:
        assert re.fullmatch(pattern, "encoder-7d4b9c6f5-x2x9z")
        assert not re.fullmatch(pattern, "encoder-next-7d4b9c6f5-x2x9z")
        assert not re.fullmatch(pattern, "interest-0")


def test_it_reads_prometheus_where_the_network_rules_let_it_in(scaled: Rendered) -> None:
    """The server is of the namespace that may read /metrics."""
    (found,) = scaled.of_kind("ScaledObject")
    address = found["spec"]["triggers"][0]["metadata"]["serverAddress"]
    (rule,) = scaled.named("NetworkPolicy", "metrics")["spec"]["ingress"]
    namespace = rule["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]

    assert re.fullmatch(rf"http://[a-z-]+\.{namespace}\.svc:\d+", address)
