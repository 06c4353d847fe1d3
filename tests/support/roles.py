"""Roles as real processes, the way a pod runs them: started, asked for readiness, signalled, killed."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import SecretStr

from streams.local.processes import free_port
from streams.settings import ENV_PREFIX, Settings

#: A worker restores and joins its group in two to four seconds here; a loaded machine takes longer.
READY_S = 90.0


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment that says what `settings` says, and nothing else of Freshet's."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if value == Settings.model_fields[name].default or value is None:
            continue
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        elif isinstance(value, dict):
            value = ",".join(f"{key}={part}" for key, part in value.items())
        elif isinstance(value, tuple):
            value = ",".join(value)
        env[ENV_PREFIX + name.upper()] = str(value)
    return env


class RoleProcess:
    """One running role; stopped, and killed if it does not stop, at the end of its `with` block."""

    def __init__(
        self, role: str, settings: Settings, folder: Path, name: str = "", module: str = "streams.cli"
    ) -> None:
        self.port = free_port()
        self.log = folder / f"{name or role}.log"
        self._arguments = [sys.executable, "-m", module, role]
        self._environment = environment(settings) | {f"{ENV_PREFIX}HEALTH_PORT": str(self.port)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it, again if it ended before."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.alive:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        try:
            self.wait(40)
        except subprocess.TimeoutExpired:
            self.kill()
        if error is not None:
            print(f"--- {self.log.name}\n{self.tail(4_000)}")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process as started last."""
        assert self._process is not None
        return self._process

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it without a chance to say anything."""
        self.process.kill()
        self.process.wait()

    def wait(self, timeout_s: float) -> int:
        """Return its exit code once it has ended."""
        return self.process.wait(timeout_s)

    def tail(self, characters: int = 2_000) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    def get(self, path: str) -> tuple[int, str]:
        """Ask its health port; (0, "") while nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def ready(self, timeout_s: float = READY_S) -> Self:
        """Wait until /readyz says so; a role that ends meanwhile fails the test with its log."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if not self.alive:
                raise AssertionError(f"{self.log.name}: ended with {self.process.returncode}\n{self.tail()}")
            if self.get("/readyz")[0] == 200:
                return self
            time.sleep(0.1)
        raise AssertionError(f"{self.log.name}: not ready after {timeout_s} s: {self.get('/readyz')}\n{self.tail()}")

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that carry the labels."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith((f"{name}{{", f"{name} ")) and all(
                f'{key}="{value}"' in line for key, value in labels.items()
            ):
                total += float(line.rsplit(" ", 1)[1])
        return total
