"""The partition of a key: murmur2, as the Java client, kafka-python and aiokafka choose it by default."""

from __future__ import annotations

from typing import cast

from kafka.partitioner.default import murmur2

#: librdkafka's name of the same partitioner; its own default is CRC32, which tears users apart.
LIBRDKAFKA_PARTITIONER = "murmur2_random"


def partition_of(key: bytes, partitions: int) -> int:
    """
    Return the partition number of a key.

    >>> partition_of(b"user-1", 8)
    4
    """
    return (cast("int", murmur2(key)) & 0x7FFFFFFF) % partitions
