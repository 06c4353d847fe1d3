"""
One real Redis on this machine, for `freshet up`, the demo and the tests: a cache without persistence.

It listens on 127.0.0.1 only.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import redis

from streams.errors import DependencyError
from streams.local.processes import Process, free_port, spawn, uninterrupted

_INSTALL_TIMEOUT_S = 300.0
#: Another process may take a chosen port before Redis binds it; then others are tried.
_ATTEMPTS = 3


class LocalRedis:
    """
    One Redis server, emptied by every start.

    Parameters
    ----------
    folder
        Holds its log; made when absent.
    port
        Preferred port; taken if free, else another. None takes any.

    """

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or 0
        self.process: Process | None = None

    @property
    def url(self) -> str:
        """Address for clients, once started."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, timeout_s: float = 20.0) -> None:
        """
        Start the server and return once it answers; after `stop` it comes back on the same port, empty.

        Raises
        ------
        DependencyError
            When there is no `redis-server` and it cannot be installed, or it does not answer in time.

        """
        server = redis_server()
        deadline = time.monotonic() + timeout_s
        for attempt in range(1, _ATTEMPTS + 1):
            self._launch(server)
            if self._answers(deadline):
                return
            assert self.process is not None
            lines = self.process.last_lines()
            self.stop()
            if "Address already in use" not in lines or attempt == _ATTEMPTS or time.monotonic() >= deadline:
                raise DependencyError(f"the local Redis did not start within {timeout_s:g} s:\n{lines}")

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the server with SIGTERM, with SIGKILL after `timeout_s`."""
        if self.process is not None:
            self.process.stop(timeout_s)
            self.process = None

    def kill(self) -> None:
        """End the server as a power cut would."""
        if self.process is not None:
            self.process.signal(signal.SIGKILL)
            self.process.wait(10.0)
            self.process = None

    def _launch(self, server: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port(self.port or None)
        command = [
            server, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
            "--save", "", "--appendonly", "no", "--maxmemory", "512mb", "--maxmemory-policy", "volatile-ttl",
        ]  # fmt: skip
        with uninterrupted():
            self.process = spawn("redis", command, self.folder / "redis.log")

    def _answers(self, deadline: float) -> bool:
        with redis.Redis(port=self.port, socket_timeout=1.0, socket_connect_timeout=1.0) as client:
            while time.monotonic() < deadline and self.process is not None and self.process.alive():
                try:
                    # Somebody else may listen there while ours failed to bind: ask for the process id.
                    return int(client.info("server")["process_id"]) == self.process.pid
                except redis.RedisError:
                    time.sleep(0.02)
        return False


def redis_server() -> str:
    """
    Return the path of `redis-server`, installing Debian's package when that is possible without a question.

    Raises
    ------
    DependencyError
        When it is absent and this user cannot install it.

    """
    if found := shutil.which("redis-server"):
        return found
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise DependencyError(
            "redis-server was not found; install it (package redis-server), "
            "or set FRESHET_REDIS_URL to use a Redis that runs already"
        )
    # RUNLEVEL=1 keeps the package from starting a system service of its own.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = [apt, "install", "-y", "-qq", "--no-install-recommends", "redis-server"]
    try:
        for command in ([apt, "update", "-qq"], install):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, env=env)  # noqa: S603  # fixed command line
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        output = str(error.stderr or error.stdout or error).strip()
        raise DependencyError(f"redis-server cannot be installed: {output.splitlines()[-1]}") from error
    if found := shutil.which("redis-server"):
        return found
    raise DependencyError("redis-server was installed and is still not on PATH")
