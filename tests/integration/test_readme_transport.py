"""The README's ten-line app on the batched transport, run as it stands against a real Kafka, and killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streams.local.kafka import LocalKafka
from tests.support.stranger import PATIENCE_S, Broker

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
_PARTITIONS = 2


class Example:
    """The app of the README as processes; all append to one log."""

    def __init__(self, bootstrap: str, topic: str, folder: Path) -> None:
        (code,) = re.findall(
            r"^```python transport\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE
        )
        assert 10 == len([line for line in code.splitlines() if line])
        self.folder = folder
        (folder / "seen.py").write_text(code.replace("127.0.0.1:9092", bootstrap).replace('"clicks"', f'"{topic}"'))
        self._log = folder / "log"
        # Faust takes its settings from the environment too: the dead are missed after 6 s, not 60, and less is done
        # between two commits.
        self._environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "BROKER_SESSION_TIMEOUT": "6",
            "BROKER_HEARTBEAT_INTERVAL": "0.5",
            "BROKER_MAX_POLL_RECORDS": "20",
            "BROKER_COMMIT_INTERVAL": "0.5",
        }

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """One process; it is killed at the end unless it has ended."""
        # A Faust worker logs what is printed.
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "seen.py", "worker", "--without-web"],
                cwd=self.folder, env=self._environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def seen(self) -> list[tuple[int, int, str]]:
        """Partition, offset and value of every record printed so far."""
        text = self._log.read_text() if self._log.exists() else ""
        found = re.findall(r"(\d+) (\d+) b'(.*)' *$", text, flags=re.MULTILINE)
        return [(int(partition), int(offset), value) for partition, offset, value in found]

    def until_seen(self, values: set[str]) -> None:
        """Wait until every value was printed."""
        end = time.monotonic() + PATIENCE_S
        while missing := values - {value for _, _, value in self.seen()}:
            assert time.monotonic() < end, (
                f"{len(missing)} never seen, as {min(missing)!r}\n{(self.folder / 'log').read_text()[-3_000:]}"
            )
            time.sleep(0.1)


def test_the_ten_lines_see_every_record_whoever_is_killed(kafka: LocalKafka, tmp_path: Path) -> None:
    """
    Two members, one killed with -9 in the middle, then the other, then one that is started anew.

    Every record is printed at least once, each offset with its own value, and what was committed is not read again.
    """
    broker = Broker(kafka.bootstrap)
    topic = broker.topic(partitions=_PARTITIONS)
    example = Example(kafka.bootstrap, topic, tmp_path)
    sent: set[str] = set()

    def send(count: int) -> None:
        for partition in range(_PARTITIONS):
            values = [f"{partition}-{len(sent) + number}" for number in range(count)]
            broker.produce(topic, [value.encode() for value in values], partition)
            sent.update(values)

    with example.running() as first, example.running() as second:
        send(1_000)
        example.until_seen(set(sent))
        send(3_000)
        first.kill()
        send(1_000)
        example.until_seen(set(sent))
        second.kill()
    send(1_000)
    with example.running():
        example.until_seen(set(sent))
        time.sleep(2.0)
    committed = [broker.committed("clicks-seen", topic, partition) for partition in range(_PARTITIONS)]
    before = len(example.seen())
    with example.running():
        send(10)
        example.until_seen(set(sent))
    again = example.seen()[before:]

    assert [6_000, 6_000] == committed
    assert 2 * 10 == len(again)
    assert len({(partition, offset) for partition, offset, _ in example.seen()}) == len(sent)
