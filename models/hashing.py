"""Hashes of bytes, compiled: where Kafka puts a key, what names an event, and what finds an id in a table."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from models.compiled import compiled

Bytes = npt.NDArray[np.uint8]

_MURMUR_SEED: Final = np.uint64(0x9747B28C)
_MURMUR_M: Final = np.uint64(0x5BD1E995)
_32_BITS: Final = np.uint64(0xFFFFFFFF)
_FNV_OFFSET: Final = np.uint64(0xCBF29CE484222325)
_FNV_PRIME: Final = np.uint64(0x100000001B3)


@compiled
def murmur2(pool: Bytes, at: int, size: int) -> int:
    """
    Return Kafka's hash of `pool[at:at + size]`, 31 bits: modulo the partition count it is the key's partition.

    >>> murmur2(np.frombuffer(b"user-1", np.uint8), 0, 6) % 8
    4
    """
    # In 64 bits, cut to 32: that is what numba makes of products of 32 bits anyway.
    mixed = _MURMUR_SEED ^ np.uint64(size)
    end = at + size
    while at + 4 <= end:
        word = np.uint64(0)
        for place in range(4):
            word |= np.uint64(pool[at + place]) << np.uint64(8 * place)
        word = word * _MURMUR_M & _32_BITS
        word = (word ^ (word >> np.uint64(24))) * _MURMUR_M
        mixed = (mixed * _MURMUR_M ^ word) & _32_BITS
        at += 4
    if at < end:
        for place in range(end - at):
            mixed ^= np.uint64(pool[at + place]) << np.uint64(8 * place)
        mixed = mixed * _MURMUR_M & _32_BITS
    mixed = (mixed ^ (mixed >> np.uint64(13))) * _MURMUR_M & _32_BITS
    return int((mixed ^ (mixed >> np.uint64(15))) & np.uint64(0x7FFFFFFF))


@compiled
def event_name(kind: int, pool: Bytes, at: int, size: int) -> np.uint64:
    """Return 64 bits of a type and an event id: FNV-1a, begun with the type, and murmur3's finisher."""
    mixed = _FNV_OFFSET ^ np.uint64(kind)
    for place in range(at, at + size):
        mixed = (mixed ^ np.uint64(pool[place])) * _FNV_PRIME
    mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return mixed ^ (mixed >> np.uint64(33))


@compiled
def _rotated(word: np.uint64, bits: int) -> np.uint64:
    return (word << np.uint64(bits)) | (word >> np.uint64(64 - bits))


@compiled
def _rounds(
    v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64, count: int
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    for _ in range(count):
        v0 += v1
        v1 = _rotated(v1, 13) ^ v0
        v0 = _rotated(v0, 32)
        v2 += v3
        v3 = _rotated(v3, 16) ^ v2
        v0 += v3
        v3 = _rotated(v3, 21) ^ v0
        v2 += v1
        v1 = _rotated(v1, 17) ^ v2
        v2 = _rotated(v2, 32)
    return v0, v1, v2, v3


@compiled
def siphash(pool: Bytes, at: int, size: int, key: npt.NDArray[np.uint64]) -> tuple[np.uint64, np.uint64]:
    """
    Return SipHash-2-4 of `pool[at:at + size]` with 128 bits, as two words (Aumasson, Bernstein: "SipHash", 2012).

    Who does not know the key cannot choose ids that share a place, and among 10^9 ids two share all bits with a
    probability of 10^-21: where the key is secret the hash stands for the id.

    Parameters
    ----------
    key
        (2,) uint64.

    """
    v0 = key[0] ^ np.uint64(0x736F6D6570736575)
    v1 = key[1] ^ np.uint64(0x646F72616E646F6D) ^ np.uint64(0xEE)
    v2 = key[0] ^ np.uint64(0x6C7967656E657261)
    v3 = key[1] ^ np.uint64(0x7465646279746573)
    end = at + size
    while at + 8 <= end:
        word = np.uint64(0)
        for place in range(8):
            word |= np.uint64(pool[at + place]) << np.uint64(8 * place)
        v3 ^= word
        v0, v1, v2, v3 = _rounds(v0, v1, v2, v3, 2)
        v0 ^= word
        at += 8
    word = np.uint64(size & 0xFF) << np.uint64(56)
    for place in range(end - at):
        word |= np.uint64(pool[at + place]) << np.uint64(8 * place)
    v3 ^= word
    v0, v1, v2, v3 = _rounds(v0, v1, v2, v3, 2)
    v0 ^= word
    v2 ^= np.uint64(0xEE)
    v0, v1, v2, v3 = _rounds(v0, v1, v2, v3, 4)
    low = v0 ^ v1 ^ v2 ^ v3
    v1 ^= np.uint64(0xDD)
    v0, v1, v2, v3 = _rounds(v0, v1, v2, v3, 4)
    return low, v0 ^ v1 ^ v2 ^ v3
