"""Following the compacted topics about items: a thread reads and decodes, bounded batches go to the worker's loop."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams import metrics
from streams.catalogue.records import (
    SERVED_KEY,
    CatalogueRecord,
    ResetVectors,
    Served,
    decode_record,
    decode_served,
)
from streams.errors import DependencyError, FreshetError, RecordFormatError, TopicMismatchError
from streams.kafka.bulk_read import reader
from streams.kafka.deadline import Deadline
from streams.kafka.passing import passes
from streams.settings import Settings
from streams.topics import full_name

_LOG = structlog.get_logger(__name__)

OnBatch = Callable[[list[CatalogueRecord]], "Future[object] | None"]

#: Records of one batch: applying them holds the worker's loop for some 10 ms.
MAX_BATCH = 2_000
#: Batches handed over and not applied yet; above, reading waits.
MAX_OUTSTANDING = 4
#: Longest sleep in Kafka's client, so that a stop is seen soon.
_POLL_S = 0.1
#: How often Kafka is asked whether it still answers; silence alone cannot tell an idle topic from a lost broker.
_PROBE_INTERVAL_S = 5.0
_PROBE_TIMEOUT_S = 2.0

Place = tuple[str, int]


class Follower:
    """
    Reads the catalogue's topics from their beginning, and then for ever.

    These are `items`, `item-vectors`, `item-signals`, `experiments`, `models`, and `item-sightings` where the settings
    accept items from events.
    `models` is read to its end first: its record `served` names the vector space whose vectors count. When it
    changes, `ResetVectors` is handed over and all vectors are read again.

    Parameters
    ----------
    on_batch
        Called in the thread with at most `MAX_BATCH` records. A future it returns is done when the batch is applied;
        at most `MAX_OUTSTANDING` of them are open.

    Attributes
    ----------
    loaded
        Set when every topic was read to its end once and what was read is applied.
    error
        Why following ended; None while all is well.

    """

    def __init__(self, settings: Settings, on_batch: OnBatch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.loaded = threading.Event()
        self.error: Exception | None = None
        self._settings = settings
        self._on_batch = on_batch
        self._clock = clock
        followed = ["items", "item-vectors", "item-signals", "experiments", "models"]
        if settings.accept_items_from_events:
            followed.append("item-sightings")
        self._names = {full_name(settings, name): name for name in followed}
        self._served: Served | None = None
        self._next: dict[Place, int] = {}
        self._unread: set[Place] = set()
        self._assigned: set[Place] = set()
        self._outstanding: deque[Future[object]] = deque()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="catalogue-follower", daemon=True)

    def start(self) -> None:
        """Start the thread; returns at once."""
        self._thread.start()

    def stop(self, deadline_s: float = 5.0) -> None:
        """Ask the thread to end and wait for it, at most `deadline_s`."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(deadline_s)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            consumer = reader(self._settings, fetch_wait_max_ms=50, queued_min_messages=20_000)
            try:
                self._follow(consumer)
            finally:
                consumer.close()
        except FreshetError as error:
            self.error = error
        except KafkaException as error:
            self.error = DependencyError(f"following the catalogue failed: {error.args[0]}")
        except Exception as error:  # noqa: BLE001 -- a thread has nobody to raise to; the worker reads `error` and ends
            _LOG.exception("catalogue follower died")
            self.error = error

    def _follow(self, consumer: Consumer) -> None:
        places = self._places(consumer)
        models = full_name(self._settings, "models")
        self._next = {place: OFFSET_BEGINNING for place in places if place[0] == models}
        self._assign(consumer)
        answered = self._clock()
        probe = next(iter(places))
        while not self._stopping.is_set():
            self._step(consumer)
            if not self._unread and not self.loaded.is_set():
                if len(self._next) < len(places):
                    fresh = places - set(self._next)
                    self._next.update(dict.fromkeys(fresh, OFFSET_BEGINNING))
                    self._assign(consumer)
                if not self._unread and self._drain(0):
                    self.loaded.set()
                    _LOG.info("catalogue loaded", served=self._served.fingerprint if self._served else None)
            if self._clock() - answered > _PROBE_INTERVAL_S:
                answered = self._probe(consumer, probe, answered)

    def _places(self, consumer: Consumer) -> set[Place]:
        """Return every followed partition."""
        deadline = Deadline(self._settings.kafka_timeout_s, self._clock)
        while True:
            try:
                known = consumer.list_topics(timeout=min(_PROBE_TIMEOUT_S, deadline.remaining_s())).topics
                break
            except KafkaException as error:
                if deadline.passed or self._stopping.wait(_POLL_S):
                    raise DependencyError(f"Kafka gave no list of topics: {error.args[0]}") from error
        if missing := sorted(name for name in self._names if name not in known or known[name].error is not None):
            raise TopicMismatchError(f"the topic {missing[0]} is missing; `freshet topics create` makes it")
        return {(name, number) for name in self._names for number in known[name].partitions}

    def _counts(self, place: Place) -> bool:
        """Whether a partition is read now: vectors are only while it is known which of them count."""
        return self._names[place[0]] != "item-vectors" or self._served is not None

    def _assign(self, consumer: Consumer) -> None:
        """
        Begin to read what counts and is not read yet.

        Nothing is taken from the client again: a partition that is removed twice in quick succession, which any second
        `assign` does, aborts the process (librdkafka #5573).
        """
        fresh = [place for place in self._next if self._counts(place) and place not in self._assigned]
        if fresh:
            consumer.incremental_assign([TopicPartition(*place, self._next[place]) for place in fresh])
            self._assigned.update(fresh)
            if not self.loaded.is_set():
                self._unread.update(fresh)

    def _reread_vectors(self, consumer: Consumer) -> None:
        """Read the vectors again from their beginning, where any were read."""
        for place, offset in self._next.items():
            if self._names[place[0]] == "item-vectors" and offset != OFFSET_BEGINNING:
                consumer.seek(TopicPartition(*place, OFFSET_BEGINNING))
                self._next[place] = OFFSET_BEGINNING
                if not self.loaded.is_set():
                    self._unread.add(place)

    def _step(self, consumer: Consumer) -> None:
        """Read what is there, wait a moment where nothing is, and hand over what it says."""
        # `consume` alone waits until its batch is full; `poll` returns with the first record.
        first = consumer.poll(_POLL_S)
        if first is None:
            return
        served = self._served
        records = self._decode([first, *consumer.consume(MAX_BATCH - 1, timeout=0)])
        if records:
            future = self._on_batch(records)
            if future is not None:
                self._outstanding.append(future)
            self._drain(MAX_OUTSTANDING)
        if self._served != served:
            self._reread_vectors(consumer)
            self._assign(consumer)

    def _decode(self, messages: Sequence[Message]) -> list[CatalogueRecord]:
        records: list[CatalogueRecord] = []
        counts: Counter[str] = Counter()
        for message in messages:
            if (error := message.error()) is not None:
                self._mind(error, message)
                continue
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            self._next[topic, partition] = offset + 1
            name = self._names[topic]
            counts[name] += 1
            try:
                record = self._read(name, message.key(), message.value())
            except RecordFormatError as problem:
                metrics.CATALOGUE_DAMAGED.labels(name).inc()
                _LOG.warning(
                    "catalogue record skipped", topic=topic, partition=partition, offset=offset, reason=str(problem)
                )
                continue
            if record is not None:
                records.append(record)
        for name, count in counts.items():
            metrics.CATALOGUE_RECORDS.labels(name).inc(count)
        return records

    def _read(self, name: str, key: bytes | None, value: bytes | None) -> CatalogueRecord | None:
        if name != "models":
            return decode_record(name, key, value, self._served)
        if key != SERVED_KEY:
            return None
        if value is None:
            # Without a successor the old space stays the best there is.
            raise RecordFormatError("the served model was deleted; the last one stays in use")
        served = decode_served(value)
        if served == self._served:
            return None
        self._served = served
        return ResetVectors(served)

    def _mind(self, error: KafkaError, message: Message) -> None:
        """Note the end of a partition; let what passes by itself pass; raise for the rest."""
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 -- public constant
            self._unread.discard((message.topic(), message.partition()))
        elif not passes(error):
            raise DependencyError(f"following {message.topic()} failed: {error.str()}")
        else:
            _LOG.debug("kafka client reports", error=error.str())

    def _drain(self, room: int) -> bool:
        """Wait until at most `room` batches are open; False when stopped meanwhile."""
        while len(self._outstanding) > room:
            done, _ = wait([self._outstanding[0]], _POLL_S)
            if done:
                # A batch that could not be applied ends the follower, with the reason.
                self._outstanding.popleft().result()
            elif self._stopping.is_set():
                return False
        return True

    def _probe(self, consumer: Consumer, place: Place, answered: float) -> float:
        """Ask Kafka for anything; return when it last answered."""
        try:
            consumer.get_watermark_offsets(TopicPartition(*place), timeout=_PROBE_TIMEOUT_S, cached=False)
        except KafkaException as error:
            if self._clock() - answered > self._settings.kafka_timeout_s:
                raise DependencyError(
                    f"Kafka has not answered the catalogue follower for {self._settings.kafka_timeout_s:g} s"
                ) from error
            return answered
        return self._clock()
