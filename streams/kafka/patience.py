"""Calls of librdkafka that wait: resumed until a deadline, and given up where they would not come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

from confluent_kafka import KafkaException

from streams.errors import CommitError
from streams.kafka.deadline import Deadline
from streams.kafka.passing import passes

T = TypeVar("T")

#: One more try when a deadline has passed: a process that was stopped for a minute in the middle of a commit wakes
#: after its deadline, and this is how it hears that it was fenced instead of guessing that Kafka is away.
GRACE_S = 2.0
#: How long to wait before a question is asked again that a broker could not answer yet.
_RETRY_S = 0.1


def answered(question: Callable[[float], T], deadline: Deadline) -> T:
    """Ask, within a number of seconds, until a broker that has just started knows what it leads, or the deadline."""
    while True:
        try:
            return question(deadline.remaining_s())
        except KafkaException as error:
            if deadline.passed or not passes(error.args[0]):
                raise
            time.sleep(_RETRY_S)


def resumed(call: Callable[[float], object], deadline: Deadline) -> None:
    """Make a call that librdkafka lets one resume after a time-out, until the deadline and once beyond it."""
    while True:
        last = deadline.passed
        try:
            call(max(GRACE_S, deadline.remaining_s()))
        except KafkaException as error:
            if last or not error.args[0].retriable():
                raise
        else:
            return


def bounded(call: Callable[[], None], deadline: Deadline) -> None:
    """
    Make a call that may not return by itself.

    librdkafka's `send_offsets_to_transaction` ignores its timeout while the group's coordinator is away (librdkafka
    #5456). The thread is a daemon: one that never comes back must not keep a worker from ending.

    Raises
    ------
    CommitError
        When the call has not returned a little after the deadline.

    """
    outcome: SimpleQueue[Exception | None] = SimpleQueue()

    def run() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 -- raised again by the thread that waits
            outcome.put(error)
        else:
            outcome.put(None)

    threading.Thread(target=run, name="send-offsets", daemon=True).start()
    # Asked twice, as above: the grace begins when a stopped process is awake again.
    for timeout_s in (deadline.remaining_s(), 2 * GRACE_S):
        try:
            error = outcome.get(timeout=timeout_s)
        except Empty:
            continue
        if error is not None:
            raise error
        return
    raise CommitError("Kafka did not take the consumed offsets in time")
