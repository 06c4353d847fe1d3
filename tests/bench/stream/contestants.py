"""Who takes part: how each is started, what it claims, and where the state it has made lies."""

from __future__ import annotations

import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.bench.stream.broker import Bench, StateRead, read_state
from tests.bench.stream.installs import peers_python, streams_jars
from tests.bench.stream.job import USER_ID, user_id
from tests.bench.stream.meter import running_on
from tests.bench.stream.peer import Task

_PEERS = Path(__file__).parent / "peers"
_ROOT = Path(__file__).parents[3]
_STOP_S = 30.0
_USER_BYTES = USER_ID.stop - USER_ID.start

#: What a consumer does: `decode` reads JSON and nothing else, `state` is the whole job.
Job = Literal["decode", "state"]


@dataclass(frozen=True)
class Contestant:
    """
    One peer in one variant.

    Attributes
    ----------
    command
        Makes the command line.
    changelog
        Makes the name of the topic that holds its state; None for `decode`.
    commits
        It commits offsets to Kafka; otherwise it tells `Progress`.
    exactly_once
        It claims that its state is right after a crash as well, and is killed to see.
    short
        Too slow for the long log: it is measured on a tenth of it.

    """

    name: str
    variant: str
    command: Callable[[Bench], list[str]]
    job: Job = "state"
    changelog: Callable[[Task], str] | None = None
    commits: bool = True
    exactly_once: bool = False
    short: bool = False

    @property
    def records(self) -> tuple[str, ...]:
        """The kinds of record it is run with."""
        return ("vector", "compact") if self.job == "state" else ("none",)

    def state(self, bench: Bench, task: Task) -> StateRead:
        """Read back what it has made durable, by user id."""
        if self.changelog is None:
            return _snapshots(task)
        found = read_state(bench, self.changelog(task))
        # Quix writes `user|"name"`; ids have one length here.
        return StateRead({key[:_USER_BYTES]: value for key, value in found.last.items()}, found.bytes_per_record)


class PeerProcess:
    """A peer that runs on the consumer's core."""

    def __init__(self, command: list[str], task: Task, log: Path, core: int) -> None:
        task.folder.mkdir(parents=True, exist_ok=True)
        environment = os.environ | task.environment() | {"PYTHONPATH": str(_ROOT)}
        self._log = log
        with log.open("ab") as out, running_on({core}):
            self._process = subprocess.Popen(
                command, env=environment, cwd=task.folder, stdout=out, stderr=subprocess.STDOUT
            )

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it without a chance to say anything."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it as an operator would."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def tail(self) -> str:
        """Return the end of what it said."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-2_000:]


def _ours(module: str) -> Callable[[Bench], list[str]]:
    return lambda _: [sys.executable, "-m", f"tests.bench.stream.peers.{module}"]


def _theirs(module: str) -> Callable[[Bench], list[str]]:
    return lambda bench: [str(peers_python(bench.cache_dir)), "-m", f"tests.bench.stream.peers.{module}"]


def _java(bench: Bench) -> list[str]:
    # Room for the caches and for RocksDB beside the heap; on one core Java takes its serial collector by itself.
    return [
        "java", "-Xms2g", "-Xmx3g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp", f"{streams_jars(bench.cache_dir)}/*", str(_PEERS / "KafkaStreamsPeer.java"),
    ]  # fmt: skip


def _own(task: Task) -> str:
    return task.changelog


def _table(task: Task) -> str:
    return f"{task.group}-state-changelog"


def _quix(task: Task) -> str:
    return f"changelog__{task.group}--{task.topic}--default"


def _snapshots(task: Task) -> StateRead:
    """Read Bytewax's SQLite snapshots; the newest of a key is what it resumes from."""
    last: dict[bytes, bytes] = {}
    written = size = 0
    for path in (task.folder / "snapshots").glob("*.sqlite3"):
        with sqlite3.connect(path) as database:
            rows = database.execute(
                "SELECT state_key, ser_change FROM snaps WHERE ser_change IS NOT NULL ORDER BY snap_epoch"
            )
            for key, change in rows:
                written += 1
                size += len(key) + len(change)
                if len(key) == len(user_id(0)):  # the others are the source's offsets
                    last[key.encode()] = pickle.loads(change)  # noqa: S301 -- Bytewax's own format, written by this run
    return StateRead(last, size / max(1, written))


_STREAMS = [
    Contestant(
        f"Kafka Streams, {store}, {guarantee}", f"{store},{guarantee}", _java,
        changelog=_table, exactly_once=guarantee == "exactly_once_v2",
    )
    for store in ("rocksdb", "memory")
    for guarantee in ("at_least_once", "exactly_once_v2")
]  # fmt: skip
_QUIX = [
    Contestant(
        f"Quix Streams, {guarantee}", guarantee, _theirs("quix_app"),
        changelog=_quix, exactly_once=guarantee == "exactly-once",
    )
    for guarantee in ("at-least-once", "exactly-once")
]  # fmt: skip

#: Every peer; Freshet itself is not started like them and stands in `freshet`.
PEERS: tuple[Contestant, ...] = (
    Contestant("aiokafka, decode only", "decode", _ours("aiokafka_client"), job="decode", commits=False),
    Contestant("confluent-kafka, decode only", "decode", _ours("confluent_client"), job="decode", commits=False),
    Contestant("Faust, event by event, decode only", "event", _ours("faust_app"), "decode", commits=False, short=True),
    Contestant("Faust, take, decode only", "take", _ours("faust_app"), "decode", commits=False, short=True),
    Contestant("aiokafka", "state", _ours("aiokafka_client"), changelog=_own),
    Contestant("confluent-kafka", "state", _ours("confluent_client"), changelog=_own),
    Contestant("Faust, table", "table", _ours("faust_app"), changelog=_table, short=True),
    *_QUIX,
    Contestant("Bytewax", "state", _theirs("bytewax_flow"), commits=False, exactly_once=True),
    *_STREAMS,
)

#: The rows that the bars are about.
KEYED_RIVALS = tuple(peer.name for peer in PEERS if peer.name.startswith(("Kafka Streams", "Quix", "Bytewax")))
FAUST_TABLE = "Faust, table"
BARE_DECODE = "aiokafka, decode only"
