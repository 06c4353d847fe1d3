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
    CatalogueRecord,
    RuleRefused,
    StageSpace,
    SwitchSpace,
    VectorGone,
    decode_record,
    decode_rule_record,
)
from streams.errors import DependencyError, FreshetError, RecordFormatError, TopicMismatchError
from streams.kafka.bulk_read import reader
from streams.kafka.deadline import Deadline
from streams.kafka.passing import passes
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.models import SERVED_KEY, Served, decode_served

_LOG = structlog.get_logger(__name__)

OnBatch = Callable[[list[CatalogueRecord]], "Future[object] | None"]

#: Records of one batch while the catalogue is loaded: applying them holds the worker's loop for some 10 ms.
MAX_BATCH = 2_000
#: The same once lists are made, which have to wait meanwhile: signals of many items come at once, each second.
_LIVE_BATCH = 100
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

    These are `items`, `item-rules`, `item-vectors`, `item-signals`, `item-neighbours`, `experiments`, `models`, and
    `item-sightings` where the settings accept items from events.
    `models` is read to its end first: its record `served` names the vector space whose vectors count. When it
    changes, `item-vectors` is read again from its beginning: the new space is staged beside the old one, whose new
    vectors are still handed over, and `SwitchSpace` follows once the end of every partition was reached. So lists are
    made in the old space until the new one is complete, however long that takes; both are in memory meanwhile.

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
        followed = ["items", "item-rules", "item-vectors", "item-signals", "item-neighbours", "experiments", "models"]
        if settings.accept_items_from_events:
            followed.append("item-sightings")
        self._names = {full_name(settings, name): name for name in followed}
        self._served: Served | None = None
        self._staged: Served | None = None
        self._began_s = 0.0
        #: Partitions of vectors whose end was not reached since the staged space is read.
        self._unstaged: set[Place] = set()
        #: Vectors of the served space below these offsets were handed over before.
        self._handed: dict[Place, int] = {}
        self._places: set[Place] = set()
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
        self._places |= self._find_places(consumer)
        places = self._places
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
                if not self._unread and self._staged is None and self._drain(0):
                    self.loaded.set()
                    _LOG.info("catalogue loaded", served=self._served.fingerprint if self._served else None)
            if self._clock() - answered > _PROBE_INTERVAL_S:
                answered = self._probe(consumer, probe, answered)

    def _find_places(self, consumer: Consumer) -> set[Place]:
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
        return self._names[place[0]] != "item-vectors" or self._served is not None or self._staged is not None

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

    def _stage(self, consumer: Consumer) -> None:
        """Begin to read the staged space: vectors from their beginning."""
        self._unstaged = {place for place in self._places if self._names[place[0]] == "item-vectors"}
        for place in self._unstaged & self._assigned:
            offset = self._next[place]
            try:
                # Empty partitions too: their end was told before, and is told again after a seek only.
                consumer.seek(TopicPartition(*place, OFFSET_BEGINNING))
            except KafkaException as error:
                # Assigned a moment ago and not begun: it will be read from its beginning.
                if offset != OFFSET_BEGINNING or error.args[0].code() != KafkaError._STATE:  # noqa: SLF001 -- public
                    raise
            if offset != OFFSET_BEGINNING:
                self._handed[place] = max(offset, self._handed.get(place, 0))
                self._next[place] = OFFSET_BEGINNING

    def _step(self, consumer: Consumer) -> None:
        """Read what is there, wait a moment where nothing is, and hand over what it says."""
        # `consume` alone waits until its batch is full; `poll` returns with the first record.
        first = consumer.poll(_POLL_S)
        if first is None:
            return
        staged = self._staged
        most = _LIVE_BATCH if self.loaded.is_set() else MAX_BATCH
        records = self._decode([first, *consumer.consume(most - 1, timeout=0)])
        if self._staged is not staged:
            if self._staged is not None:
                self._stage(consumer)
            self._assign(consumer)
        elif staged is not None and not self._unstaged:
            records.append(self._switch(staged))
        if records:
            future = self._on_batch(records)
            if future is not None:
                self._outstanding.append(future)
            self._drain(MAX_OUTSTANDING)

    def _switch(self, staged: Served) -> SwitchSpace:
        self._served, self._staged = staged, None
        self._handed.clear()
        took_s = round(self._clock() - self._began_s, 2)
        _LOG.info("vector space switched", fingerprint=staged.fingerprint, model=staged.model, seconds=took_s)
        return SwitchSpace()

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
                record = self._read(name, message)
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

    def _read(self, name: str, message: Message) -> CatalogueRecord | None:
        key, value = message.key(), message.value()
        if name == "models":
            return self._read_model(key, value)
        if name == "item-rules":
            return self._read_rule(message)
        if name != "item-vectors":
            return decode_record(name, key, value, None)
        known = message.offset() < self._handed.get((message.topic(), message.partition()), 0)
        record = decode_record(name, key, value, None if known else self._served, self._staged)
        if isinstance(record, VectorGone) and not record.staged and self._staged is not None:
            # The old space may be retired already; it is ranked in until the new one is complete.
            return None
        return record

    def _read_rule(self, message: Message) -> CatalogueRecord:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        read = decode_rule_record(topic, partition, offset, message.timestamp()[1], message.key(), message.value())
        if isinstance(read, RuleRefused):
            metrics.CATALOGUE_DAMAGED.labels("item-rules").inc()
            _LOG.warning("rule_refused", partition=partition, offset=offset, reason=read.letter.error)
        return read

    def _read_model(self, key: bytes | None, value: bytes | None) -> StageSpace | None:
        if key != SERVED_KEY:
            return None
        if value is None:
            # Without a successor the old space stays the best there is.
            raise RecordFormatError("the served model was deleted; the last one stays in use")
        named = decode_served(value)
        if named.same_space(self._staged or self._served):
            return None
        # Back to the served space before the new one was complete: nothing is to be loaded.
        self._staged = None if named.same_space(self._served) else named
        self._began_s = self._clock()
        return StageSpace(self._staged)

    def _mind(self, error: KafkaError, message: Message) -> None:
        """Note the end of a partition; let what passes by itself pass; raise for the rest."""
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 -- public constant
            place = (message.topic(), message.partition())
            self._unread.discard(place)
            self._unstaged.discard(place)
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
