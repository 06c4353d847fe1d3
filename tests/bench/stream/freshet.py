"""Freshet as a contestant: the real worker on its full production path, with and without lists."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
from confluent_kafka import Producer

from streams.interests.codec import decode
from streams.kafka.partitioner import partition_of
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.events import TYPE_CODES
from streams.wire.vectors import encode_vector, vector_key
from tests.bench.stream import job
from tests.bench.stream.broker import Bench
from tests.bench.stream.meter import running_on
from tests.bench.stream.oracle import Reader
from tests.support.roles import RoleProcess
from tests.support.shop import FINGERPRINT

#: Without lists it does what the peers do; with lists it also ranks every user it has time for.
WITHOUT_LISTS = "Freshet"
WITH_LISTS = "Freshet, with lists"
_AGES_S = 50 * 365 * 86400.0
_CLICKS = TYPE_CODES["clicks"]


def settings_of(bench: Bench, *, lists: bool, partitions: int = job.PARTITIONS, **more: object) -> Settings:
    """Return settings of a new namespace that do this job, with its topics created."""
    told = {
        "partitions": partitions, "half_life_long_s": job.HALF_LIFE_S, "make_lists": lists,
        # The log's time stands still; whoever runs this years later must not find its users forgotten.
        "max_event_age_s": _AGES_S, "state_ttl_s": _AGES_S,
    }  # fmt: skip
    return bench.settings_for(**told, **more)


def stock(settings: Settings, table: job.Float32) -> None:
    """Write items and their vectors as a shop and an encoder do."""
    out = Producer({"bootstrap.servers": settings.kafka_bootstrap, "compression.type": "lz4", "linger.ms": 20})
    served = {"fingerprint": FINGERPRINT, "model": "bench", "dim": job.DIM}
    out.produce(full_name(settings, "models"), orjson.dumps(served), b"served")
    items, vectors = full_name(settings, "items"), full_name(settings, "item-vectors")
    for number, vector in enumerate(table):
        item_id = job.item_id(number)
        partition = partition_of(item_id.encode(), settings.partitions)
        out.produce(items, orjson.dumps({"title": item_id, "category": f"c{number % 50}"}), item_id.encode(), partition)
        out.produce(vectors, encode_vector(bytes(16), vector), vector_key(FINGERPRINT, item_id), partition)
        out.poll(0)
    if left := out.flush(60):
        raise RuntimeError(f"{left} items could not be produced")


@contextmanager
def working(settings: Settings, folder: Path, core: int | None = None, name: str = "worker") -> Iterator[RoleProcess]:
    """Run a worker; on one core where it is measured against peers."""
    worker = RoleProcess("worker", settings, folder, name)
    with ExitStack() as stack:
        # Only its end is entered here: it is started on its core.
        stack.push(worker)
        with running_on(os.sched_getaffinity(0) if core is None else {core}):
            worker.start()
        yield worker


def _clicks(record: bytes) -> int:
    return decode(record).counts[_CLICKS]


def reader(table: job.Float32) -> Reader:
    """
    Return how a `user-state` record is read.

    It holds no vector: the vector is a function of the newest interactions, the tallies of older ones and the item
    vectors, and is made from them here, apart from the code that the worker runs.
    """
    half_life_ms = 1000.0 * job.HALF_LIFE_S

    def vector(record: bytes) -> npt.NDArray[np.float64]:
        state = decode(record)
        newest_ms = state.recent[-1].ts_ms
        parts = [(x.item_id, job.WEIGHT, x.ts_ms) for x in state.recent]
        parts += [(item_id, tally.mass, tally.last_ts_ms) for item_id, tally in state.items.items()]
        rows = [int(item_id[1:]) for item_id, _, _ in parts]
        left = np.array([weight * 2.0 ** ((ts_ms - newest_ms) / half_life_ms) for _, weight, ts_ms in parts])
        total: npt.NDArray[np.float64] = left @ table[rows].astype(np.float64)
        return total

    return Reader(_clicks, vector, holds_vector=True)


def users_of(last: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Drop what is no user's: a partition's control record."""
    return {key: value for key, value in last.items() if not key.startswith(b"\x00")}
