"""A partition of the interest worker on a log in memory: what it sends, commits, and is restored from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streams.catalogue.matrix import Catalogue
from streams.kafka.outgoing import OutRecord
from streams.kafka.transport import Record
from streams.kafka.work import CONTROL_KEY
from streams.refresh.dirty import Cause
from streams.refresh.partition import InterestPartition
from streams.settings import Settings
from tests.support.outgoing import one_by_one
from tests.support.records import slice_of


class Owed:
    """Notes who is owed a list, and whom the cache has to forget."""

    def __init__(self) -> None:
        self.causes: dict[str, Cause] = {}
        self.erased: dict[str, int] = {}

    def mark(self, partition: InterestPartition, user_id: str, cause: Cause) -> None:
        """Note it."""
        del partition
        self.causes[user_id] = cause

    def took(self, partition: InterestPartition) -> None:
        """Look after nothing."""
        del partition

    def forget(self, partition: InterestPartition) -> None:
        """Forget all."""
        del partition
        self.causes.clear()

    def owes(self, user_ids: Sequence[str]) -> list[bool]:
        """Whether it was noted."""
        return [user_id in self.causes or user_id in self.erased for user_id in user_ids]

    def erase(self, partition: InterestPartition, user_id: str, version: int) -> None:
        """Note it, and that no list is owed any more."""
        del partition
        self.causes.pop(user_id, None)
        self.erased[user_id] = version


class Message:
    """A changelog record as librdkafka hands it over."""

    def __init__(self, key: bytes, value: bytes | None) -> None:
        self._key, self._value = key, value

    def key(self) -> bytes:
        """Key."""
        return self._key

    def value(self) -> bytes | None:
        """Value."""
        return self._value

    def offset(self) -> int:
        """Any offset."""
        return 0


def messages(records: Iterable[OutRecord], topic: str) -> list[Message]:
    """Return the records of a topic as they are restored."""
    return [Message(record.key or b"", record.value) for record in records if record.topic == topic]


class FakeOwner:
    """Keeps what is sent; a commit adds what is gathered, as the real one does."""

    def __init__(self) -> None:
        self.state = "live"
        self.consumed: dict[str, int] = {}
        self.sent: list[OutRecord] = []

    def send(self, records: Sequence[OutRecord]) -> None:
        """Keep records."""
        self.sent.extend(records)


class LoggedPartition:
    """
    The only partition of its topics, live, with everything it ever committed.

    Attributes
    ----------
    log
        Committed records in order.
    catalogue
        Outlives the partition's deaths.

    """

    def __init__(self, settings: Settings, now_ms: int) -> None:
        self.log: list[OutRecord] = []
        self.catalogue = Catalogue(dim=2)
        self.now_ms = now_ms
        self._settings = settings
        self.take()

    def take(self) -> None:
        """Die without a word and be restored from what was committed."""
        self.owed = Owed()
        self.owner = FakeOwner()
        counts = {"clicks": 1, "item-events": 1}
        self.work = InterestPartition(
            self._settings, 0, counts, self.catalogue, self.owed, clock=lambda: self.now_ms / 1000
        )
        self.work.restore(messages(self.log, "user-state"))
        self.log.extend(self.work.opened(self.owner))  # type: ignore[arg-type]  # a double
        self.work.caught_up()

    def fold(self, *records: tuple[str, Record]) -> None:
        """Fold records of any topics as one turn of alignment lets them go."""
        pieces = []
        for topic in dict.fromkeys(topic for topic, _ in records):
            found = [record for name, record in records if name == topic]
            pieces.append(slice_of(topic, found))
        self.work.fold(pieces)

    def commit(self) -> list[OutRecord]:
        """Commit; return what the transaction holds."""
        gathered = list(one_by_one(self.work.gather()))
        records, self.owner.sent = [*self.owner.sent, *gathered], []
        self.log.extend(records)
        return records

    def newest(self, topic: str) -> dict[str, bytes | None]:
        """Return the newest committed value of each key of a topic, without control records."""
        return {
            record.key.decode(): record.value
            for record in self.log
            if record.topic == topic and record.key is not None and record.key != CONTROL_KEY
        }
