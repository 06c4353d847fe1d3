"""The catalogue follower against a real Kafka: everything is loaded, changes arrive at once, damage is skipped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
import orjson
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from streams.catalogue import follower as module
from streams.catalogue.follower import MAX_BATCH, MAX_OUTSTANDING, Follower
from streams.catalogue.matrix import Catalogue
from streams.catalogue.records import (
    Applied,
    CatalogueRecord,
    RuleRefused,
    StageSpace,
    SwitchSpace,
    VectorGone,
    VectorTold,
)
from streams.errors import DependencyError, TopicMismatchError
from streams.kafka.clients import librdkafka_config
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.neighbours import ItemNeighbours, encode_item_neighbours
from streams.wire.signals import ItemSignals, encode_item_signals
from streams.wire.vectors import encode_vector, vector_key

pytestmark = pytest.mark.integration

OLD, NEW = "0" * 16, "1" * 16
SettingsFor = Callable[..., Settings]


class Shop:
    """Writes what shop, encoder and signals worker would write."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Idempotent, or a retried first batch on a topic just made would overtake what came before it.
        self._producer = Producer(librdkafka_config(settings, linger_ms=0, enable_idempotence=True))

    def put(self, topic: str, key: bytes | str, value: bytes | None) -> None:
        """Produce one record; `flush` makes sure of it."""
        self._producer.produce(full_name(self._settings, topic), key=key, value=value)
        self._producer.poll(0)

    def item(self, item_id: str, title: str = "") -> None:
        """Tell an item."""
        self.put("items", item_id, orjson.dumps({"title": title}))

    def vector(self, fingerprint: str, item_id: str, angle: float) -> None:
        """Tell a vector of two dimensions."""
        vector = np.array([np.cos(angle), np.sin(angle)], np.float32)
        self.put("item-vectors", vector_key(fingerprint, item_id), encode_vector(bytes(16), vector))

    def serve(self, fingerprint: str) -> None:
        """Switch to a vector space."""
        self.put("models", "served", orjson.dumps({"fingerprint": fingerprint, "model": "m", "dim": 2}))

    def flush(self) -> None:
        """Wait until Kafka has everything."""
        assert self._producer.flush(20) == 0


class Loop:
    """
    Stands for the worker's loop: applies batches as they come.

    Attributes
    ----------
    spaces
        After each batch with vectors: the served fingerprint and the vectors of items a and b.

    """

    def __init__(self) -> None:
        self.catalogue = Catalogue()
        self.spaces: list[tuple[str, dict[str, float | None]]] = []
        self.applied: list[Applied] = []
        self.records: list[CatalogueRecord] = []

    def __call__(self, records: list[CatalogueRecord]) -> None:
        """Apply one batch in the follower's thread; nobody else touches the catalogue meanwhile."""
        self.records.extend(records)
        self.applied.append(self.catalogue.apply(records))
        if any(isinstance(record, VectorTold | VectorGone | StageSpace | SwitchSpace) for record in records):
            self.spaces.append((self.fingerprint(), {item_id: self.angle(item_id) for item_id in ("a", "b")}))

    def fingerprint(self) -> str:
        """Return which vector space is served; empty while unknown."""
        return self.catalogue.served.fingerprint if self.catalogue.served else ""

    def angle(self, item_id: str) -> float | None:
        """Return the direction of an item's vector."""
        row = self.catalogue.find([item_id])[0]
        if row < 0 or not self.catalogue.has_vector[row]:
            return None
        east, north = self.catalogue.vectors[row].tolist()
        return round(float(np.arctan2(north, east)), 2)


@contextmanager
def following(settings: Settings, on_batch: Callable[..., Future[object] | None]) -> Iterator[Follower]:
    """Run a follower; it ends without an error."""
    follower = Follower(settings, on_batch)
    follower.start()
    try:
        yield follower
    finally:
        follower.stop(10)
    assert not follower.alive
    assert follower.error is None


