"""
The `stream` benchmark: every contestant does the same job, alone on one core, beside the same broker.

1. The log is in the topic before a contestant starts, so that it is never waited for. (Freshet with lists is the
   exception: lists are made for live events, so its log comes while it runs.)
2. Between two marks of its progress, far from start and end, wall time and CPU time are read.
3. At the end of the log its durable state is read back and held against the oracle; so are the vectors in memory of
   those whose record holds none.
4. Who claims exactly once is also killed with SIGKILL in the middle of a shorter log, and judged the same.

A contest that must end in time first tries every peer on a shorter log. Only those that a ratio can rest on, because
they come near the best, run over the long one, the best first; the others are told by their trial. The rows say how
many events were measured, and how often.
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from streams.errors import FreshetError
from streams.topics import full_name
from tests.bench.stream import broker, freshet, job
from tests.bench.stream.contestants import BARE_DECODE, FAUST_TABLE, KEYED_RIVALS, PEERS, Contestant, PeerProcess
from tests.bench.stream.job import LOGS
from tests.bench.stream.meter import Commits, cores, follow, rates, running_on
from tests.bench.stream.oracle import READERS, Oracle
from tests.bench.stream.peer import Progress, Task
from tests.bench.stream.records import sample_of

#: A short log is a tenth of the long one: for killing, and for who would take hours. A trial of those takes a fifth.
_SHORT = 10
_SHORTER = 5
#: A keyed rival below this part of the best one's trial will not be the best on the long log either.
_NEAR_THE_BEST = 0.8
#: The killed run dies here: part of the log is committed and part is not.
_KILL_AT = 0.4
#: Five commit intervals, for a peer whose commits nobody sees.
_SETTLE_S = 5 * job.COMMIT_S
#: What a run takes beside its events, for the estimate: to start, to settle, to read the state back.
_START_S = 25.0


class Size(NamedTuple):
    """Records of a log, and the two between which a contestant is measured."""

    first: int
    last: int
    records: int

    def short(self) -> Size:
        """Return a tenth of it."""
        return Size(*(number // _SHORT for number in self))

    def shorter(self) -> Size:
        """Return a fifth of a tenth: enough to measure who is slow."""
        return Size(*(number // _SHORTER for number in self.short()))


FULL = Size(1_000_000, 6_000_000, 6_500_000)
QUICK = Size(100_000, 600_000, 650_000)


class Outcome(NamedTuple):
    """What one run gave; `wrong` names what was not as the oracle says."""

    events_per_s: float
    events_per_cpu_s: float
    bytes_per_record: float
    wrong: list[str]


@dataclass(frozen=True)
class Ground:
    """What all runs share: services, cores, item vectors, and the logs in their topics with their oracles."""

    bench: broker.Bench
    size: Size
    core: int
    table: job.Float32
    table_file: Path
    oracles: dict[tuple[str, Size], Oracle]

    def topic(self, log: str, size: Size) -> str:
        """Return the name of the topic that holds a log."""
        return f"log-{log}-{size.records}"


@contextmanager
def ground(size: Size, logs: Sequence[str]) -> Iterator[Ground]:
    """Start the services on the other cores, write the logs, work out what must come of them."""
    core, others = cores()
    table = job.item_vectors()
    with running_on(others), broker.services() as bench:
        table_file = bench.folder / "items.f32"
        table.tofile(table_file)
        made = Ground(bench, size, core, table, table_file, {})
        for log, part in itertools.product(logs, (size, size.short(), size.shorter())):
            made.oracles[log, part] = Oracle(job.whole(log, part.records), table)
            broker.create(bench, made.topic(log, part))
            broker.produce_log(bench, made.topic(log, part), log, part.records)
        yield made


_numbers = itertools.count(1)


def run_peer(ground: Ground, peer: Contestant, log: str, size: Size, record: str, *, kill: bool = False) -> Outcome:
    """Run one peer once over one log; with `kill` it dies in the middle and starts again."""
    bench = ground.bench
    group = f"b{next(_numbers)}-{peer.variant.replace(',', '-').replace('_', '-')}"
    folder = bench.folder / group
    folder.mkdir()
    task = Task(
        bootstrap=bench.bootstrap, topic=ground.topic(log, size), group=group, changelog=f"{group}-changelog",
        record=record, variant=peer.variant, partitions=job.PARTITIONS, commit_s=job.COMMIT_S,
        table_file=ground.table_file, progress_file=folder / "progress", sample_file=folder / "sample.f32",
        folder=folder / "state",
    )  # fmt: skip
    if peer.changelog is not None and peer.changelog(task) == task.changelog:
        broker.create(bench, task.changelog, compact=True)
    commits = Commits(bench.bootstrap, group, task.topic, job.PARTITIONS) if peer.commits else None
    progress = Progress(task.progress_file)
    read = commits.read if commits else lambda: progress.read()[0]
    command = peer.command(bench)

    def start() -> PeerProcess:
        return PeerProcess(command, task, bench.folder / f"{group}.log", ground.core)

    process = start()
    try:
        if kill:
            follow((round(_KILL_AT * size.records),), read, process.pid, process.alive)
            process.kill()
            process = start()
        marks = follow(size, read, process.pid, process.alive)
        if peer.job == "state" and not peer.commits:
            # Its position is ahead of what it has made durable.
            time.sleep(_SETTLE_S)
        process.stop()
        oracle = ground.oracles[log, size]
        if peer.job == "decode":
            wrong = [] if progress.read() == oracle.checksum() else [f"read {progress.read()}, not {oracle.checksum()}"]
            return Outcome(**rates(marks), bytes_per_record=0.0, wrong=wrong)
        state = peer.state(bench, task)
        wrong = oracle.wrong(state.last, READERS[record])
        if record == "compact" and not kill:  # after a restart memory holds the newest events only
            wrong += oracle.memory_wrong(sample_of(task.sample_file))
        return Outcome(**rates(marks), bytes_per_record=state.bytes_per_record, wrong=wrong)
    except (RuntimeError, FreshetError) as error:
        raise RuntimeError(f"{error}\n{process.tail()}") from error
    finally:
        process.kill()
        if commits is not None:
            commits.close()
        broker.remove(bench, group)
        shutil.rmtree(folder)


def run_freshet(ground: Ground, log: str, size: Size, *, lists: bool, kill: bool = False) -> Outcome:
    """Run the worker once over one log, in a namespace of its own."""
    bench = ground.bench
    settings = freshet.settings_of(bench, lists=lists, commit_interval_s=job.COMMIT_S)
    clicks = full_name(settings, "clicks")
    freshet.stock(settings, ground.table)
    if not lists:
        broker.produce_log(bench, clicks, log, size.records)
    commits = Commits(bench.bootstrap, settings.group("interest"), clicks, job.PARTITIONS)
    with freshet.working(settings, bench.folder, ground.core, settings.namespace) as worker:
        try:
            if lists:
                worker.ready()
                broker.produce_log(bench, clicks, log, size.records)
            pid = worker.process.pid
            if kill:
                follow((round(_KILL_AT * size.records),), commits.read, pid, lambda: worker.alive)
                worker.kill()
                with running_on({ground.core}):
                    worker.start()
                pid = worker.process.pid
            marks = follow(size, commits.read, pid, lambda: worker.alive)
        finally:
            commits.close()
    state = broker.read_state(bench, full_name(settings, "user-state"))
    wrong = ground.oracles[log, size].wrong(freshet.users_of(state.last), freshet.reader(ground.table))
    broker.remove(bench, settings.topic_prefix)
    return Outcome(**rates(marks), bytes_per_record=state.bytes_per_record, wrong=wrong)


def _row(name: str, log: str, record: str, size: Size, outcomes: Sequence[Outcome], wrong: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "log": log,
        "record": record,
        "measured": size.last - size.first,
        "runs": len(outcomes),
        "events_per_s": round(statistics.median(outcome.events_per_s for outcome in outcomes)),
        "events_per_cpu_s": round(statistics.median(outcome.events_per_cpu_s for outcome in outcomes)),
        "bytes_per_record": round(outcomes[0].bytes_per_record),
        "correct": not wrong,
    }


class Rows:
    """The rows so far, and what went wrong; told as they come, because a whole contest takes hours."""

    def __init__(self, on_row: Callable[[dict[str, Any]], None], tell: Callable[[str], None]) -> None:
        self.rows: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.tell = tell
        self._on_row = on_row

    @contextmanager
    def kept(self, name: str, log: str) -> Iterator[None]:
        """Note that a contestant failed, and let the others run."""
        try:
            yield
        except (RuntimeError, AssertionError, FreshetError) as error:
            self.failures.append(f"{name}, {log}: {error}")

    def add(self, row: dict[str, Any], wrong: Sequence[str]) -> None:
        """Take a row."""
        self.rows.append(row)
        self.failures += [f"{row['name']}, {row['log']}: {sentence}" for sentence in wrong[:3]]
        self._on_row(row)


@dataclass
class Trial:
    """A peer's first run with each kind of record: the kind that it takes, and how long a log it is measured on."""

    peer: Contestant
    log: str
    size: Size
    outcomes: dict[str, Outcome]

    @property
    def best(self) -> str:
        """The kind of record with which it gets furthest."""
        return max(self.outcomes, key=lambda record: self.outcomes[record].events_per_cpu_s)

    @property
    def events_per_cpu_s(self) -> float:
        """With that kind."""
        return self.outcomes[self.best].events_per_cpu_s

    def seconds(self, size: Size, runs: int) -> float:
        """Return about how long more runs over a log will take."""
        return runs * (_START_S + size.records / self.outcomes[self.best].events_per_s)


