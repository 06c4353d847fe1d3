"""What the encoder reads: one member of the fingerprint's consumer group, over `items` and `item-sightings`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import (
    CommitFailedError,
    FencedInstanceIdError,
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    RetriableError,
    UnknownMemberIdError,
)

from streams import metrics
from streams.encoding.backlog import Record
from streams.encoding.watermark import Position
from streams.errors import DependencyError, FreshetError, InstanceFencedError
from streams.kafka.clients import kafka_python_config
from streams.settings import Settings
from streams.topics import full_name

_LOG = structlog.get_logger(__name__)

SOURCES = ("items", "item-sightings")

#: A rebalance lasts a session timeout when a member has died; at twice that it does not end by itself.
_STUCK_SESSIONS = 2
#: Records of one poll: a few batches' worth, so that rebalances and stops are noticed between them.
POLL_RECORDS = 500

#: kafka-python is silent when the brokers are away, so they are asked this often; lag is measured on the way.
_CONTACT_INTERVAL_S = 5.0
_CONTACT_TIMEOUT_S = 3.0
_COMMIT_TIMEOUT_S = 3.0

#: Stands before an offset in the metadata of a commit: the first live record of the partition.
_LIVE_NOTE = "live="

_MEMBERSHIP_LOST = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)


class Polled(NamedTuple):
    """
    Records of one poll, and what changed in the assignment before them.

    Attributes
    ----------
    lost
        Partitions that were taken away, even if they have come back since: they are read from their last commit.
    gained
        Whether partitions have come.

    """

    records: list[Record]
    lost: set[tuple[str, int]]
    gained: bool


class _Changes(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python ships no types
    """
    Takes note of rebalances, on kafka-python's own thread; the role's thread reads them after each poll.

    Partitions that are revoked and assigned again in one rebalance keep their position, so a revocation alone
    changes nothing; lost ones (the member was thrown out) are read again from the last commit.
    """

    def __init__(self, keep_joining: Callable[[], None]) -> None:
        self._keep_joining = keep_joining
        self.rebalancing = True
        self.held: set[tuple[str, int]] = set()
        self._lost: set[tuple[str, int]] = set()
        self._gained = False

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """Stop encoding until it is known what stays."""
        del revoked
        self.rebalancing = True
        self._keep_joining()

    def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        """Drop what another member has by now."""
        self.rebalancing = True
        self._lost |= _places(lost)
        self.held -= _places(lost)

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Take the whole new assignment."""
        now = _places(assigned)
        self._lost |= self.held - now
        self._gained = self._gained or bool(now - self.held)
        self.held = now
        self.rebalancing = False

    def lose_all(self) -> None:
        """Drop everything: the member is given up."""
        self._lost |= self.held
        self.held = set()

    def drain(self) -> tuple[set[tuple[str, int]], bool]:
        """Return (lost, gained) since the last call; no callback runs meanwhile: they run inside `poll` only."""
        lost, gained = self._lost, self._gained
        self._lost, self._gained = set(), False
        return lost, gained


