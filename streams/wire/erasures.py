"""
Erasures on the wire: requests to forget a user come in, receipts go out.

A request takes effect at its record's own timestamp, like everything that is judged by time. A receipt names the
request and no user: it outlives what it is the receipt of, and a hash of a short id is soon guessed.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from streams.wire.events import parse_time_ms
from streams.wire.limits import Rejected, RejectedError, check_depth, check_id, read_user_record

#: Three short fields; what is larger is not a request.
MAX_ERASURE_BYTES = 4_096


class Erasure(msgspec.Struct, frozen=True, gc=False):
    """
    A request to forget a user.

    Attributes
    ----------
    request_id
        What the receipt will be keyed by; empty where the request has none.
    requested_at_ms
        When the user asked, ms since the epoch, 0 where the request does not say; the receipt repeats it.

    """

    user_id: str
    request_id: str = ""
    requested_at_ms: int = 0

    def encode(self) -> bytes:
        """Return the JSON of the request."""
        fields: dict[str, Any] = {"user_id": self.user_id}
        if self.requested_at_ms:
            fields["requested_at"] = self.requested_at_ms
        if self.request_id:
            fields["request_id"] = self.request_id
        return orjson.dumps(fields)


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """
    That a user was forgotten; committed together with it.

    Attributes
    ----------
    request_id
        Of the request; `user-erasures:PARTITION:OFFSET` where it has none.
    requested_at
        As the request says it, ms since the epoch; 0 where it does not.
    erased_at
        Records of the user appended up to then are gone, ms since the epoch.
    partition, offset
        Where the request stands on `user-erasures`.

    """

    request_id: str
    requested_at: int
    erased_at: int
    partition: int
    offset: int

    @classmethod
    def of(cls, erasure: Erasure, erased_at_ms: int, partition: int, offset: int) -> Receipt:
        """
        Acknowledge the request that stands at an offset.

        >>> Receipt.of(Erasure("u"), 1_800_000_000_000, 3, 7).request_id
        'user-erasures:3:7'
        """
        request_id = erasure.request_id or f"user-erasures:{partition}:{offset}"
        return cls(request_id, erasure.requested_at_ms, erased_at_ms, partition, offset)

    def encode(self) -> bytes:
        """Return the JSON of the receipt."""
        return msgspec.json.encode(self)


def decode_receipt(value: bytes) -> Receipt:
    """
    Read a receipt back.

    Raises
    ------
    msgspec.DecodeError
        When the bytes are not JSON, or not a receipt.

    """
    return msgspec.json.decode(value, type=Receipt)


def decode_erasure(key: bytes | None, value: bytes | None) -> Erasure | Rejected:
    """
    Read one record of `user-erasures`.

    >>> decode_erasure(b"7", b'{"user_id":7,"request_id":"r-1"}')
    Erasure(user_id='7', request_id='r-1', requested_at_ms=0)
    >>> decode_erasure(b"8", b'{"user_id":7}').reason
    'key_mismatch'
    """
    try:
        fields = read_user_record(key, value, "an erasure", MAX_ERASURE_BYTES)
        return _parse(key, fields)
    except RejectedError as error:
        return error.rejected


def _parse(key: bytes | None, fields: dict[str, Any]) -> Erasure:
    if "user_id" not in fields:
        raise RejectedError("missing_field", "user_id is missing")
    user_id = check_id(fields["user_id"], "user_id")
    if key != user_id.encode():
        raise RejectedError("key_mismatch", "the key is not the user_id")
    check_depth(fields)
    request_id, requested_at = fields.get("request_id"), fields.get("requested_at")
    return Erasure(
        user_id,
        "" if request_id is None else check_id(request_id, "request_id"),
        0 if requested_at is None else parse_time_ms(requested_at),
    )
