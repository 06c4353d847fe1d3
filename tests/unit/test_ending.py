"""A process that is told to end ends in time, with the code that says why."""

from __future__ import annotations

import subprocess
import sys
import time

_STUCK = """
import threading, time
from streams.kafka.ending import end_within

threading.Thread(target=time.sleep, args=(600,)).start()
end_within({seconds}, lambda: 4)
"""
_QUICK = """
from streams.kafka.ending import end_within

end_within(600, lambda: 4)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_a_thread_that_never_ends_does_not_keep_the_process() -> None:
    """After the time given the process is gone with its code and a sentence."""
    started = time.monotonic()
    ended = run(_STUCK.format(seconds=0.5))

    assert 4 == ended.returncode
    assert "ended by force" in ended.stderr
    assert time.monotonic() - started < 30


def test_a_process_that_ends_by_itself_is_left_alone() -> None:
    """The last resort keeps nobody waiting."""
    assert 0 == run(_QUICK).returncode
