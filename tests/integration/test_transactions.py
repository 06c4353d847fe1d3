"""One partition's transactional producer against a real Kafka: who is fenced hears that it was fenced."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from streams.errors import FencedError
from streams.kafka.deadline import Deadline
from streams.kafka.outgoing import OutRecord
from streams.kafka.transactions import PartitionTransactions
from streams.settings import Settings
from streams.topics import full_name
from tests.support.roles import environment
from tests.support.verifier import read_topic

pytestmark = pytest.mark.integration

_GROUP = "zombies"


@contextmanager
def opened(settings: Settings) -> Iterator[PartitionTransactions]:
    """An owner of partition 0, its transaction begun."""
    transactions = PartitionTransactions(settings, _GROUP, 0, full_name(settings, "user-state"))
    transactions.open(Deadline(30))
    try:
        yield transactions
    finally:
        transactions.close()


@pytest.mark.parametrize("hears_late", [False, True])
def test_a_fenced_owner_is_told_so_whichever_call_meets_it(
    settings_for: Callable[..., Settings], *, hears_late: bool
) -> None:
    """Fenced in a request under way, librdkafka answers `produce` with a bare fatal error: still `FencedError`."""
    settings = settings_for(partitions=1)
    record = OutRecord(full_name(settings, "user-state"), b"u1", b"of a zombie", 0)
    with opened(settings) as zombie, opened(settings):
        zombie.produce([record])
        if hears_late:
            # linger is 1 ms: by now the request was refused and the producer is broken for good.
            time.sleep(1.5)

        with pytest.raises(FencedError, match="partition 0 was taken by another worker"):
            zombie.commit([record], {full_name(settings, "clicks"): 1}, Deadline(10))

    assert [] == read_topic(settings, "user-state")


@pytest.mark.parametrize("taken", [True, False])
def test_who_slept_longer_than_its_transaction_may_hears_that_it_is_over(
    settings_for: Callable[..., Settings], *, taken: bool
) -> None:
    """By its own clock its records timed out; whether or not somebody took the partition, it drops and lives on."""
    settings = settings_for(partitions=1)
    timeout_ms = 2_000
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.sleeper", str(timeout_ms), _GROUP],
        env=environment(settings),
        stdout=subprocess.PIPE,
        text=True,
    ) as sleeper:
        assert sleeper.stdout is not None
        assert "stopping\n" == sleeper.stdout.readline()
        if taken:
            with opened(settings) as heir:
                heir.commit([OutRecord(full_name(settings, "user-state"), b"u0", b"of the heir", 0)], {}, Deadline(10))
        time.sleep(2 * timeout_ms / 1000)
        sleeper.send_signal(signal.SIGCONT)
        told, _ = sleeper.communicate(timeout=60)

    assert "FencedError" == told.splitlines()[-1]
    kept = [b"of the owner", b"of the heir"][: 1 + taken]
    assert kept == [read.value for read in read_topic(settings, "user-state")]


def test_the_changelogs_end_tells_whether_anybody_else_has_written(settings_for: Callable[..., Settings]) -> None:
    """An owner knows where its commits left the changelog; the next one finds it there, and moves it by writing."""
    settings = settings_for(partitions=1)
    changelog = full_name(settings, "user-state")
    other = full_name(settings, "dead-letters")
    with opened(settings) as first:
        assert (0, 0) == first.changelog_bounds(Deadline(10))

        first.commit([OutRecord(changelog, b"u1", b"1", 0), OutRecord(changelog, b"u2", b"1", 0)], {}, Deadline(10))
        left = first.changelog_end
        # Neither what other topics get nor what is never committed moves it.
        first.commit([OutRecord(other, b"t", b"y")], {}, Deadline(10))
        first.produce([OutRecord(other, b"t", b"z")])

        assert 3 == left == first.changelog_end

    with opened(settings) as second:
        assert (0, left) == second.changelog_bounds(Deadline(10))

        second.commit([OutRecord(changelog, b"u1", b"2", 0)], {}, Deadline(10))
        moved = second.changelog_end

    # Asked by the next owner: a commit returns before its marker is in the log, and opening waits for that.
    with opened(settings) as third:
        assert (0, moved) == third.changelog_bounds(Deadline(10))
        assert left != moved
