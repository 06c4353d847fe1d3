"""Who encodes: Freshet's worker from Kafka to Kafka, and peers that are handed texts in memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import orjson
from confluent_kafka import Consumer, TopicPartition

from streams.encoding.backlog import text_of
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.items import Item
from tests.bench.stream.broker import Bench
from tests.support.encoders import put, vectors
from tests.support.roles import RoleProcess

_PEERS = Path(__file__).parent / "peers"
_ROOT = Path(__file__).parents[3]
#: The slowest run takes seconds; a busy machine ten times as long.
_RUN_S = 300.0
#: Between two looks, which ask the broker about each partition: at 5 ms they took a fifth of the machine.
_LOOK_S = 0.05


class Job(NamedTuple):
    """What all of them encode, with what."""

    items: list[Item]
    texts_file: Path
    model: Path
    threads: int
    max_tokens: int


class Contestant(Protocol):
    """Something that encodes all items again and again, and stays warm in between."""

    def run(self) -> float:
        """Encode all; return the seconds it took."""

    def found(self) -> npt.NDArray[np.float32]:
        """Return the vectors of the last run, in the order of the items."""


def write_texts(items: list[Item], file: Path) -> Path:
    """Write the items' canonical texts as JSON lines: what peers are given."""
    file.write_bytes(b"\n".join(orjson.dumps(text_of(item)) for item in items))
    return file


class Worker:
    """A real encoder worker beside a real Kafka; every run brings the same texts as new items."""

    def __init__(self, bench: Bench, job: Job, precision: str, name: str) -> None:
        self._job = job
        self._settings: Settings = bench.settings_for(
            model_path=job.model,
            device="cpu",
            encoder_threads=job.threads,
            encoder_precision=precision,
            encoder_max_tokens=job.max_tokens,
            log_format="json",
        )
        self._role = RoleProcess("encoder", self._settings, bench.folder, name)
        self._consumer = Consumer({"bootstrap.servers": bench.bootstrap, "group.id": "bench-watch"})
        self._runs = 0

    def __enter__(self) -> Self:
        self._role.__enter__()
        self._role.ready()
        self._run(self._job.items[:256])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()
        self._role.__exit__(kind, error, trace)

    @property
    def precision(self) -> str:
        """What the worker runs in, by its log."""
        for line in self._role.log.read_text(encoding="utf-8").splitlines():
            if '"model_loaded"' in line:
                return str(orjson.loads(line)["precision"])
        raise RuntimeError(f"{self._role.log} does not say the precision")

    def run(self) -> float:
        """From the first record produced to the last vector on the topic."""
        return self._run(self._job.items)

    def found(self) -> npt.NDArray[np.float32]:
        """Return the vectors as they lie on the topic, fp16 as written."""
        by_item = vectors(self._settings)
        rows = [by_item[f"{self._runs}-{item.item_id}"].vector for item in self._job.items]
        return np.stack(rows).astype(np.float32)

    def _run(self, items: list[Item]) -> float:
        self._runs += 1
        renamed = [Item(f"{self._runs}-{item.item_id}", **fields(item)) for item in items]
        before = self._vectors()
        began = time.perf_counter()
        put(self._settings, *renamed)
        while self._vectors() < before + len(items):
            if time.perf_counter() - began > _RUN_S:
                raise RuntimeError(f"the encoder worker did not finish {len(items)} items in {_RUN_S:g} s")
            time.sleep(_LOOK_S)
        return time.perf_counter() - began

    def _vectors(self) -> int:
        """Records on `item-vectors`: its producer is idempotent, so offsets count them."""
        topic = full_name(self._settings, "item-vectors")
        partitions = range(self._settings.partitions)
        return sum(self._consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in partitions)


def fields(item: Item) -> dict[str, Any]:
    """Return what an item's text is made of."""
    return {
        "title": item.title,
        "category": item.category,
        "brand": item.brand,
        "description": item.description,
        "attributes": item.attributes,
        "tags": item.tags,
        "reviews": item.reviews,
    }


class Peer:
    """A peer's script in its own environment; it has found its best batch size when it is entered."""

    def __init__(self, python: Path, script: str, job: Job, precision: str, batches: list[int], folder: Path) -> None:
        self._vectors = folder / f"{script}-{precision}.npy"
        self._log = folder / f"{script}-{precision}.log"
        task = {
            "model": str(job.model),
            "texts": str(job.texts_file),
            "threads": job.threads,
            "precision": precision,
            "batch": batches,
            "max_tokens": job.max_tokens,
            "vectors": str(self._vectors),
        }
        self._command = [str(python), "-W", "ignore", str(_PEERS / f"{script}.py"), orjson.dumps(task).decode()]
        self.batch = 0

    def __enter__(self) -> Self:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(_ROOT)}
        if self._command[0] != sys.executable:
            del environment["PYTHONPATH"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        self.batch = int(self._answer()["batch"])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self) -> float:
        """Texts in memory to vectors in memory."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer()["seconds"])

    def found(self) -> npt.NDArray[np.float32]:
        """Return the vectors of the last run."""
        found: npt.NDArray[np.float32] = np.load(self._vectors)
        return found

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = orjson.loads(line)
                return answer
        raise RuntimeError(f"{self._log.stem} ended: {self._log.read_text(errors='replace')[-500:]}")
