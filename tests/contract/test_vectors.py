"""The record of `item-vectors`: golden bytes, and no damage goes unseen."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.errors import RecordFormatError
from streams.wire.vectors import decode_vector, encode_vector, split_vector_key, vector_key

HASH = bytes(range(16))
VECTOR = np.array([0.5, -0.5, 0.5, 0.5], np.float32)
GOLDEN = bytes.fromhex("4656010104000000000102030405060708090a0b0c0d0e0f6a4122ad003800b800380038")


def test_golden_bytes() -> None:
    """A vector gives the bytes that were written down."""
    assert GOLDEN == encode_vector(HASH, VECTOR)


def test_golden_record_reads_back() -> None:
    """The bytes that were written down give the vector."""
    record = decode_vector(GOLDEN)
    assert record.content_hash == HASH
    assert VECTOR.tolist() == record.vector.tolist()
    assert record.vector.dtype == np.float32


def test_every_changed_byte_is_noticed() -> None:
    """Whichever byte changes, the record is refused; so is every cut."""
    for at in range(len(GOLDEN)):
        with pytest.raises(RecordFormatError):
            decode_vector(GOLDEN[:at] + bytes([GOLDEN[at] ^ 0x55]) + GOLDEN[at + 1 :])
        with pytest.raises(RecordFormatError):
            decode_vector(GOLDEN[:at])


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_refused(record: bytes) -> None:
    """Bytes that are no vector are a RecordFormatError, nothing else."""
    with pytest.raises(RecordFormatError):
        decode_vector(record)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e6])
def test_only_finite_vectors_are_written(bad: float) -> None:
    """A vector that is not finite in float16 is refused before it is written."""
    with pytest.raises(ValueError, match="finite"):
        encode_vector(HASH, np.array([0.5, bad], np.float32))


def test_only_finite_vectors_are_read() -> None:
    """A sound record of a vector that is not finite is refused."""
    head, body = GOLDEN[:24], np.array([1, np.nan, 0, 0], "<f2").tobytes()
    with pytest.raises(RecordFormatError, match="finite"):
        decode_vector(head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body)


def test_content_hash_has_its_length() -> None:
    """A shorter hash would be padded and never match again."""
    with pytest.raises(ValueError, match="16 bytes"):
        encode_vector(b"short", VECTOR)


def test_keys() -> None:
    """A key names the vector space, then the item, whose id may hold colons."""
    key = vector_key("0123456789abcdef", "urn:sku:1")
    assert key == b"0123456789abcdef:urn:sku:1"
    assert split_vector_key(key) == ("0123456789abcdef", "urn:sku:1")


@pytest.mark.parametrize("key", [b"", b"i1", b"short:i1", b"0123456789abcdef:", b"\xff" * 16])
def test_bad_key(key: bytes) -> None:
    """A key without fingerprint or item is refused."""
    with pytest.raises(RecordFormatError):
        split_vector_key(key)
