"""A small shop: items with vectors, and a seeded stream of what its users do."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import orjson
from confluent_kafka import Producer

from streams.kafka.clients import librdkafka_config
from streams.kafka.partitioner import LIBRDKAFKA_PARTITIONER, partition_of
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.vectors import encode_vector, vector_key

FINGERPRINT = "00000000feedbeef"
DIM = 16
#: Types and how often they happen in a shop.
_TYPES = (("views", 60), ("clicks", 25), ("carts", 6), ("purchases", 4), ("dislikes", 5))


class Sent(NamedTuple):
    """One event as it goes to Kafka."""

    type_name: str
    event: dict[str, Any]


def producer(settings: Settings) -> Producer:
    """
    Return a producer that partitions as every Freshet producer must.

    Idempotent: one that sends again what Kafka has already would write bad records twice, and each is a dead letter.
    """
    return Producer(
        librdkafka_config(settings, partitioner=LIBRDKAFKA_PARTITIONER, linger_ms=2, enable_idempotence=True)
    )


def stock(settings: Settings, items: int = 120, seed: int = 1) -> None:
    """Put items and their vectors into the topics, as a shop and an encoder would."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(items, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    out = producer(settings)
    served = {"fingerprint": FINGERPRINT, "model": "random", "dim": DIM}
    out.produce(full_name(settings, "models"), orjson.dumps(served), b"served")
    for number, vector in enumerate(vectors):
        item_id = f"i{number}"
        out.produce(
            full_name(settings, "items"), orjson.dumps({"title": f"Item {number}", "category": "c"}), item_id.encode()
        )
        out.produce(
            full_name(settings, "item-vectors"),
            encode_vector(bytes(16), vector),
            vector_key(FINGERPRINT, item_id),
            partition_of(item_id.encode(), settings.partitions),
        )
    assert out.flush(30) == 0


def events(
    count: int, *, users: int = 200, items: int = 120, seed: int = 7, start_ms: int = 0, zipf: bool = False
) -> Iterator[Sent]:
    """
    Make a seeded stream: ids that repeat (a producer that sends twice), times out of order by up to five minutes.

    Event time runs a second an event, so that a user's disorder stays within the default lateness. With `zipf` the
    n-th user acts n times less than the first.
    """
    rng = random.Random(seed)
    start_ms = start_ms or round(time.time() * 1000) - count * 1000
    names = [name for name, _ in _TYPES]
    weights = [weight for _, weight in _TYPES]
    names_of_users = [f"u{number}" for number in range(users)]
    shares = list(accumulate(1 / (number + 1) for number in range(users)))
    last: Sent | None = None
    for number in range(count):
        if last is not None and rng.random() < 0.04:
            yield last
        user = rng.choices(names_of_users, cum_weights=shares)[0] if zipf else names_of_users[rng.randrange(users)]
        event = {
            "event_id": f"e{seed}-{number}",
            "user_id": user,
            "item_id": f"i{int(items * rng.random() ** 2)}",
            "ts": start_ms + number * 1000 - rng.randrange(300_000),
        }
        last = Sent(rng.choices(names, weights)[0], event)
        yield last


def delivered(stream: Iterable[Sent], seed: int, most: int = 3) -> Iterator[Sent]:
    """Deliver each event 1 to `most` times: first in its turn, the copies up to some thousand events later."""
    rng = random.Random(seed)
    waiting: list[tuple[int, int, Sent]] = []
    for number, sent in enumerate(stream):
        yield sent
        for copy in range(rng.randrange(most)):
            heappush(waiting, (number + rng.choice((1, 100, 5_000)), number * most + copy, sent))
        while waiting and waiting[0][0] <= number:
            yield heappop(waiting)[2]
    while waiting:
        yield heappop(waiting)[2]


def send(out: Producer, settings: Settings, sent: Sent) -> None:
    """Produce one event; waits when the queue is full."""
    value = orjson.dumps(sent.event)
    while True:
        try:
            out.produce(full_name(settings, sent.type_name), value, str(sent.event["user_id"]).encode())
        except BufferError:
            out.poll(0.1)
        else:
            out.poll(0)
            return