def _tried(ground: Ground, peer: Contestant, log: str, size: Size) -> Trial:
    return Trial(peer, log, size, {record: run_peer(ground, peer, log, size, record) for record in peer.records})


def _contend(ground: Ground, trial: Trial, size: Size, runs: int, rows: Rows) -> None:
    """Run a peer with the better kind of record until there are enough runs over a log of this size."""
    peer, log, best = trial.peer, trial.log, trial.best
    outcomes = [trial.outcomes[best]] if size == trial.size else []
    outcomes += [run_peer(ground, peer, log, size, best) for _ in range(runs - len(outcomes))]
    wrong = [sentence for outcome in (*trial.outcomes.values(), *outcomes) for sentence in outcome.wrong]
    if peer.exactly_once:
        killed = run_peer(ground, peer, log, ground.size.short(), best, kill=True).wrong
        wrong += [f"after SIGKILL {sentence}" for sentence in killed]
    vector = round(trial.outcomes["vector"].events_per_cpu_s) if "vector" in trial.outcomes else None
    rows.add(_row(peer.name, log, best, size, outcomes, wrong) | {"vector_per_cpu_s": vector}, wrong)


def _contend_all(ground: Ground, peers: Sequence[Contestant], log: str, runs: int, rows: Rows) -> None:
    for peer in peers:
        with rows.kept(peer.name, log):
            size = ground.size.short() if peer.short else ground.size
            _contend(ground, _tried(ground, peer, log, size), size, runs, rows)


