"""An encoder worker inside a test, and what is needed to judge it from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from prometheus_client import REGISTRY

from models.text import content_hash
from streams.roles.encoder import EncoderWorker
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.items import Item
from streams.wire.vectors import ItemVector, decode_vector, split_vector_key
from tests.support.shop import producer
from tests.support.verifier import read_topic


class RunningEncoder:
    """An encoder worker in a thread of the test, which saves the seconds that importing torch takes."""

    def __init__(self, settings: Settings) -> None:
        self._worker = EncoderWorker(settings)
        self._thread = threading.Thread(target=self._run, name="encoder")
        self.error: Exception | None = None

    def _run(self) -> None:
        try:
            self._worker.run()
        except Exception as error:  # noqa: BLE001 -- handed to the test
            self.error = error

    def __enter__(self) -> Self:
        self._thread.start()
        wait_for(lambda: self._worker.ready()[0] or self.error is not None, 60)
        assert self.error is None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.stop()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the worker did not stop within 10 s"

    def wait(self, timeout_s: float) -> None:
        """Wait until it has ended by itself."""
        self._thread.join(timeout_s)


def wait_for(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not so after {timeout_s} s"
        time.sleep(0.05)


def put(settings: Settings, *items: Item, topic: str = "items") -> None:
    """Produce snapshots."""
    out = producer(settings)
    for item in items:
        out.produce(full_name(settings, topic), item.encode(), item.item_id.encode())
    assert out.flush(30) == 0


def put_raw(settings: Settings, key: bytes, value: bytes | None) -> None:
    """Produce one record of `items` as it is; Kafka itself refuses one without a key on a compacted topic."""
    out = producer(settings)
    out.produce(full_name(settings, "items"), value, key)
    assert out.flush(30) == 0


def vectors(settings: Settings) -> dict[str, ItemVector]:
    """Return what a reader of the compacted topic ends up with, by item."""
    found: dict[str, ItemVector] = {}
    for record in read_topic(settings, "item-vectors"):
        assert record.key is not None
        item_id = split_vector_key(record.key)[1]
        if record.value is None:
            found.pop(item_id, None)
        else:
            found[item_id] = decode_vector(record.value)
    return found


def with_text(settings: Settings, text: str) -> set[str]:
    """Return the items whose vector is this text's."""
    wanted = content_hash(text)
    return {item_id for item_id, vector in vectors(settings).items() if vector.content_hash == wanted}


@contextmanager
def counted(outcome: str, metric: str = "freshet_encoder_items_total") -> Iterator[Callable[[], float]]:
    """Give a callable that says how many items, or images, had the outcome since."""

    def read() -> float:
        return REGISTRY.get_sample_value(metric, {"outcome": outcome}) or 0.0

    start = read()
    yield lambda: read() - start
