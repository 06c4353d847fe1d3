"""
The `encoder-live` benchmark: how late live items are while the whole catalogue is encoded.

A real worker with the default model encodes a bulk of Complete Journey texts; meanwhile items of that bulk change, one
after the other. A change's time runs from before it is handed to the producer until the vector of its new text is read
back from `item-vectors`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from models.text import content_hash
from streams.encoding.backlog import text_of
from streams.kafka.bulk_read import reader
from streams.kafka.clients import librdkafka_config
from streams.kafka.partitioner import LIBRDKAFKA_PARTITIONER
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.items import Item
from streams.wire.vectors import decode_vector, split_vector_key
from tests.bench.encoder.contestants import fields
from tests.bench.encoder.texts import numbered
from tests.bench.stream.broker import services
from tests.support.encoders import put
from tests.support.roles import RoleProcess

#: Live items are waited for so long after the last was sent.
_LATE_S = 30.0
#: Bulk items that are out before the first live one is sent: the worker is at its pace then.
_WARM = 500


class _Watch:
    """
    Reads `item-vectors` from its end, and takes the time of those it is told to expect.

    Attributes
    ----------
    took_s
        Of each expected vector that came.
    gone_back
        Vectors of another text that came after the expected one.
    others
        Vectors that nobody expected: the bulk.

    """

    def __init__(self, settings: Settings) -> None:
        self._consumer: Consumer = reader(settings, enable_partition_eof=False)
        topic = full_name(settings, "item-vectors")
        self._consumer.assign([TopicPartition(topic, number, OFFSET_END) for number in range(settings.partitions)])
        self._expected: dict[str, tuple[bytes, float]] = {}
        self._came: set[str] = set()
        self.took_s: list[float] = []
        self.gone_back = self.others = 0

    def expect(self, item: Item) -> None:
        """Start an item's time."""
        self._expected[item.item_id] = (content_hash(text_of(item)), time.perf_counter())

    def until(self, end: float) -> None:
        """Read until then."""
        while (left := end - time.perf_counter()) > 0:
            message = self._consumer.poll(left)
            if message is None or message.error() is not None:
                continue
            now = time.perf_counter()
            item_id = split_vector_key(message.key() or b"")[1]
            wanted = self._expected.get(item_id)
            if wanted is None or decode_vector(message.value() or b"").content_hash != wanted[0]:
                self.others += 1
                self.gone_back += item_id in self._came
            elif item_id not in self._came:
                self._came.add(item_id)
                self.took_s.append(now - wanted[1])

    def close(self) -> None:
        """Leave the topic."""
        self._consumer.close()


def measure(bulk: int, rate: float, seconds: float, threads: int) -> list[dict[str, Any]]:
    """Return one row: latencies of live items beside the bulk, and what the bulk did meanwhile."""
    with services() as bench:
        settings = bench.settings_for(device="cpu", encoder_threads=threads, cache_dir=bench.cache_dir)
        with RoleProcess("encoder", settings, bench.folder) as role, _watching(settings) as watch:
            role.ready()
            items = numbered(bench.cache_dir, bulk)
            put(settings, *items)
            while watch.others < _WARM:
                watch.until(time.perf_counter() + 0.1)
            changes = random.Random(5).sample(items, round(rate * seconds))
            before, began = watch.others, time.perf_counter()
            _send(settings, watch, changes, rate)
            took_s, done = time.perf_counter() - began, watch.others - before
            left = bulk - watch.others
            give_up = time.perf_counter() + _LATE_S
            while len(watch.took_s) < len(changes) and time.perf_counter() < give_up:
                watch.until(time.perf_counter() + 0.1)
            return [_row(watch, len(changes), rate, bulk=bulk, left=left, bulk_per_s=done / took_s)]


@contextmanager
def _watching(settings: Settings) -> Iterator[_Watch]:
    watch = _Watch(settings)
    try:
        watch.until(time.perf_counter() + 1.0)  # the ends are known then
        yield watch
    finally:
        watch.close()


def _send(settings: Settings, watch: _Watch, changes: list[Item], rate: float) -> None:
    """Send changed items at a fixed rate, and watch in between."""
    out = Producer(librdkafka_config(settings, partitioner=LIBRDKAFKA_PARTITIONER, linger_ms=0))
    began = time.perf_counter()
    for number, item in enumerate(changes):
        watch.until(began + number / rate)
        changed = Item(item.item_id, **(fields(item) | {"title": f"{item.title} live"}))
        watch.expect(changed)
        out.produce(full_name(settings, "items"), changed.encode(), changed.item_id.encode())
        out.poll(0)
    watch.until(began + len(changes) / rate)
    out.flush(30)


def _row(watch: _Watch, sent: int, rate: float, *, bulk: int, left: int, bulk_per_s: float) -> dict[str, Any]:
    # What never came is as late as can be said.
    took_ms = 1000 * np.array(watch.took_s + [np.inf] * (sent - len(watch.took_s)))
    return {
        "name": "live beside bulk",
        "live_per_s": rate,
        "live": sent,
        "came": len(watch.took_s),
        "p50_ms": _told(np.quantile(took_ms, 0.5, method="higher")),
        "p99_ms": _told(np.quantile(took_ms, 0.99, method="higher")),
        "max_ms": _told(took_ms.max()),
        "older_after_newer": watch.gone_back,
        "bulk": bulk,
        "bulk_per_s": round(bulk_per_s),
        "bulk_left": left,
    }


def _told(value_ms: float) -> float | None:
    return round(float(value_ms), 1) if np.isfinite(value_ms) else None
