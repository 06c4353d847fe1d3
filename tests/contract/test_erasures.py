"""Erasures on the wire: what a request may look like, what a receipt says, and what it must not."""

from __future__ import annotations

import msgspec
import orjson
import pytest

from streams.wire.erasures import MAX_ERASURE_BYTES, Erasure, Receipt, decode_erasure, decode_receipt
from streams.wire.limits import Rejected

NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"user_id": "u"}, Erasure("u")),
        ({"user_id": 42}, Erasure("42")),
        ({"user_id": "u", "request_id": None, "requested_at": None}, Erasure("u")),
        ({"user_id": "u", "request_id": "r-1", "requested_at": NOW_MS}, Erasure("u", "r-1", NOW_MS)),
        ({"user_id": "u", "requested_at": "2026-01-01T00:00:00Z"}, Erasure("u", "", 1_767_225_600_000)),
        ({"user_id": "u", "later": {"more": [1]}}, Erasure("u")),
    ],
)
def test_requests(fields: dict[str, object], expected: Erasure) -> None:
    """A user id is enough; unknown fields are ignored."""
    assert expected == decode_erasure(expected.user_id.encode(), orjson.dumps(fields))


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"u", None, "tombstone"),
        (None, b'{"user_id":"u"}', "null_key"),
        (b"u", b"{", "not_json"),
        (b"u", b'["u"]', "not_object"),
        (b"u", b"{}", "missing_field"),
        (b"v", b'{"user_id":"u"}', "key_mismatch"),
        (b"u", b'{"user_id":["u"]}', "wrong_type"),
        (b"", b'{"user_id":""}', "bad_id"),
        (b"u", b'{"user_id":"u","request_id":"a\\u0000"}', "bad_id"),
        (b"u", b'{"user_id":"u","requested_at":1700000000}', "bad_time"),
        (b"u", b'{"user_id":"u","x":[[[[[[[[[1]]]]]]]]]}', "too_deep"),
        (b"u", b'{"user_id":"u","x":"' + b"x" * MAX_ERASURE_BYTES + b'"}', "oversize"),
    ],
)
def test_refused_requests(key: bytes | None, value: bytes | None, reason: str) -> None:
    """What is no request is a value with a reason, never an exception."""
    refused = decode_erasure(key, value)

    assert isinstance(refused, Rejected)
    assert reason == refused.reason


@pytest.mark.parametrize("erasure", [Erasure("u"), Erasure("u", "r-1", NOW_MS)])
def test_a_written_request_is_read(erasure: Erasure) -> None:
    """What the command line sends is what the worker takes."""
    assert erasure == decode_erasure(b"u", erasure.encode())


def test_a_receipt_has_these_bytes() -> None:
    """Readers of receipts rely on the names; the user is not among them."""
    receipt = Receipt.of(Erasure("the-user", "r-1", NOW_MS), NOW_MS + 5, 3, 17)
    expected = b'{"request_id":"r-1","requested_at":1800000000000,"erased_at":1800000000005,"partition":3,"offset":17}'

    assert expected == receipt.encode()
    assert receipt == decode_receipt(expected)
    assert b"the-user" not in Receipt.of(Erasure("the-user"), NOW_MS, 3, 17).encode()


def test_no_receipt() -> None:
    """Anything else is a DecodeError."""
    with pytest.raises(msgspec.DecodeError):
        decode_receipt(b"{}")
