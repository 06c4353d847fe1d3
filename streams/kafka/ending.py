"""The last resort of a process that is told to end: it ends in time, even when a client never comes back."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import structlog

_LOG = structlog.get_logger(__name__)


def end_within(seconds: float, exit_code: Callable[[], int]) -> None:
    """
    End this process by force after so long, unless it has ended by itself; may be called from any thread.

    librdkafka's, aiokafka's and Faust's threads may wait for a broker that is gone, some of them a minute, some for
    ever, and the interpreter waits for its threads. By then everything that can be committed has been.
    """

    def end() -> None:
        code = exit_code()
        _LOG.error("end_forced", seconds=seconds, exit_code=code)
        print("freshet: a client did not let go in time; the process was ended by force", file=sys.stderr)  # noqa: T201 -- the last word
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