def _contend_until(ground: Ground, peers: Sequence[Contestant], log: str, runs: int, end_s: float, rows: Rows) -> None:
    trials = []
    for peer in peers:
        with rows.kept(peer.name, log):
            size = ground.size.shorter() if peer.short else ground.size.short()
            trials.append(_tried(ground, peer, log, size))
    near = near_the_best(trials)
    others = [trial for trial in trials if trial not in near]
    kills_s = sum(trial.seconds(ground.size.short(), 1) + _START_S for trial in trials if trial.peer.exactly_once)
    wanted_s = kills_s + sum(trial.seconds(ground.size, runs) for trial in near)
    left_s = end_s - time.monotonic()
    rows.tell(
        f"{log}: {len(near)} of {len(trials)} peers run over the long log; all their runs would take about"
        f" {wanted_s / 60:.0f} min, and {left_s / 60:.0f} min are left"
    )
    for place, trial in enumerate(near):
        one_s = trial.seconds(ground.size, 1)
        left_s = end_s - time.monotonic() - kills_s
        fitting = min(runs, int(left_s / (len(near) - place) / one_s) or int(left_s > one_s))
        if fitting < 1:
            others.append(trial)
            continue
        with rows.kept(trial.peer.name, log):
            _contend(ground, trial, ground.size, fitting, rows)
    for trial in others:
        with rows.kept(trial.peer.name, log):
            _contend(ground, trial, trial.size, 1, rows)


