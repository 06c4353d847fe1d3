"""What is encoded already: item to content hash, in memory, read back from `item-vectors` itself."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from confluent_kafka import Message

from streams.errors import RecordFormatError
from streams.kafka.bulk_read import read_to_end
from streams.kafka.deadline import Deadline
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.vectors import decode_vector, split_vector_key

_LOG = structlog.get_logger(__name__)

#: Record header of `item-vectors` that says which topic's snapshot was encoded. After a restart it is what keeps a
#: sighting from replacing the vector of a shop's own item.
SOURCE_HEADER = "source"
SHOP = b"items"
SIGHTING = b"item-sightings"


class Seen:
    """
    The encoded items of one fingerprint.

    About 150 bytes an item: an unchanged item is skipped without asking anything, across restarts.
    """

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        self._hashes: dict[str, bytes] = {}
        # Encoded from a sighting: only these may be replaced by another sighting.
        self._sighted: set[str] = set()
        # The shop's items that say nothing to encode.
        self._silent: set[str] = set()
        self._ends: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._hashes

    def current(self, item_id: str, content_hash: bytes, *, shop: bool) -> bool:
        """
        Whether the vector on the topic is this text's.

        A sighting's vector does not count for the shop's own snapshot: it is published once more, as the shop's.
        """
        return self._hashes.get(item_id) == content_hash and not (shop and item_id in self._sighted)

    def shop_owns(self, item_id: str) -> bool:
        """Whether `items` has said something about the item, as far as is known."""
        return item_id in self._silent or (item_id in self._hashes and item_id not in self._sighted)

    def put(self, item_id: str, content_hash: bytes, *, shop: bool) -> None:
        """Take note of a vector that is out."""
        self._hashes[item_id] = content_hash
        self._silent.discard(item_id)
        if shop:
            self._sighted.discard(item_id)
        else:
            self._sighted.add(item_id)

    def forget(self, item_id: str, *, silent: bool = False) -> None:
        """Take note that the item has no vector; `silent` says that the shop still has it, without a text."""
        self._hashes.pop(item_id, None)
        self._sighted.discard(item_id)
        if silent:
            self._silent.add(item_id)
        else:
            self._silent.discard(item_id)

    def catch_up(self, settings: Settings, partitions: int) -> None:
        """
        Read `item-vectors` from where the last reading ended to its end.

        Called at start and whenever partitions come from another worker, which may have encoded newer texts: to skip
        by what it left behind would keep an old vector for good.

        Raises
        ------
        DependencyError
            When the end is not reached within `kafka_timeout_s`.

        """
        deadline = Deadline(settings.kafka_timeout_s)
        topic = full_name(settings, "item-vectors")
        self._ends |= read_to_end(settings, topic, range(partitions), self._take, deadline, self._ends)

    def _take(self, messages: Sequence[Message]) -> None:
        prefix = self._fingerprint.encode() + b":"
        for message in messages:
            key = message.key()
            if key is None or not key.startswith(prefix):
                continue
            try:
                item_id = split_vector_key(key)[1]
                value = message.value()
                if value is None:
                    self.forget(item_id, silent=item_id in self._silent)
                    continue
                source = dict(message.headers() or []).get(SOURCE_HEADER, SHOP)
                self.put(item_id, decode_vector(value).content_hash, shop=source != SIGHTING)
            except RecordFormatError as error:
                # Whatever it was, the item counts as not encoded and is encoded again when it is next read.
                _LOG.warning("vector_unreadable", partition=message.partition(), error=str(error))
