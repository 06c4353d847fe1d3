"""The local stack as people use it: started once, found again, interrupted at any moment, stopped."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.errors import ConfigurationError, DependencyError
from streams.kafka.admin import check_topics
from streams.local import record
from streams.local.kafka import LocalKafka
from streams.local.stack import Stack
from streams.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Settings]:
    """Settings that name no Kafka and no Redis, on an empty state folder; what runs there is stopped at the end."""
    settings = Settings(state_dir=tmp_path / "state", partitions=2)
    yield settings
    Stack(settings).down()


def _pids(settings: Settings) -> dict[str, int]:
    return {name: service.process.pid for name, service in record.load(settings).services.items()}


def _alive(settings: Settings) -> list[str]:
    return [name for name, service in record.load(settings).services.items() if service.process.alive()]


def test_up_starts_once_and_down_stops_everything(local: Settings) -> None:
    """A second `up` reuses every process, another terminal finds the addresses, `down` leaves nothing running."""
    stack = Stack(local)
    stack.up(roles=("signals",))
    first = _pids(local)
    Stack(local).up(roles=("signals",))

    assert first == _pids(local)
    assert {"kafka", "redis", "signals"} == set(first)
    assert ["ready"] * 3 == [one.state for one in stack.readiness()]
    settings = stack.settings
    expected = {"kafka_bootstrap": settings.kafka_bootstrap, "redis_url": settings.redis_url}
    assert expected == record.addresses(local)
    assert [] == check_topics(settings)

    Stack(local).up(roles=("signals",), options={"signals": {"FRESHET_SIGNALS_PUBLISH_INTERVAL_S": "2"}})

    assert first["kafka"] == _pids(local)["kafka"]
    assert first["signals"] != _pids(local)["signals"]
    assert ["kafka", "redis", "signals"] == Stack(local).down()
    assert [] == _alive(local)
    assert {} == record.addresses(local)


def test_a_role_that_cannot_start_is_told_with_its_log(local: Settings) -> None:
    """The error has the role's own last words, and what `up` had started is stopped again."""
    options = {"worker": {"FRESHET_EXPERIMENTS_FILE": "/no/such/file.json"}}

    with pytest.raises(
        DependencyError, match=r"(?s)the worker has ended; the end of .*worker\.log.*/no/such/file\.json"
    ):
        Stack(local).up(roles=("worker",), options=options)

    assert [] == _alive(local)


def test_services_that_the_settings_name_are_used_and_never_stopped(
    settings_for: Callable[..., Settings], kafka: LocalKafka, tmp_path: Path
) -> None:
    """With an existing Kafka and Redis only roles are started, and `down` leaves those two alone."""
    settings = settings_for(partitions=2, state_dir=tmp_path)
    stack = Stack(settings)
    stack.up(roles=())

    assert [] == stack.down()
    assert kafka.process is not None
    assert kafka.process.alive()
    assert {} == _pids(settings)


def test_two_commands_do_not_start_the_same_stack(local: Settings) -> None:
    """The second is told to wait."""
    with record.lock(local), pytest.raises(ConfigurationError, match="another freshet command is starting or stopping"):
        Stack(local).up(roles=())


def test_a_damaged_record_is_a_sentence(local: Settings) -> None:
    """A stack.json that cannot be read is named, and nothing is started beside what may run."""
    local.state_dir.mkdir(parents=True)
    (local.state_dir / "stack.json").write_text("{", encoding="utf-8")

    with pytest.raises(ConfigurationError, match=r"stack\.json cannot be read"):
        Stack(local)

    (local.state_dir / "stack.json").unlink()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_leaves_nothing_running(local: Settings, number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM at a random moment of starting ends the command with 130 and stops all it had started."""
    after_s = random.SystemRandom().uniform(0.5, 20.0)
    print(f"interrupted after {after_s:.2f} s")
    env = {**os.environ, "FRESHET_STATE_DIR": str(local.state_dir), "FRESHET_CACHE_DIR": str(local.cache_dir)}
    command = subprocess.Popen(
        [sys.executable, "-P", "-m", "streams.cli", "up"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    # Before the imports are through, Python itself ends at a signal, with nothing started.
    time.sleep(after_s)
    command.send_signal(number)
    _, told = command.communicate(timeout=120)

    assert command.returncode in ({130} if b"starting" in told else {130, -number})
    assert [] == _alive(local)
    # A Kafka still being waited for is not in the record yet: look at the processes themselves.
    assert [] == _processes_naming(local.state_dir)


def _processes_naming(folder: Path) -> list[str]:
    """Return the command lines of processes that have the folder in their arguments or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            arguments, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in arguments + environment:
            found.append(arguments.decode(errors="replace"))
    return found
