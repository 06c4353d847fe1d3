"""The environment of every pod against `streams.settings`, and the Kafka resources against `streams.topics`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from streams.cli import app
from streams.commands.resources import kafka_topics
from streams.settings import ENV_PREFIX, SECRETS, Settings
from streams.topics import TOPICS
from tests.support.rendered import DEPLOY, Rendered

KNOWN = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields} | {
    f"{ENV_PREFIX}{name.upper()}_FILE" for name in SECRETS
}


def settings_of(
    rendered: Rendered, name: str, monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> tuple[Settings, dict[str, str]]:
    """Load the settings as the pod does, with secret files put where this machine can have them."""
    environment = rendered.environment(name)
    for variable in [variable for variable in os.environ if variable.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(variable)
    for variable, value in environment.items():
        if variable.endswith("_PASSWORD_FILE"):
            path = secrets / variable
            path.write_text("from-a-file\n")
            monkeypatch.setenv(variable, str(path))
        elif variable.startswith(ENV_PREFIX):
            monkeypatch.setenv(variable, value)
    return Settings.from_env(), environment


def test_every_variable_is_a_setting(rendered: Rendered) -> None:
    """A misspelt variable would be ignored in silence; none is."""
    for name in rendered.containers():
        assert {variable for variable in rendered.environment(name) if variable.startswith(ENV_PREFIX)} <= KNOWN


def test_pods_load_their_settings(rendered: Rendered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The settings accept each pod's environment, and no pod is left on a default that means this machine."""
    for name in rendered.containers():
        settings, environment = settings_of(rendered, name, monkeypatch, tmp_path)

        assert settings.kafka_bootstrap == environment["FRESHET_KAFKA_BOOTSTRAP"]
        assert "127.0.0.1" not in f"{settings.kafka_bootstrap} {settings.redis_url} {settings.health_host}"
        # The root file system is read-only: what is written goes to /tmp, what is only read was put into the image.
        assert settings.state_dir.is_relative_to("/tmp")  # noqa: S108  # a path inside the pod
        assert (
            str(settings.cache_dir) in (DEPLOY / "Dockerfile").read_text().partition("\nFROM ")[2].partition("FROM")[0]
        )


def test_production_talks_in_secret(
    kustomized: dict[str, Rendered], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In production each role has its own Kafka user over TLS, and every password comes from a mounted file."""
    prod = kustomized["overlays/prod"]
    for name in prod.containers():
        settings, environment = settings_of(prod, name, monkeypatch, tmp_path)
        mounts = [mount["mountPath"] for mount in prod.containers()[name]["volumeMounts"]]

        assert settings.kafka_security_protocol == "SASL_SSL"
        assert settings.kafka_username == f"freshet-{name}"
        assert settings.kafka_password.get_secret_value() == "from-a-file"
        if name == "interest":
            assert settings.redis_url.startswith("rediss://")
            assert settings.redis_password.get_secret_value() == "from-a-file"
        for variable, path in environment.items():
            assert not variable.endswith("_PASSWORD")
            if path.startswith("/run/secrets/"):
                assert str(Path(path).parent) in mounts


def test_replicas_divide_the_partitions(
    kustomized: dict[str, Rendered], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each interest worker of production gets as many partitions as the next."""
    prod = kustomized["overlays/prod"]
    settings, _ = settings_of(prod, "interest", monkeypatch, tmp_path)

    assert settings.partitions % prod.named("StatefulSet", "interest")["spec"]["replicas"] == 0


def test_arguments_are_commands_of_freshet(rendered: Rendered) -> None:
    """What a pod runs is a command that `freshet` has."""
    for container in rendered.containers().values():
        assert "command" not in container  # the image's entry point is `freshet`
        result = CliRunner().invoke(app, [*container["args"], "--help"])

        assert result.exit_code == 0, container["args"]


def test_topics_of_kafka_are_those_of_the_code(
    kustomized: dict[str, Rendered], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """deploy/kafka/topics.yaml is what `freshet resources topics` writes for production."""
    settings, _ = settings_of(kustomized["overlays/prod"], "interest", monkeypatch, tmp_path)
    text = (DEPLOY / "kafka" / "topics.yaml").read_text()

    assert kafka_topics(settings, "kafka") == text
    topics: list[dict[str, Any]] = list(yaml.safe_load_all(text))
    assert [topic["spec"]["topicName"] for topic in topics] == list(TOPICS)
    for topic in topics:
        expected = TOPICS[topic["spec"]["topicName"]].kafka_config() | {"min.insync.replicas": "2"}

        assert {key: str(value) for key, value in topic["spec"]["config"].items()} == expected
        assert (topic["spec"]["partitions"], topic["spec"]["replicas"]) == (24, 3)