class Intake:
    """
    The consumer, its assignment and its commits.

    `poll_records` is the most that one poll returns.

    Raises
    ------
    DependencyError
        From every method: when Kafka refuses, or is away for longer than `kafka_timeout_s`.
    InstanceFencedError
        From every method: when another process has taken the place of this static member.

    """

    def __init__(self, settings: Settings, group: str, poll_records: int = POLL_RECORDS) -> None:
        self._settings = settings
        self._group = group
        self._poll_records = poll_records
        self._topics = {full_name(settings, name): name for name in SOURCES}
        self._changes = _Changes(self._keep_joining)
        self._settled_at = time.monotonic()
        self._paused = False
        self._next: dict[tuple[str, int], int] = {}
        self._contact = self._asked = time.monotonic()
        #: Monotonic time at which the broker last counted us as a member for certain.
        self.confirmed_s = 0.0
        self._join()

    def _join(self) -> None:
        settings = self._settings
        try:
            self._consumer = KafkaConsumer(
                **kafka_python_config(
                    settings,
                    group_id=self._group,
                    group_instance_id=settings.kafka_group_instance_id or None,
                    client_id=settings.role_id or "freshet-encoder",
                    auto_offset_reset="earliest",
                    enable_auto_commit=False,
                    allow_auto_create_topics=False,
                    session_timeout_ms=round(settings.kafka_session_timeout_s * 1000),
                    heartbeat_interval_ms=round(min(3.0, settings.kafka_session_timeout_s / 4) * 1000),
                    max_poll_records=self._poll_records,
                    # The default waits up to 30 s between attempts: brokers would be back long before we notice.
                    reconnect_backoff_max_ms=1000,
                    bootstrap_timeout_ms=round(settings.kafka_timeout_s * 1000),
                )
            )
            self._consumer.subscribe(list(self._topics), listener=self._changes)
            # Joining before the metadata is there costs a second rebalance, and only a subscriber keeps what comes.
            for topic in self._topics:
                self._consumer.partitions_for_topic(topic)
        except (KafkaError, OSError) as error:
            raise _sentence(settings, "cannot be joined", error) from error

    def _keep_joining(self) -> None:
        """
        Make kafka-python see a join through that it began because partitions were added.

        A member that leads the group forgets that reason when it has made the assignment, before it is told the result
        (KAFKA-9815, in kafka-python 3.0): a poll that ends in between would be the last that looks at the join, while
        no heartbeats are sent until it is done.
        """
        self._consumer._coordinator.request_rejoin()  # noqa: SLF001 -- no public call rejoins

    @property
    def rebalancing(self) -> bool:
        """Whether it is not known at the moment which partitions are ours."""
        return self._changes.rebalancing

    @property
    def held(self) -> set[tuple[str, int]]:
        """Partitions of this member."""
        return self._changes.held

    @property
    def shop_partitions(self) -> set[tuple[str, int]]:
        """Partitions of `items` among them."""
        return {at for at in self.held if self._topics[at[0]] == "items"}

    @property
    def reached(self) -> dict[tuple[str, int], int]:
        """Next offsets of the partitions that have brought records."""
        return self._next

    def position(self, at: tuple[str, int]) -> int | None:
        """Return the next offset of a partition that has brought nothing yet, None when that is not known now."""
        try:
            offset: int | None = self._consumer.position(
                TopicPartition(*at), timeout_ms=round(_CONTACT_TIMEOUT_S * 1000)
            )
        except (KafkaError, OSError) as error:
            _LOG.warning("position_unknown", error=str(error))
            return None
        return offset

    def behind(self) -> int:
        """Return how many records of `items` wait to be read, as far as fetches have told."""
        waiting = 0
        for at in self.shop_partitions:
            partition = TopicPartition(*at)
            if partition in self._consumer.assignment() and (end := self._consumer.highwater(partition)) is not None:
                waiting += max(0, end - self._next.get(at, end))
        return waiting

    def live_starts(self) -> dict[tuple[str, int], int]:
        """Return where the live records of `items` begin that a member before us was reading, by partition."""
        starts: dict[tuple[str, int], int] = {}
        try:
            for at in self.shop_partitions:
                found = self._consumer.committed(
                    TopicPartition(*at), metadata=True, timeout_ms=round(_COMMIT_TIMEOUT_S * 1000)
                )
                if found is None:
                    continue
                note = str(found.metadata)
                offset = note.removeprefix(_LIVE_NOTE)
                # One that has been passed says nothing any more.
                if note != offset and offset.isdecimal() and int(offset) > max(found.offset, self._next.get(at, 0)):
                    starts[at] = int(offset)
        except (KafkaError, OSError) as error:
            # Without them live records are read from now on, and earlier ones in their turn.
            _LOG.warning("live_starts_unknown", error=str(error))
        return starts

    def poll(self, timeout_s: float, *, full: bool) -> Polled:
        """Return what has come; `full` keeps the membership alive and reads nothing."""
        try:
            if full:
                self._consumer.pause(*self._consumer.assignment())
            elif self._paused:
                self._consumer.resume(*self._consumer.paused())
            self._paused = full
            found = self._consumer.poll(timeout_ms=round(timeout_s * 1000))
        except (KafkaError, OSError) as error:
            raise _sentence(self._settings, "cannot be read", error) from error
        if found:
            self._contact = time.monotonic()
        self._join_anew_when_stuck()
        lost, gained = self._changes.drain()
        for at in lost:
            self._next.pop(at, None)
        for partition, batch in found.items():
            self._next[partition.topic, partition.partition] = batch[-1].offset + 1
        records = [
            Record(
                Position(raw.topic, raw.partition, raw.offset),
                self._topics[raw.topic] == "items",
                raw.key,
                raw.value,
            )
            for batch in found.values()
            for raw in batch
        ]
        return Polled(records, lost, gained)

    def _join_anew_when_stuck(self) -> None:
        """
        Join with a new client when a rebalance does not end.

        kafka-python 3 keeps the task that joins between polls, and heartbeats wait for it: one that is forgotten would
        leave this process idle for good.
        """
        now = time.monotonic()
        if not self._changes.rebalancing:
            self._settled_at = now
            return
        if now - self._settled_at < _STUCK_SESSIONS * self._settings.kafka_session_timeout_s:
            return
        _LOG.warning("join_stuck", seconds=round(now - self._settled_at, 1))
        self._settled_at = now
        self.close()
        self._changes.lose_all()
        self._paused = False
        self._join()

    def commit(
        self, offsets: Mapping[tuple[str, int], int], live_starts: Mapping[tuple[str, int], int] = MappingProxyType({})
    ) -> bool:
        """
        Commit next offsets; False when Kafka did not take them now (membership lost, or away).

        `live_starts` are noted with them, for who comes next.
        """
        if not offsets:
            return True
        asked = time.monotonic()
        try:
            self._consumer.commit(
                {
                    TopicPartition(*at): OffsetAndMetadata(
                        offset, f"{_LIVE_NOTE}{live_starts[at]}" if at in live_starts else "", -1
                    )
                    for at, offset in offsets.items()
                },
                timeout_ms=round(_COMMIT_TIMEOUT_S * 1000),
            )
        except _MEMBERSHIP_LOST as error:
            _LOG.info("commit_refused", reason=str(error))
            return False
        except RetriableError as error:
            _LOG.warning("commit_delayed", reason=str(error))
            return False
        except (KafkaError, OSError) as error:
            raise _sentence(self._settings, "refused a commit", error) from error
        self._contact = time.monotonic()
        self.confirmed_s = asked
        return True

    def watch(self, pending: int) -> None:
        """
        Ask the brokers for the ends of our partitions, now and then, and export the lag.

        `pending` records are read and not settled.
        """
        now = time.monotonic()
        if now - self._asked < _CONTACT_INTERVAL_S:
            return
        self._asked = now
        held = [TopicPartition(*at) for at in self.held] or [TopicPartition(next(iter(self._topics)), 0)]
        try:
            ends = self._consumer.end_offsets(held, timeout_ms=round(_CONTACT_TIMEOUT_S * 1000))
            lag = dict.fromkeys(SOURCES, 0)
            for partition in held if self.held else ():
                position = self._consumer.position(partition, timeout_ms=round(_CONTACT_TIMEOUT_S * 1000))
                lag[self._topics[partition.topic]] += max(0, ends[partition] - position)
        except (KafkaError, OSError) as error:
            if now - self._contact > self._settings.kafka_timeout_s:
                raise _sentence(
                    self._settings, f"did not answer for {self._settings.kafka_timeout_s:g} s", error
                ) from error
            _LOG.warning("kafka_silent", seconds=round(now - self._contact, 1), error=str(error))
            return
        self._contact = time.monotonic()
        lag["items"] += pending
        for name, records in lag.items():
            metrics.LAG_RECORDS.labels(name).set(records)

    def close(self) -> None:
        """Leave the group; the others take over at once."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=3000)
        except (KafkaError, OSError) as error:
            _LOG.warning("leave_failed", error=str(error))


def _places(partitions: Iterable[Any]) -> set[tuple[str, int]]:
    return {(partition.topic, partition.partition) for partition in partitions}


def _sentence(settings: Settings, what: str, error: BaseException) -> FreshetError:
    if isinstance(error, FencedInstanceIdError):
        return InstanceFencedError(
            f"another process has joined the group as {settings.kafka_group_instance_id}: "
            "FRESHET_KAFKA_GROUP_INSTANCE_ID must differ between processes"
        )
    return DependencyError(f"Kafka at {settings.kafka_bootstrap} {what}: {error}")
