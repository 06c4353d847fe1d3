"""deploy/compose.yaml says what the code understands: settings, roles, the same Kafka as the local one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from streams.cli import app
from streams.local.kafka import POM
from streams.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file as YAML, anchors resolved."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def _ours(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in compose["services"].items() if "freshet" in service["image"]}


def test_every_variable_is_a_setting(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each FRESHET_ variable names a setting and has a value it accepts."""
    for service in _ours(compose).values():
        for name, value in service["environment"].items():
            assert name.removeprefix(ENV_PREFIX).lower() in Settings.model_fields
            monkeypatch.setenv(name, value)
        Settings.from_env()


def test_the_three_roles_run_after_the_topics(compose: dict[str, Any]) -> None:
    """Worker, encoder and signals each run once, and start when `topics create` has ended well."""
    roles = {name: service for name, service in _ours(compose).items() if name != "topics"}

    assert {"worker", "encoder", "signals"} == set(roles)
    for name, service in roles.items():
        assert [name] == service["command"]
        assert "service_completed_successfully" == service["depends_on"]["topics"]["condition"]
        assert service["read_only"]


def test_commands_exist(compose: dict[str, Any]) -> None:
    """Every container of ours runs a command that `freshet` has."""
    commands = set(getattr(get_command(app), "commands"))  # noqa: B009 -- only a group has it

    assert {service["command"][0] for service in _ours(compose).values()} <= commands


def test_kafka_is_the_version_of_the_local_one(compose: dict[str, Any]) -> None:
    """People with Docker run the same Kafka as `freshet up`, with the same limits."""
    found = re.search(r"kafka_2\.13</artifactId>\s*<version>([^<]+)<", POM.read_text(encoding="utf-8"))
    kafka = compose["services"]["kafka"]

    assert found is not None
    assert f"apache/kafka:{found[1]}" == kafka["image"]
    assert "false" == kafka["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"]
    assert "2097152" == kafka["environment"]["KAFKA_MESSAGE_MAX_BYTES"]


def test_ports_are_open_to_this_machine_only(compose: dict[str, Any]) -> None:
    """Nothing without a password listens on the network."""
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
