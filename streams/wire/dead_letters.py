"""Dead letters: what was refused, with its original bytes and the reason in the headers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from streams.errors import RecordFormatError
from streams.wire.limits import Rejected

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One refused record: where it came from, why, and its bytes as they were."""

    topic: str
    partition: int
    offset: int
    reason: str
    error: str
    time_ms: int
    key: bytes | None
    value: bytes | None

    @classmethod
    def of(
        cls, rejected: Rejected, topic: str, partition: int, offset: int, time_ms: int,
        key: bytes | None, value: bytes | None,
    ) -> Self:  # fmt: skip
        """Refuse one record."""
        return cls(topic, partition, offset, rejected.reason, rejected.error, time_ms, key, value)

    def headers(self) -> Headers:
        """Return the record headers; the value stays the original bytes (absent for a tombstone)."""
        headers = [
            ("topic", self.topic.encode()),
            ("partition", b"%d" % self.partition),
            ("offset", b"%d" % self.offset),
            ("reason", self.reason.encode()),
            ("error", self.error.encode("utf-8", "replace")[:1_000]),
            ("time", b"%d" % self.time_ms),
        ]
        if self.key is not None:
            headers.append(("key", self.key))
        return headers

    @classmethod
    def from_record(cls, headers: Headers, value: bytes | None) -> Self:
        """
        Read a record of `dead-letters` back.

        Raises
        ------
        RecordFormatError
            When a header is missing or not what this module writes.

        """
        fields = dict(headers)
        try:
            return cls(
                topic=fields["topic"].decode(),
                partition=int(fields["partition"]),
                offset=int(fields["offset"]),
                reason=fields["reason"].decode(),
                error=fields["error"].decode("utf-8", "replace"),
                time_ms=int(fields["time"]),
                key=fields.get("key"),
                value=value,
            )
        except (KeyError, ValueError) as error:
            raise RecordFormatError(f"not a dead letter: {error}") from error