def eventually(condition: Callable[[], object], timeout_s: float = 15.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def test_everything_there_at_start_is_loaded(settings_for: SettingsFor) -> None:
    """`loaded` is set when every topic was read to its end and applied; other vector spaces and damage are skipped."""
    settings = settings_for(accept_items_from_events=True)
    shop, loop = Shop(settings), Loop()
    count = 3 * MAX_BATCH
    for number in range(count):
        shop.item(f"i{number}", f"title {number}")
        shop.vector(OLD, f"i{number}", 0.5)
    shop.vector(NEW, "i0", 1.5)
    shop.put("items", "bad", b"{")
    shop.put("item-vectors", vector_key(OLD, "i1"), b"damaged")
    shop.put("items", "i2", None)
    shop.put("item-sightings", "seen", b'{"title":"seen in an event"}')
    signals = ItemSignals("i3", 4.0, 1_700_000_000_000, 1.0, 2)
    shop.put("item-signals", "i3", encode_item_signals(signals))
    shop.put("item-neighbours", "i3", encode_item_neighbours(ItemNeighbours("i3", (("i4", 0.5),))))
    shop.put("experiments", "e", b"{}")
    shop.serve(OLD)
    shop.flush()
    with following(settings, loop) as follower:
        assert follower.loaded.wait(30)
        catalogue = loop.catalogue
        assert int(catalogue.offer.listed.sum()) == count  # one was deleted, one was seen in an event
        assert int(catalogue.has_vector.sum()) == count
        assert loop.angle("i0") == 0.5
        assert loop.angle("i1") == 0.5
        assert catalogue.popularity[catalogue.row("i3")] == 1.0
        assert catalogue.followers.of(catalogue.row("i3"))[0].tolist() == [catalogue.row("i4")]
        assert [told.key for applied in loop.applied for told in applied.experiments] == ["e"]
        assert isinstance(loop.records[0], StageSpace)


def test_sightings_are_followed_only_where_accepted(settings_for: SettingsFor) -> None:
    """By default no event makes an item, whatever stands on the topic."""
    settings = settings_for()
    shop, loop = Shop(settings), Loop()
    shop.put("item-sightings", "seen", b"{}")
    shop.flush()
    with following(settings, loop) as follower:
        assert follower.loaded.wait(20)
    assert loop.records == []


def test_changes_arrive_within_milliseconds(settings_for: SettingsFor) -> None:
    """Once loaded, a new item is applied at once: the median of 20 lies below 100 ms."""
    settings = settings_for()
    shop, loop = Shop(settings), Loop()
    with following(settings, loop) as follower:
        assert follower.loaded.wait(20)
        took_s = []
        for number in range(20):
            started = time.monotonic()
            shop.item(f"i{number}")
            shop.flush()
            eventually(lambda number=number: loop.catalogue.card(f"i{number}"))  # type: ignore[misc]  # a default argument binds the loop variable
            took_s.append(time.monotonic() - started)
    assert sorted(took_s)[10] < 0.1


def test_rules_are_followed(settings_for: SettingsFor) -> None:
    """Rules that stand at the start hold when it is over, later ones as they come; a bad one is handed on as it was."""
    settings = settings_for()
    shop, loop = Shop(settings), Loop()
    for item_id in ("a", "b"):
        shop.item(item_id)
    shop.put("item-rules", "a", b'{"block": {"reason": "recall"}}')
    shop.flush()
    with following(settings, loop) as follower:
        assert follower.loaded.wait(20)
        assert loop.catalogue.withheld() == {"a": "recall"}
        shop.put("item-rules", "b", b'{"block": {}}')
        shop.put("item-rules", "a", b'{"blocked": false}')
        shop.flush()
        eventually(lambda: any(isinstance(record, RuleRefused) for record in loop.records))
        eventually(lambda: loop.catalogue.withheld() == {"a": "recall", "b": "blocked"})
        for item_id in ("a", "b"):
            shop.put("item-rules", item_id, None)
        shop.flush()
        eventually(lambda: not loop.catalogue.withheld())
    letters = [letter for applied in loop.applied for letter in applied.refused]
    topic = full_name(settings, "item-rules")
    assert [(topic, b"a", b'{"blocked": false}')] == [(letter.topic, letter.key, letter.value) for letter in letters]


def test_another_served_space_replaces_every_vector(settings_for: SettingsFor) -> None:
    """The switch, its way back, and the first record ever: each reads all vectors of the space named."""
    settings = settings_for()
    shop, loop = Shop(settings), Loop()
    for item_id in ("a", "b"):
        shop.vector(OLD, item_id, 0.5)
        shop.vector(NEW, item_id, 1.5)
    shop.flush()
    with following(settings, loop) as follower:
        assert follower.loaded.wait(20)
        assert not loop.fingerprint()
        for fingerprint, expected in ((OLD, 0.5), (NEW, 1.5), (OLD, 0.5)):
            shop.serve(fingerprint)
            shop.flush()
            eventually(lambda expected=expected: [loop.angle("a"), loop.angle("b")] == [expected, expected])  # type: ignore[misc]  # as above
            assert loop.fingerprint() == fingerprint
        shop.put("models", "served", b"{")
        shop.put("models", "served", None)
        shop.vector(OLD, "c", 0.7)
        shop.flush()
        eventually(lambda: loop.angle("c") == 0.7)
        assert loop.angle("a") == 0.5


def test_a_switch_has_no_hole(settings_for: SettingsFor) -> None:
    """
    At every moment between two spaces all items have a vector, and all of one space.

    Also when the old space is retired while the new one is read, when it gets a new vector meanwhile, when the switch
    is taken back before it is done, and with partitions that hold nothing.
    """
    settings = settings_for(partitions=4)
    shop, loop = Shop(settings), Loop()
    retiring = threading.Event()

    def on_batch(records: list[CatalogueRecord]) -> None:
        if retiring.is_set() and any(isinstance(record, StageSpace) for record in records):
            shop.put("item-vectors", vector_key(OLD, "a"), None)
            shop.vector(OLD, "b", 0.6)
            shop.flush()
        loop(records)

    for item_id in ("a", "b"):
        shop.vector(OLD, item_id, 0.5)
        shop.vector(NEW, item_id, 1.5)
    shop.serve(OLD)
    shop.flush()
    with following(settings, on_batch) as follower:
        assert follower.loaded.wait(20)
        loop.spaces.clear()
        for _ in range(10):
            for fingerprint in (NEW, OLD, NEW):
                shop.serve(fingerprint)
            shop.flush()
            eventually(lambda: loop.fingerprint() == NEW)
            shop.serve(OLD)
            shop.flush()
            eventually(lambda: loop.fingerprint() == OLD)
        retiring.set()
        shop.serve(NEW)
        shop.flush()
        eventually(lambda: loop.fingerprint() == NEW)
    seen = {(fingerprint, angle) for fingerprint, angles in loop.spaces for angle in angles.values()}
    assert {(OLD, 0.5), (NEW, 1.5)} == seen - {(OLD, 0.6)}


def test_no_partition_is_taken_from_the_client_again(
    settings_for: SettingsFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition that is removed twice in quick succession aborts the process (librdkafka #5573)."""
    assigned: list[tuple[str, int]] = []

    class Watched(Consumer):  # type: ignore[misc]  # confluent_kafka ships no types
        def incremental_assign(self, places: list[TopicPartition]) -> None:
            assigned.extend((place.topic, place.partition) for place in places)
            super().incremental_assign(places)

        def assign(self, _: list[TopicPartition]) -> None:
            raise AssertionError("assign() removes what was assigned before")

    def watched(settings: Settings, **options: object) -> Consumer:
        group = {"group_id": "watched", "enable_partition_eof": True, "enable_auto_commit": False}
        return Watched(librdkafka_config(settings, isolation_level="read_committed", **group, **options))

    monkeypatch.setattr(module, "reader", watched)
    settings = settings_for()
    shop, loop = Shop(settings), Loop()
    shop.vector(OLD, "a", 0.5)
    shop.vector(NEW, "a", 1.5)
    shop.serve(OLD)
    shop.flush()
    with following(settings, loop) as follower:
        assert follower.loaded.wait(20)
        for fingerprint, expected in ((NEW, 1.5), (OLD, 0.5)):
            shop.serve(fingerprint)
            shop.flush()
            eventually(lambda expected=expected: loop.angle("a") == expected)  # type: ignore[misc]  # as above

    assert len(assigned) == len(set(assigned))


def test_reading_waits_for_a_slow_worker(settings_for: SettingsFor) -> None:
    """No more than `MAX_OUTSTANDING` batches are open, none is longer than `MAX_BATCH`, and `loaded` waits for them."""
    settings = settings_for()
    shop = Shop(settings)
    for number in range(8 * MAX_BATCH):
        shop.item(f"i{number}")
    shop.flush()
    futures: list[Future[object]] = []
    sizes: list[int] = []
    release = threading.Event()

    def on_batch(records: list[CatalogueRecord]) -> Future[object]:
        sizes.append(len(records))
        future: Future[object] = Future()
        futures.append(future)
        if release.is_set():
            future.set_result(None)
        return future

    with following(settings, on_batch) as follower:
        eventually(lambda: len(futures) == MAX_OUTSTANDING + 1)
        time.sleep(0.5)
        assert len(futures) == MAX_OUTSTANDING + 1
        assert not follower.loaded.is_set()
        release.set()
        # Those handed over from here on are done at once.
        for future in tuple(futures):
            if not future.done():
                future.set_result(None)
        assert follower.loaded.wait(20)
    assert sum(sizes) == 8 * MAX_BATCH
    assert max(sizes) <= MAX_BATCH


def test_a_batch_that_cannot_be_applied_ends_it(settings_for: SettingsFor) -> None:
    """A bug in applying is not swallowed: the follower ends with that error, and the worker sees it."""
    settings = settings_for()
    shop = Shop(settings)
    shop.item("a")
    shop.flush()

    def on_batch(_records: list[CatalogueRecord]) -> Future[object]:
        future: Future[object] = Future()
        future.set_exception(RuntimeError("a bug"))
        return future

    follower = Follower(settings, on_batch)
    follower.start()
    eventually(lambda: not follower.alive)
    assert isinstance(follower.error, RuntimeError)
    assert not follower.loaded.is_set()


def test_missing_topics_end_it_with_a_sentence(settings_for: SettingsFor) -> None:
    """Topics that were never created are named, with the command that makes them."""
    settings = settings_for().model_copy(update={"namespace": "nobody"})
    follower = Follower(settings, Loop())
    follower.start()
    eventually(lambda: not follower.alive)
    assert isinstance(follower.error, TopicMismatchError)
    assert "freshet topics create" in str(follower.error)


def test_no_kafka_ends_it_within_its_timeout() -> None:
    """A broker that is not there is a dependency error after `kafka_timeout_s`, not an endless wait."""
    follower = Follower(Settings(kafka_bootstrap="127.0.0.1:9", kafka_timeout_s=1.0), Loop())
    follower.start()
    eventually(lambda: not follower.alive)
    assert isinstance(follower.error, DependencyError)
