"""
A process that owns partition 0 of a group, stops itself in the middle of a transaction, and tells how its commit ends.

`python -m tests.support.sleeper TRANSACTION_TIMEOUT_MS GROUP`, with the settings in its environment; whoever started it
sends SIGCONT. Its last line of output is the name of the error that the commit raised, or `committed`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from unittest.mock import patch

from streams.errors import BrokenTransactionError
from streams.kafka import transactions
from streams.kafka.deadline import Deadline
from streams.kafka.outgoing import OutRecord
from streams.kafka.transactions import PartitionTransactions
from streams.settings import Settings
from streams.topics import full_name

#: More than one request holds, so that some are still here when the process stops.
_RECORDS = 5_000


def commit_after_sleep(settings: Settings, group: str) -> None:
    """Commit once, begin a second transaction, stop, and commit it after waking."""
    changelog, clicks = full_name(settings, "user-state"), full_name(settings, "clicks")
    owner = PartitionTransactions(settings, group, 0, changelog)
    owner.open(Deadline(30))
    owner.commit([OutRecord(changelog, b"u0", b"of the owner", 0)], {clicks: 1}, Deadline(10))
    owner.produce([OutRecord(changelog, b"u%d" % number, b"of a zombie", 0) for number in range(_RECORDS)])
    print("stopping", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    with suppress(BrokenTransactionError):
        # As long as the client takes to find out what it missed.
        for _ in range(20):
            owner.produce([OutRecord(changelog, b"u0", b"of a zombie", 0)])
            time.sleep(0.1)
    owner.commit([], {clicks: 2}, Deadline(10))


if __name__ == "__main__":
    with patch.object(transactions, "_TRANSACTION_TIMEOUT_MS", int(sys.argv[1])):
        try:
            commit_after_sleep(Settings(), sys.argv[2])
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is the answer
            print(type(error).__name__, flush=True)
        else:
            print("committed", flush=True)
