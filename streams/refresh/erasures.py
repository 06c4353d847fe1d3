"""
Forgetting users of one partition: requests in, the records that forget them out.

An erasure takes effect at its record's own timestamp: what the user's records appended up to then had caused goes,
whatever order they are read in, and what is appended later makes a new user. The mark of it stays in the user's state
for as long as an older record may still be read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from streams import metrics
from streams.interests.slab import Slab
from streams.kafka.alignment import Slice
from streams.kafka.outgoing import OutRecord
from streams.kafka.partitioner import partition_of
from streams.settings import Settings
from streams.topics import ERASURE_MARK_MS, full_name
from streams.wire.dead_letters import DeadLetter
from streams.wire.erasures import Erasure, Receipt, decode_erasure
from streams.wire.limits import Rejected
from streams.wire.recommendations import topic_key

TOPIC = "user-erasures"

#: Marks looked at in one commit; at five commits a second a day's million of erasures would leave in seven minutes.
_EXPIRE_AT_ONCE = 500


class Forgotten(NamedTuple):
    """What requests did: the records that belong into the transaction, and the users who are not known any more."""

    records: list[OutRecord]
    users: list[str]


class Erasures:
    """
    Erases users of one partition.

    Parameters
    ----------
    partitions
        Partition count of the event topics, for the check that a key belongs here.
    clock
        Seconds since the epoch.

    """

    def __init__(
        self, settings: Settings, partition: int, partitions: int, slab: Slab, clock: Callable[[], float] = time.time
    ) -> None:
        self._partition = partition
        self._partitions = partitions
        self._slab = slab
        self._clock = clock
        self._max_ahead_ms = round(settings.max_event_ahead_s * 1000)
        self._surfaces = settings.surfaces
        self._topic = full_name(settings, TOPIC)
        self._receipts_topic = full_name(settings, "erasure-receipts")
        self._state_topic = full_name(settings, "user-state")
        self._lists_topic = full_name(settings, "recommendations")
        self._dead_letters_topic = full_name(settings, "dead-letters")

    def split(self, pieces: Sequence[Slice]) -> tuple[list[Any], list[Slice]]:
        """Return the records that are requests, and the pieces that are events."""
        requests = [record for piece in pieces if piece.run.topic == self._topic for record in piece.records]
        return requests, [piece for piece in pieces if piece.run.topic != self._topic]

    def erase(self, requests: Iterable[Any]) -> Forgotten:
        """
        Forget the users whom requests name; a request that cannot be used becomes a dead letter.

        A request that is not newer than the user's mark was done before, by itself or a newer one: it gets its
        receipt, and the user who may have come since stays.
        """
        records: list[OutRecord] = []
        users: list[str] = []
        for record in requests:
            erasure = self._decode(record)
            if isinstance(erasure, Rejected):
                metrics.DEAD_LETTERS.labels(TOPIC, erasure.reason).inc()
                metrics.ERASURES.labels("rejected").inc()
                records.append(self._dead_letter(erasure, record))
                continue
            known = record.timestamp <= self._slab.erased.get(erasure.user_id, 0)
            metrics.ERASURES.labels("repeated" if known else "erased").inc()
            if not known:
                users.append(erasure.user_id)
                records.append(self._state(erasure.user_id, self._slab.erase(erasure.user_id, record.timestamp)))
                records.extend(
                    OutRecord(
                        self._lists_topic, topic_key(erasure.user_id, surface, self._surfaces[0]), None, self._partition
                    )
                    for surface in self._surfaces
                )
            receipt = Receipt.of(erasure, record.timestamp, self._partition, record.offset)
            records.append(OutRecord(self._receipts_topic, receipt.request_id.encode(), receipt.encode()))
        return Forgotten(records, users)

    def settle(self, user_id: str) -> list[OutRecord]:
        """Return what says that the cache has forgotten an erased user too; a state of a new user says it itself."""
        if (row := self._slab.row(user_id)) is not None:
            self._slab.write_again(row)
        elif user_id in self._slab.erased:
            return [self._state(user_id, self._slab.mark(user_id, pending=False))]
        return []

    def expire(self) -> Iterator[OutRecord]:
        """Yield the tombstones of users whose mark has become too old to keep anything away."""
        before_ms = round(self._clock() * 1000) - ERASURE_MARK_MS
        for user_id in self._slab.expire_marks(before_ms, _EXPIRE_AT_ONCE):
            yield self._state(user_id, None)

    def _state(self, user_id: str, value: bytes | None) -> OutRecord:
        return OutRecord(self._state_topic, user_id.encode(), value, self._partition)

    def _decode(self, record: Any) -> Erasure | Rejected:
        erasure = decode_erasure(record.key, record.value)
        if isinstance(erasure, Rejected):
            return erasure
        if (belongs := partition_of(record.key, self._partitions)) != self._partition:
            return Rejected(
                "wrong_partition", f"the key belongs to partition {belongs} of {self._partitions} (murmur2)"
            )
        ahead_ms = record.timestamp - round(self._clock() * 1000)
        if ahead_ms > self._max_ahead_ms:
            # Taken as it is, it would drop whatever the user does until then.
            return Rejected("bad_time", f"the record's timestamp is {ahead_ms // 1000} s ahead")
        if ahead_ms < -ERASURE_MARK_MS:
            # No record of the user is that old any more, and without the mark a new user would go.
            return Rejected("too_old", f"the request is more than {ERASURE_MARK_MS // 86_400_000} days old")
        return erasure

    def _dead_letter(self, rejected: Rejected, record: Any) -> OutRecord:
        letter = DeadLetter.of(
            rejected, self._topic, self._partition, record.offset, round(self._clock() * 1000), record.key, record.value
        )
        return OutRecord(self._dead_letters_topic, self._topic.encode(), record.value, headers=letter.headers())
