"""
The `encoder` benchmark: the same texts and threads for all, taking turns, medians told.

Freshet's worker is measured from Kafka to Kafka: from the first item produced to the last vector on `item-vectors`. The
peers are handed texts in memory, which is in their favour, and use the batch size that was fastest for them. The bare
forward pass has its token ids made before. All stay running, so that nobody's start is measured; the vectors of each
are held against the bare float32 ones.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streams.encoding.source import model_folder
from streams.errors import DependencyError
from streams.settings import Settings
from tests.bench.encoder import texts
from tests.bench.encoder.contestants import Contestant, Job, Peer, Worker, write_texts
from tests.bench.stream.broker import Bench, services
from tests.bench.stream.installs import peers_python

_PEERS = Path(__file__).parent / "peers"
_BATCHES = [32, 64, 128, 256]
_BUDGETS = [512, 1_024, 2_048, 4_096]

#: Of the peers, by their pinned requirements.
VERSIONS = dict(
    line.replace("[torch]", "").split("==")
    for file in ("sentence-transformers.txt", "infinity.txt")
    for line in (_PEERS / file).read_text(encoding="utf-8").splitlines()
    if line.startswith(("infinity-emb", "sentence-transformers==6"))
)

FILMS, PRODUCTS = SETS = ("ML-100K", "Complete Journey")
OURS, BARE, ST, INFINITY = "Freshet", "bare forward pass", "sentence-transformers", "infinity"


class Entry(NamedTuple):
    """A contestant as it is told."""

    name: str
    precision: str
    contestant: Contestant
    batch: int | None


class Found(NamedTuple):
    """The rows, and why a peer is absent."""

    rows: list[dict[str, Any]]
    absent: list[str]


def compete(only: Sequence[str], runs: int, threads: int, on_rows: Callable[[list[dict[str, Any]]], None]) -> Found:
    """Run everybody on the data sets named, all of them when none is; `on_rows` is told the rows so far after each."""
    rows: list[dict[str, Any]] = []
    absent: list[str] = []
    with services() as bench:
        cache = bench.cache_dir
        model = model_folder(Settings(cache_dir=cache))
        pythons = {ST: peers_python(cache, _PEERS / "sentence-transformers.txt")}
        try:
            pythons[INFINITY] = peers_python(cache, _PEERS / "infinity.txt")
        except DependencyError as error:
            absent.append(f"{INFINITY} is absent: {error}")
        for name in only or SETS:
            items = texts.films(cache) if name == FILMS else texts.products(cache)
            with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
                file = write_texts(items, Path(folder) / "texts")
                job = Job(items, file, model.path, threads, model.max_tokens)
                rows += _on_one_set(bench, name, job, pythons, runs, absent)
                on_rows(rows)
    return Found(rows, absent)


def _on_one_set(
    bench: Bench, name: str, job: Job, pythons: dict[str, Path], runs: int, absent: list[str]
) -> list[dict[str, Any]]:
    with ExitStack() as stack:
        entries = _enter(stack, bench, name, job, pythons, absent)
        seconds: dict[int, list[float]] = {place: [] for place in range(len(entries))}
        for _ in range(runs):
            for place, entry in enumerate(entries):
                seconds[place].append(entry.contestant.run())
        reference = next(entry for entry in entries if (entry.name, entry.precision) == (BARE, "fp32"))
        exact = reference.contestant.found()
        return [
            {
                "name": entry.name,
                "texts": name,
                "precision": entry.precision,
                "batch": entry.batch,
                "texts_per_s": round(len(job.items) / statistics.median(seconds[place])),
                "runs": runs,
                "worst_cosine": _worst(exact, entry.contestant.found()),
            }
            for place, entry in enumerate(entries)
        ]


def _enter(
    stack: ExitStack, bench: Bench, name: str, job: Job, pythons: dict[str, Path], absent: list[str]
) -> list[Entry]:
    ours = stack.enter_context(Worker(bench, job, "fp32", f"fp32-{name}"))
    best = stack.enter_context(Worker(bench, job, "auto", f"auto-{name}"))
    entries = [Entry(OURS, "fp32", ours, None), Entry(f"{OURS}, auto", best.precision, best, None)]
    wanted = [
        (BARE, "fp32"),
        (BARE, best.precision),
        (ST, "fp32"),
        (ST, "bf16"),
        (INFINITY, "fp32"),
        (INFINITY, "bf16"),
    ]
    scripts = {BARE: "bare_forward", ST: "sentence_transformers_encode", INFINITY: "infinity_engine"}
    for who, precision in dict.fromkeys(wanted):
        if who != BARE and who not in pythons:
            continue
        python = pythons.get(who, Path(sys.executable))
        sizes = _BUDGETS if who == BARE else _BATCHES
        try:
            peer = stack.enter_context(Peer(python, scripts[who], job, precision, sizes, bench.folder))
        except RuntimeError as error:
            if who == BARE:
                raise
            absent.append(f"{who} in {precision} is absent: {error}")
            continue
        entries.append(Entry(who, precision, peer, peer.batch))
    return entries


def _worst(exact: Any, found: Any) -> float:
    """Return the least cosine of rows with their twins."""
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1)
    return round(float((np.einsum("ij,ij->i", exact, found) / lengths).min()), 5)


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """
    Return what the rows are held to.

    >>> row = {"texts": "t", "precision": "fp32", "texts_per_s": 100}
    >>> ratios([{**row, "name": OURS}, {**row, "name": f"{OURS}, auto"}, {**row, "name": BARE}, {**row, "name": ST}])
    {'t: fp32 / sentence-transformers fp32': 1.0, 't: auto / sentence-transformers fp32': 1.0, 't: fp32 / bare': 1.0, \
't: auto / bare': 1.0}
    """
    told: dict[str, float] = {}
    for name in dict.fromkeys(row["texts"] for row in rows):
        of = {(row["name"], row["precision"]): row["texts_per_s"] for row in rows if row["texts"] == name}
        auto, precision = next((rate, key[1]) for key, rate in of.items() if key[0] == f"{OURS}, auto")
        exact = of[OURS, "fp32"]
        told[f"{name}: fp32 / {ST} fp32"] = exact / of[ST, "fp32"]
        told[f"{name}: auto / {ST} fp32"] = auto / of[ST, "fp32"]
        if rivals := [rate for key, rate in of.items() if key[0] == INFINITY]:
            told[f"{name}: auto / best {INFINITY}"] = auto / max(rivals)
        told[f"{name}: fp32 / bare"] = exact / of[BARE, "fp32"]
        told[f"{name}: auto / bare"] = auto / of[BARE, precision]
    return told