def near_the_best(trials: Sequence[Trial]) -> list[Trial]:
    """Return those a ratio can rest on, the best first: the keyed rivals near their best, and who only decodes."""
    best = max((trial.events_per_cpu_s for trial in trials if trial.peer.name in KEYED_RIVALS), default=0.0)
    near = [
        trial
        for trial in trials
        if trial.peer.name == BARE_DECODE
        or (trial.peer.name in KEYED_RIVALS and trial.events_per_cpu_s >= _NEAR_THE_BEST * best)
    ]
    return sorted(near, key=lambda trial: trial.events_per_cpu_s, reverse=True)


def _contend_freshet(ground: Ground, name: str, log: str, size: Size, runs: int, rows: Rows) -> None:
    lists = name == freshet.WITH_LISTS
    outcomes = [run_freshet(ground, log, size, lists=lists) for _ in range(runs)]
    wrong = [sentence for outcome in outcomes for sentence in outcome.wrong]
    killed = run_freshet(ground, log, ground.size.short(), lists=lists, kill=True)
    wrong += [f"after SIGKILL {sentence}" for sentence in killed.wrong]
    rows.add(_row(name, log, "own", size, outcomes, wrong) | {"vector_per_cpu_s": None}, wrong)


def names() -> list[str]:
    """Return every contestant's name, Freshet first."""
    return [freshet.WITHOUT_LISTS, freshet.WITH_LISTS, *(peer.name for peer in PEERS)]


def compete(
    only: Sequence[str],
    logs: Sequence[str],
    runs: int,
    size: Size,
    on_row: Callable[[dict[str, Any]], None],
    *,
    minutes: float | None = None,
    tell: Callable[[str], None] = print,
) -> Rows:
    """
    Run the contestants whose name contains one of `only`, or all; a failed one does not keep the others from running.

    With `minutes` it ends in about this time, each log having its part of it; without, every run is over the long log.

    Raises
    ------
    DependencyError
        When something that the peers need cannot be installed; nothing was measured.

    """
    chosen = [name for name in names() if not only or any(part.lower() in name.lower() for part in only)]
    peers = [peer for peer in PEERS if peer.name in chosen]
    rows = Rows(on_row, tell)
    begun_s = time.monotonic()
    with ground(size, logs) as made:
        for peer in peers:
            peer.command(made.bench)  # installs what it needs
        for number, log in enumerate(logs, 1):
            for name in (freshet.WITHOUT_LISTS, freshet.WITH_LISTS):
                if name in chosen:
                    # No ratio rests on the lists, which take several times as long.
                    short = minutes is not None and name == freshet.WITH_LISTS
                    with rows.kept(name, log):
                        _contend_freshet(made, name, log, size.short() if short else size, runs, rows)
            if minutes is None:
                _contend_all(made, peers, log, runs, rows)
            else:
                _contend_until(made, peers, log, runs, begun_s + 60.0 * minutes * number / len(logs), rows)
    return rows


def ratios(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """
    Return Freshet's events per CPU second over those of its rivals, per log, where both were measured.

    >>> made = [
    ...     {"name": "Freshet", "log": "zipf", "events_per_cpu_s": 90},
    ...     {"name": "Bytewax", "log": "zipf", "events_per_cpu_s": 30},
    ... ]
    >>> ratios(made)
    {'zipf: Freshet / best keyed rival': 3.0}
    """
    found: dict[str, float] = {}
    for log in LOGS:
        of = {row["name"]: row["events_per_cpu_s"] for row in rows if row["log"] == log}
        if freshet.WITHOUT_LISTS not in of:
            continue
        ours = of[freshet.WITHOUT_LISTS]
        rivals = [of[name] for name in KEYED_RIVALS if name in of]
        if rivals:
            found[f"{log}: Freshet / best keyed rival"] = ours / max(rivals)
        for label, name in (("Faust table", FAUST_TABLE), ("aiokafka decode only", BARE_DECODE)):
            if name in of:
                found[f"{log}: Freshet / {label}"] = ours / of[name]
    return found
