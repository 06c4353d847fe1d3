"""One code path: the lists that the worker publishes are those that an evaluation of the same log makes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from confluent_kafka import Producer

from models.interactions import Asking
from models.scorer_file import TrainedScorer, save_scorer
from streams.datasets.log import Entry
from streams.evaluation.live import Live
from streams.evaluation.logs import EvaluationLog, columns
from streams.kafka.clients import librdkafka_config
from streams.kafka.partitioner import LIBRDKAFKA_PARTITIONER
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.items import Item
from streams.wire.models import SERVED_KEY, Served
from streams.wire.neighbours import decode_item_neighbours
from streams.wire.signals import decode_item_signals
from streams.wire.vectors import encode_vector, vector_key
from tests.support.roles import RoleProcess
from tests.support.scoring import random_scorer
from tests.support.verifier import read_topic, wait_until_consumed

pytestmark = pytest.mark.integration

_DIM = 16
_SPACE = Served("00000000feedbeef", _DIM, "random")
_ITEMS = 60
_USERS = 30
#: Topics in the order in which their events happen: topics are read apart, and one behind the other nothing is early.
_PHASES = {"views": 400, "clicks": 400, "purchases": 60, "dislikes": 40}


def walks() -> list[Entry]:
    """Return what users do who walk among neighbouring items, a minute an event, now and then from a device."""
    rng, devices = random.Random(3), random.Random(4)
    start_ms = round(time.time() * 1000) - 20 * 86_400_000
    here = [rng.randrange(_ITEMS) for _ in range(_USERS)]
    entries: list[Entry] = []
    for topic, count in _PHASES.items():
        for _ in range(count):
            user = rng.randrange(_USERS)
            here[user] = (here[user] + rng.choice([1, 1, 2, 7, -3])) % _ITEMS
            fields = {"event_id": f"e{len(entries)}", "user_id": f"u{user}", "item_id": f"i{here[user]}"}
            if device := devices.choice(["", "phone", "desktop", "t\u00e9l\u00e9"]):
                fields["device"] = device
            entries.append(Entry(topic, start_ms + 60_000 * len(entries), fields))
    return entries


def vectors() -> list[tuple[bytes, bytes]]:
    """Return the records of a vector for each item."""
    found = np.random.default_rng(4).normal(size=(_ITEMS, _DIM)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return [
        (vector_key(_SPACE.fingerprint, f"i{number}"), encode_vector(bytes(16), vector))
        for number, vector in enumerate(found)
    ]


def live_lists(settings: Settings, told: EvaluationLog) -> dict[str, bytes]:
    """Return the places of each user's list, as an evaluation makes it."""
    live = Live(settings, told.users, told.items, told.cards, told.devices)
    live.learn(told.interactions)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the signals role's fits: by several, sums round otherwise
    live.fit()
    torch.set_num_threads(threads)
    live.serve(_SPACE, vectors())
    count = len(told.users)
    asking = Asking(np.arange(count, dtype=np.int32), np.full(count, -1, np.int32), np.zeros(count, np.int64))
    ranked = live.ranked(asking, settings.list_size, exclude_seen=True)
    return {user: one.items_json for user, one in zip(told.users, ranked, strict=True)}


class Sender:
    """Puts what a shop, its users and an encoder say into the topics."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._out = Producer(librdkafka_config(settings, partitioner=LIBRDKAFKA_PARTITIONER, enable_idempotence=True))

    def __call__(self, topic: str, key: bytes, value: bytes) -> None:
        """Send one record."""
        self._out.produce(full_name(self._settings, topic), value, key)

    def flush(self) -> None:
        """Wait until everything is there."""
        assert self._out.flush(30) == 0


def wait_until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def is_followed(settings: Settings, worker: RoleProcess, events: int) -> bool:
    """Whether all events are counted, the fit is published, and the worker has read all of it."""
    signals, neighbours = (read_topic(settings, name) for name in ("item-signals", "item-neighbours"))
    demands = [decode_item_signals(value) for value in {read.key: read.value or b"" for read in signals}.values()]
    told = {read.key: decode_item_neighbours(read.value or b"") for read in neighbours}
    return (
        sum(demand.events for demand in demands) == events
        and len(told) == len(demands)
        and all(item.neighbours and item.followers for item in told.values())
        and worker.metric("freshet_catalogue_records_total", topic="item-signals") == len(signals)
        and worker.metric("freshet_catalogue_records_total", topic="item-neighbours") == len(neighbours)
    )


def published(settings: Settings) -> dict[str, bytes]:
    """Return the places of each user's newest list, where it was made in the vector space."""
    newest = {read.key: read.value or b"" for read in read_topic(settings, "recommendations")}
    lists = [msgspec.json.decode(value, type=dict[str, msgspec.Raw]) for value in newest.values()]
    decoded = [(msgspec.json.decode(one["user_id"]), msgspec.json.decode(one["model"]), one) for one in lists]
    return {user: bytes(one["items"]) for user, model, one in decoded if user and model == _SPACE.fingerprint}


def test_published_and_evaluated_lists_are_equal(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """
    All that every user's list says of its items is the same bytes, with a learned scorer and fresh items to explore.

    Prices and segments by hour and device are in them, too. The worker folds the log; then the signals role counts it,
    fits once and publishes; at last the vectors come, all in one step, for which every user is ranked again. So each
    list is of all events, all signals, one fit, all vectors.
    """
    scorer, ranking = tmp_path / "scorer.safetensors", tmp_path / "ranking.json"
    save_scorer(TrainedScorer(random_scorer(4, _DIM), _SPACE.fingerprint), scorer)
    ranking.write_text('{"ranking": {"network": 0.7, "price": 0.2, "segment": 0.2, "explore": 0.5}}')
    settings = settings_for(
        partitions=1, signals_publish_interval_s=0.2, neighbours_regularisation=5.0, scorer_file=scorer,
        ranking_file=ranking, day_parts=4, user_devices=("phone", "t\u00e9l\u00e9"),
    )  # fmt: skip
    entries = walks()
    cards = [
        Item(f"i{number}", title=f"Item {number}", category=f"c{number % 7}", price=1.0 + number % 9)
        for number in range(_ITEMS)
    ]
    told = columns("walks", entries, cards)
    send = Sender(settings)
    for card in cards:
        send("items", card.item_id.encode(), card.encode())
    send.flush()
    with RoleProcess("worker", settings, tmp_path) as worker:
        worker.ready()
        for topic in _PHASES:
            for entry in entries:
                if entry.topic == topic:
                    send(topic, entry.key, entry.value())
            send.flush()
            wait_until_consumed(settings)
        with RoleProcess("signals", settings, tmp_path) as signals:
            signals.ready()
            wait_until(lambda: signals.metric("freshet_neighbours_fits_total", result="ok") == 1)
            wait_until(lambda: is_followed(settings, worker, len(entries)))
        for key, value in vectors():
            send("item-vectors", key, value)
        send.flush()
        send("models", SERVED_KEY, _SPACE.encode())
        send.flush()
        wait_until(lambda: len(published(settings)) == len(told.users))

    lists = published(settings)
    sources = {place["source"] for one in lists.values() for place in msgspec.json.decode(one)}

    assert live_lists(settings, told) == lists
    for other in ({"scorer_file": None}, {"user_devices": ()}, {"user_devices": ("desktop",)}):
        assert live_lists(settings.model_copy(update=other), told) != lists
    assert {settings.list_size} == {len(msgspec.json.decode(one)) for one in lists.values()}
    assert {"interest", "neighbours", "explore"} <= sources
