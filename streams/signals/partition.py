"""One owned partition of the signals worker: the demand for its items, its changelog, and what is published of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import orjson
import structlog
from confluent_kafka import Message

from streams import metrics
from streams.errors import RecordFormatError
from streams.kafka.alignment import Slice
from streams.kafka.owner import CONTROL_KEY, Owner
from streams.kafka.transactions import OutRecord
from streams.settings import Settings
from streams.signals.codec import (
    decode_item_events,
    decode_signal_state,
    encode_item_signals,
    encode_signal_state,
)
from streams.signals.popularity import Popularity, demand_weights
from streams.signals.routing import item_partitions
from streams.topics import full_name
from streams.wire.dead_letters import DeadLetter
from streams.wire.limits import Rejected

_LOG = structlog.get_logger(__name__)


class SignalsPartition:
    """The `Work` of one partition of the signals worker."""

    def __init__(
        self, settings: Settings, partition: int, partitions: int, clock: Callable[[], float] = time.time
    ) -> None:
        self.partition = partition
        self._partitions = partitions
        self.changelog = full_name(settings, "signal-state")
        self.popularity = Popularity(settings.half_life_popularity_s)
        self._signals_topic = full_name(settings, "item-signals")
        self._dead_letters_topic = full_name(settings, "dead-letters")
        self._weights = demand_weights(settings)
        self._clock = clock
        self._epoch = 0
        self._changed: dict[str, None] = {}
        self._out: list[OutRecord] = []
        self._owner: Owner | None = None

    def restore(self, messages: Sequence[Message]) -> None:
        """Take in changelog records; a damaged one is told and costs that item's history."""
        for message in messages:
            key, value = message.key(), message.value()
            if key == CONTROL_KEY:
                self._epoch = int(orjson.loads(value)["epoch"])
                continue
            try:
                if value is not None:
                    self.popularity.restore(key.decode(), decode_signal_state(value))
            except (RecordFormatError, UnicodeDecodeError) as error:
                metrics.STATE_DAMAGED.inc()
                _LOG.error("state_record_damaged", partition=self.partition, offset=message.offset(), error=str(error))
        metrics.RESTORED.inc(len(messages))

    def opened(self, owner: Owner) -> Iterable[OutRecord]:
        """Begin a new epoch."""
        self._owner = owner
        self._epoch += 1
        return [OutRecord(self.changelog, CONTROL_KEY, orjson.dumps({"epoch": self._epoch}), self.partition)]

    def fold(self, pieces: Sequence[Slice]) -> None:
        """Count the events of each batch; a batch that cannot be read becomes a dead letter."""
        counted = 0
        for piece in pieces:
            for record in piece.records:
                try:
                    events = decode_item_events(record.value or b"")
                except RecordFormatError as error:
                    self._refuse(piece.run.topic, record.offset, record.key, record.value, str(error))
                    continue
                own = item_partitions(events.ids, self._partitions)[events.item] == self.partition
                counted += int(own.sum())
                for item, ts_ms, type_code in zip(
                    events.item[own].tolist(), events.ts_ms[own].tolist(), events.type_code[own].tolist(), strict=True
                ):
                    self.popularity.add(events.ids[item], ts_ms, self._weights[type_code])
                    self._changed[events.ids[item]] = None
        metrics.SIGNAL_EVENTS.inc(counted)

    def _refuse(self, topic: str, offset: int, key: bytes | None, value: bytes | None, error: str) -> None:
        metrics.DEAD_LETTERS.labels("item-events", "wrong_type").inc()
        letter = DeadLetter.of(
            Rejected("wrong_type", error), topic, self.partition, offset, round(self._clock() * 1000), key, value
        )
        self._out.append(OutRecord(self._dead_letters_topic, topic.encode(), value, headers=letter.headers()))

    def caught_up(self) -> None:
        """Nothing waits for this role's catching up."""

    def gather(self) -> Sequence[OutRecord]:
        """Return the changed items' state and their signals."""
        records, self._out = self._out, []
        changed, self._changed = self._changed, {}
        records.extend(
            OutRecord(
                self.changelog, item_id.encode(), encode_signal_state(self.popularity.state(item_id)), self.partition
            )
            for item_id in changed
        )
        # In the same transaction as the state: what is published is never behind what was counted.
        records.extend(
            OutRecord(self._signals_topic, item_id.encode(), encode_item_signals(self.popularity.signals(item_id)))
            for item_id in changed
        )
        metrics.SIGNALS_PUBLISHED.inc(len(changed))
        return records

    def close(self) -> None:
        """Let go: the items are the next owner's."""
        self._changed.clear()
