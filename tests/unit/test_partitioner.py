"""The partition of a key."""

from __future__ import annotations

import pytest

from streams.kafka.partitioner import partition_of


@pytest.mark.parametrize(
    ("key", "murmur2"),
    [
        # From Apache Kafka's own UtilsTest: what every client in every language must agree on.
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_partitions_are_those_of_the_java_client(key: bytes, murmur2: int) -> None:
    """The number is Java's murmur2 made positive, modulo the partitions."""
    assert (murmur2 & 0x7FFFFFFF) % 12 == partition_of(key, 12)
