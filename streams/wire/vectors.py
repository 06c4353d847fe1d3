"""
Item vectors on the wire: the binary value of `item-vectors`.

Layout, little endian: magic `FV`, format version (u8), dtype (u8: 1 = float16), dimension (u16), reserved (u16),
content hash (16 bytes), CRC-32 of all that stands before and after it (u32), then the vector.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.errors import RecordFormatError

_HEAD = struct.Struct("<2sBBHH16s")
_CRC = struct.Struct("<I")
_MAGIC = b"FV"
_VERSION = 1
_FLOAT16 = 1
_MAX_FLOAT16 = float(np.finfo(np.float16).max)
CONTENT_HASH_BYTES = 16
FINGERPRINT_CHARS = 16


class ItemVector(NamedTuple):
    """What the encoder said of one item: hash of the text it read, and a unit vector (d,) float32."""

    content_hash: bytes
    vector: npt.NDArray[np.float32]


def encode_vector(content_hash: bytes, vector: npt.NDArray[np.float32]) -> bytes:
    """
    Return the record value; the vector (d,) is stored as float16.

    Raises
    ------
    ValueError
        When the hash has not 16 bytes or the vector, in float16, is not finite.

    >>> record = encode_vector(bytes(16), np.array([0.6, 0.8], np.float32))
    >>> decode_vector(record).vector.round(2).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    if len(content_hash) != CONTENT_HASH_BYTES:
        raise ValueError(f"a content hash has {CONTENT_HASH_BYTES} bytes, not {len(content_hash)}")
    if not (np.abs(vector) <= _MAX_FLOAT16).all():
        raise ValueError("a vector must be finite in float16")
    body = vector.astype("<f2").tobytes()
    head = _HEAD.pack(_MAGIC, _VERSION, _FLOAT16, vector.shape[0], 0, content_hash)
    return head + _CRC.pack(zlib.crc32(body, zlib.crc32(head))) + body


def decode_vector(record: bytes) -> ItemVector:
    """
    Read a record value.

    Raises
    ------
    RecordFormatError
        When the record is cut, altered, of another version, or its vector is not finite.

    """
    start = _HEAD.size + _CRC.size
    if len(record) < start:
        raise RecordFormatError(f"an item vector of {len(record)} bytes is cut short")
    magic, version, dtype, dim, _, content_hash = _HEAD.unpack_from(record)
    if magic != _MAGIC or version != _VERSION or dtype != _FLOAT16:
        raise RecordFormatError(f"not an item vector of version {_VERSION}")
    body = record[start:]
    crc = zlib.crc32(body, zlib.crc32(record[: _HEAD.size]))
    if len(body) != 2 * dim or _CRC.unpack_from(record, _HEAD.size)[0] != crc:
        raise RecordFormatError("an item vector is damaged (checksum)")
    vector = np.frombuffer(body, "<f2").astype(np.float32)
    if not np.isfinite(vector).all():
        raise RecordFormatError("an item vector is not finite")
    return ItemVector(content_hash, vector)


def vector_key(fingerprint: str, item_id: str) -> bytes:
    """
    Return the record key of an item's vector in one vector space.

    >>> vector_key("0123456789abcdef", "i1")
    b'0123456789abcdef:i1'
    """
    return f"{fingerprint}:{item_id}".encode()


def split_vector_key(key: bytes) -> tuple[str, str]:
    """
    Return (fingerprint, item id) of a record key.

    Raises
    ------
    RecordFormatError
        When the key has no fingerprint.

    """
    fingerprint, colon, item_id = key.decode("utf-8", "replace").partition(":")
    if not colon or len(fingerprint) != FINGERPRINT_CHARS or not item_id:
        raise RecordFormatError("the key of an item vector is not fingerprint:item_id")
    return fingerprint, item_id
