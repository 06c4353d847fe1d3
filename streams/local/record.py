"""
What `freshet up` started, on disk: `stack.json` in the state folder, so that `status` and `down` find it again.

Written in one rename after every start, before anything is waited for.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from streams.errors import ConfigurationError
from streams.local.processes import Process
from streams.settings import Settings


@dataclass(frozen=True, slots=True)
class Service:
    """
    One process of the local stack.

    Attributes
    ----------
    port
        Where Kafka or Redis listens; of a role, its health port.
    options
        Digest of the settings a role runs with; empty for Kafka and Redis.

    """

    process: Process
    port: int
    options: str = ""


@dataclass(slots=True)
class Record:
    """Addresses in use and the processes behind them, by name; an external Kafka or Redis has no process."""

    kafka_bootstrap: str = ""
    redis_url: str = ""
    services: dict[str, Service] = field(default_factory=dict)

    def running(self, name: str) -> Service | None:
        """Return the service if its process still lives."""
        service = self.services.get(name)
        return service if service is not None and service.process.alive() else None

    def save(self, settings: Settings) -> None:
        """Replace `stack.json`."""
        path = _path(settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".new")
        scratch.write_bytes(orjson.dumps(asdict(self), default=str, option=orjson.OPT_INDENT_2))
        scratch.replace(path)


def load(settings: Settings) -> Record:
    """
    Return the record of the state folder; an empty one when there is none.

    Raises
    ------
    ConfigurationError
        When the file is damaged.

    """
    path = _path(settings)
    try:
        fields = orjson.loads(path.read_bytes())
        services = {name: _service(entry) for name, entry in fields["services"].items()}
        return Record(fields["kafka_bootstrap"], fields["redis_url"], services)
    except FileNotFoundError:
        return Record()
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error}); stop the processes by hand and remove it"
        ) from error


def addresses(settings: Settings) -> dict[str, str]:
    """
    Return `kafka_bootstrap` and `redis_url` of the local stack as far as it runs and the settings name no other.

    So `freshet inspect` in another terminal finds what `freshet up` started.
    """
    unset = {"kafka_bootstrap", "redis_url"} - settings.model_fields_set
    if not unset:
        return {}
    record = load(settings)
    found = {}
    if "kafka_bootstrap" in unset and record.running("kafka"):
        found["kafka_bootstrap"] = record.kafka_bootstrap
    if "redis_url" in unset and record.running("redis"):
        found["redis_url"] = record.redis_url
    return found


@contextmanager
def lock(settings: Settings) -> Iterator[None]:
    """
    Hold the state folder, so that two commands do not start or stop the same stack at once.

    Raises
    ------
    ConfigurationError
        When another command holds it.

    """
    path = _path(settings).with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise ConfigurationError(f"FRESHET_STATE_DIR={settings.state_dir} is not usable: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"another freshet command is starting or stopping the stack in {settings.state_dir}; wait for it"
            ) from None
        yield


def _path(settings: Settings) -> Path:
    return settings.state_dir / "stack.json"


def _service(entry: dict[str, Any]) -> Service:
    process = entry["process"]
    return Service(
        Process(process["name"], process["pid"], process["started"], Path(process["log"])),
        entry["port"],
        entry["options"],
    )
