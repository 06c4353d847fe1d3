"""Child processes: known by pid and start time, stopped in time, never confused with others."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from streams.errors import DependencyError
from streams.local.processes import Process, free_port, last_lines, spawn, terminable, uninterrupted

_SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
_STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
]


def _spawn(tmp_path: Path, command: list[str]) -> Process:
    """Start it and wait for its first line."""
    process = spawn("it", command, tmp_path / "logs" / "it.log")
    deadline = time.monotonic() + 20
    while "up" not in last_lines(process.log) and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


def test_a_process_lives_in_its_own_session_until_stopped(tmp_path: Path) -> None:
    """It leads a session, so Ctrl-C of the terminal does not reach it; SIGTERM ends it."""
    process = _spawn(tmp_path, _SLEEP)

    assert process.alive()
    assert process.pid == os.getsid(process.pid)
    process.stop(10.0)
    assert not process.alive()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """After the deadline comes SIGKILL."""
    process = _spawn(tmp_path, _STUBBORN)
    started = time.monotonic()

    process.stop(0.2)

    assert not process.alive()
    assert 5 > time.monotonic() - started


def test_a_paused_process_can_be_stopped(tmp_path: Path) -> None:
    """A process under SIGSTOP handles SIGTERM because it is continued."""
    process = _spawn(tmp_path, _SLEEP)
    process.signal(signal.SIGSTOP)

    process.stop(10.0)

    assert not process.alive()


def test_a_reused_pid_is_somebody_else(tmp_path: Path) -> None:
    """The pid of a living process with another start time is not ours, and gets no signal."""
    me = Process("me", os.getpid(), "12345", tmp_path / "log")

    assert not me.alive()
    me.stop(0.0)


def test_a_missing_program_is_a_sentence(tmp_path: Path) -> None:
    """What cannot be started is named."""
    with pytest.raises(DependencyError, match="it cannot be started: /no/such/program: No such file"):
        spawn("it", ["/no/such/program"], tmp_path / "it.log")


def test_the_end_of_a_log_is_shown(tmp_path: Path) -> None:
    """The last lines are returned, damaged bytes included; a missing log is empty."""
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\nthr\xffee\n")

    assert "two\nthr\ufffdee" == last_lines(log, 2)
    assert "" == last_lines(tmp_path / "none")


def test_a_taken_port_is_not_given() -> None:
    """The preferred port is given when it is free, and another one when somebody listens on it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert port != free_port(port)

    assert port == free_port(port)


def test_signals_wait_until_the_block_ends() -> None:
    """Ctrl-C inside `uninterrupted` comes after it."""
    steps: list[str] = []

    def work() -> None:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            steps.append("done")
        steps.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        work()

    assert ["done"] == steps


def test_in_other_threads_nothing_is_held_back() -> None:
    """Only the main thread gets signals; elsewhere the block just runs."""
    ran: list[bool] = []

    def work() -> None:
        with uninterrupted():
            ran.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert [True] == ran


def test_sigterm_ends_a_command_like_ctrl_c() -> None:
    """Inside `terminable` SIGTERM raises what Ctrl-C raises, and the old handler comes back."""
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with terminable():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        work()

    assert before == signal.getsignal(signal.SIGTERM)
