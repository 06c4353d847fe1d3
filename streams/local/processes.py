"""
Child processes that outlive the command which started them: start, find again, stop.

Each gets its own session, so a Ctrl-C in the terminal reaches only the command, which then stops what it started
in the right order. A process is known by its pid together with its start time, so a reused pid is never
mistaken for ours.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from streams.errors import DependencyError

_POLL_S = 0.05

#: Below the range from which Linux and macOS take ports of outgoing connections, so a chosen port stays free.
_PORTS = range(15_000, 32_000)
#: The kernel may still be closing the sockets of a server that was killed a moment ago.
_PREFERRED_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Process:
    """
    One process, ours or an earlier command's.

    Attributes
    ----------
    pid
        Also its process group.
    started
        Start time as the system tells it; opaque, compared for equality only.
    log
        File that holds its stdout and stderr.

    """

    name: str
    pid: int
    started: str
    log: Path

    def alive(self) -> bool:
        """Return whether this very process still runs."""
        # A dead child of ours stays a zombie until it is waited for; one of an earlier command has another parent.
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return _start_time(self.pid) == self.started

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process group; nothing happens when the process is gone."""
        if self.alive():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def stop(self, timeout_s: float) -> None:
        """
        Send SIGTERM, wait, and send SIGKILL after `timeout_s`.

        Raises
        ------
        DependencyError
            When even SIGKILL does not end it within 10 s (a process stuck in the kernel).

        """
        self.signal(signal.SIGTERM)
        # A stopped process handles SIGTERM only once it continues.
        self.signal(signal.SIGCONT)
        if self.wait(timeout_s):
            return
        self.signal(signal.SIGKILL)
        if not self.wait(10.0):
            raise DependencyError(f"{self.name} (pid {self.pid}) does not end, not even by SIGKILL")

    def wait(self, timeout_s: float) -> bool:
        """Return whether the process ended within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def last_lines(self, count: int = 12) -> str:
        """Return the end of its log, for an error message."""
        return last_lines(self.log, count)


def spawn(name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Process:
    """
    Start a process in a session of its own, with stdout and stderr appended to `log`.

    Raises
    ------
    DependencyError
        When the program is not there or may not run.

    """
    log.parent.mkdir(parents=True, exist_ok=True)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        pid = os.posix_spawnp(
            command[0],
            list(command),
            dict(os.environ if env is None else env),
            file_actions=actions,
            setsid=True,
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
        )
    except OSError as error:
        raise DependencyError(f"{name} cannot be started: {command[0]}: {error.strerror}") from error
    return Process(name, pid, _start_time(pid) or "gone", log)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """
    Hold back Ctrl-C, SIGTERM and SIGHUP until the block ends, so that what it starts or stops is always written down.

    Outside the main thread Python delivers no signals, and nothing is held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda caught, _frame: received.append(caught)) or signal.SIG_DFL
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for caught in received:
            signal.raise_signal(caught)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, through its `except` and `finally` blocks."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _interrupt) or signal.SIG_DFL for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def last_lines(path: Path, count: int = 12) -> str:
    """Return the last `count` lines of a log; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-count:])
    except OSError:
        return ""


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do, so that connections of the last run in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port(preferred: int | None = None) -> int:
    """Return a port on 127.0.0.1 nobody listens on: `preferred` if it is free."""
    if preferred:
        for _ in range(_PREFERRED_ATTEMPTS):
            if _is_free(preferred):
                return preferred
            time.sleep(_POLL_S)
    # Where to look first is no secret; a random place keeps parallel test runs apart.
    for port in random.sample(_PORTS, 50):
        if _is_free(port):
            return port
    raise DependencyError("no free port was found on 127.0.0.1")


def _start_time(pid: int) -> str | None:
    """Return the start time of a live process; None when there is none or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None if Path("/proc/self/stat").exists() else _start_time_ps(pid)
    # The name in parentheses may hold spaces; the state follows it, the start time is the 22nd field (proc(5)).
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _start_time_ps(pid: int) -> str | None:
    """Return the same where there is no /proc, as on macOS."""
    command = ["ps", "-o", "state=,lstart=", "-p", str(pid)]
    text = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout.strip()  # noqa: S603  # fixed command line
    state, _, started = text.partition(" ")
    return None if not text or state.startswith("Z") else started.strip()
