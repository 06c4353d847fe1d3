"""A model upgrade under a stream of clicks: promoted, rolled back, retired, and never a list of two spaces."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import orjson
import pytest
from confluent_kafka import Consumer

from models.ranking import RankingParameters, unit
from models.text import content_hash
from streams.kafka.clients import librdkafka_config
from streams.kafka.partitioner import partition_of
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.models import Served
from streams.wire.recommendations import Recommendation, decode_recommendation
from streams.wire.vectors import decode_vector, encode_vector, split_vector_key, vector_key
from tests.support.encoders import wait_for
from tests.support.shop import producer
from tests.support.upgrades import answer, refused, run
from tests.support.verifier import read_topic

pytestmark = pytest.mark.integration

OLD, NEW = "0" * 16, "1" * 16
ITEMS, DIM, USERS = 2_000, 16, 100
#: A user keeps 256 interactions of one time as they are; beyond, the oldest would be folded together.
CLICKS = 200
CLICKS_PER_S = 150.0


def encoded(seed: int) -> list[bytes]:
    """Records of random unit vectors, one for each item."""
    drawn = unit(np.random.default_rng(seed).normal(size=(ITEMS, DIM)).astype(np.float32))
    return [encode_vector(content_hash(f"Item {number}"), vector) for number, vector in enumerate(drawn)]


RECORDS = {OLD: encoded(1), NEW: encoded(2)}
TABLES = {
    fingerprint: unit(np.stack([decode_vector(record).vector for record in records]))
    for fingerprint, records in RECORDS.items()
}


@pytest.fixture(scope="module")
def settings(settings_for: Callable[..., Settings]) -> Settings:
    """One namespace for the module, with a shop whose items have vectors of the old space, and that space served."""
    made = settings_for(partitions=2, default_list_interval_s=1)
    out = producer(made)
    out.produce(full_name(made, "models"), Served(OLD, DIM, "old").encode(), b"served")
    for number in range(ITEMS):
        out.produce(full_name(made, "items"), orjson.dumps({"title": f"Item {number}"}), f"i{number}".encode())
    out.produce(full_name(made, "items"), orjson.dumps({"price": 1}), b"without a text")
    assert out.flush(30) == 0
    encode(made, OLD, range(ITEMS))
    return made


def encode(settings: Settings, fingerprint: str, items: range) -> None:
    """Write vectors as an encoder would."""
    out = producer(settings)
    for number in items:
        item_id = f"i{number}"
        partition = partition_of(item_id.encode(), settings.partitions)
        value, key = RECORDS[fingerprint][number], vector_key(fingerprint, item_id)
        out.produce(full_name(settings, "item-vectors"), value, key, partition)
        out.poll(0)
    assert out.flush(30) == 0


def pair(user: int) -> tuple[int, int]:
    """The two items that a user clicks in turn."""
    return (7 * user) % ITEMS, (7 * user + 3) % ITEMS


class Clicks(threading.Thread):
    """
    Users who click their two items in turn, all at one time each, so that nothing decays.

    A user with n clicks likes the direction of ceil(n/2) times the first vector and floor(n/2) times the second.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="clicks", daemon=True)
        self._settings = settings
        self._over = threading.Event()

    def run(self) -> None:
        """Click at a steady rate until told to end, one round of all users after the other."""
        out = producer(self._settings)
        now_ms = round(time.time() * 1000)
        rounds = itertools.product(range(CLICKS), range(USERS))
        for number, user in rounds:
            event = {
                "event_id": f"e{user}-{number}",
                "user_id": f"u{user}",
                "item_id": f"i{pair(user)[number % 2]}",
                "ts": now_ms,
            }
            out.produce(full_name(self._settings, "clicks"), orjson.dumps(event), f"u{user}".encode())
            out.poll(0)
            if self._over.wait(1 / CLICKS_PER_S):
                break
        assert out.flush(30) == 0

    def end(self) -> None:
        """Stop clicking; fails where the clicks were used up before."""
        assert self.is_alive(), "the clicks did not last"
        self._over.set()
        self.join(30)


def lists(settings: Settings) -> Iterator[tuple[int, Recommendation]]:
    """Every list that was published, with its partition."""
    for record in read_topic(settings, "recommendations"):
        if record.value is not None:
            yield record.partition, decode_recommendation(record.value)


def models_seen(settings: Settings) -> dict[int, list[str]]:
    """Return, by partition, which models made its lists, in the order of their versions, each run of them once."""
    made: defaultdict[int, list[Recommendation]] = defaultdict(list)
    for partition, found in lists(settings):
        made[partition].append(found)
    return {
        partition: [name for name, _ in itertools.groupby(one.model for one in sorted(found, key=lambda x: x.version))]
        for partition, found in made.items()
    }


def wholly_of(found: Recommendation, fingerprint: str) -> bool:
    """
    Whether the list is what one space alone gives: its items, and the score of each.

    All clicks are of one time, so the short and the long interest have one direction.
    """
    vectors = TABLES[fingerprint].astype(np.float64)
    user, count = int(found.user_id[1:]), found.events_applied["clicks"]
    first, second = pair(user)
    liked = (count + 1) // 2 * vectors[first] + count // 2 * vectors[second]
    weights = RankingParameters()
    scores = (weights.short + weights.long) * (vectors @ (liked / np.linalg.norm(liked)))
    scores[[first, second][: min(count, 2)]] = -np.inf
    best = np.sort(scores)[::-1][: len(found.items)]
    listed = [scores[int(item.item_id[1:])] for item in found.items]
    told = [item.score for item in found.items]
    return bool(np.allclose(told, listed, atol=2e-5) and np.allclose(told, best, atol=2e-5))


@pytest.mark.usefixtures("worker")
def test_no_list_mixes_two_spaces_during_an_upgrade(settings: Settings) -> None:
    """
    Every list published under load is exactly that of the space it names, through two switches and a rollback.

    The gates hold until the new space covers the catalogue; after retiring, nothing of the old one is left.
    """
    clicks = Clicks(settings)
    clicks.start()
    wait_for(lambda: models_seen(settings).keys() == {0, 1})

    # The gates.
    assert "0000000000000001 has no vectors" in refused(settings, "promote", "0000000000000001")
    encode(settings, NEW, range(ITEMS // 2))
    assert f"covers {ITEMS // 2} of {ITEMS} items with a text (50.00%)" in refused(settings, "promote", NEW)
    encode(settings, NEW, range(ITEMS // 2, ITEMS))
    assert "20.0% are needed (--min-overlap)" in refused(settings, "promote", NEW)
    assert "none before it is known" in refused(settings, "rollback")
    assert {OLD} == {model for seen in models_seen(settings).values() for model in seen}

    # There, back, and there again.
    promoted = answer(settings, "promote", NEW, "--force")
    wait_for(lambda: {(OLD, NEW)} == set(map(tuple, models_seen(settings).values())))
    rolled_back = answer(settings, "rollback")
    wait_for(lambda: {(OLD, NEW, OLD)} == set(map(tuple, models_seen(settings).values())))
    assert "none before it is known" in refused(settings, "rollback")
    assert promoted == answer(settings, "promote", NEW, "--min-overlap", "0")
    wait_for(lambda: {(OLD, NEW, OLD, NEW)} == set(map(tuple, models_seen(settings).values())))
    assert promoted == answer(settings, "promote", NEW)
    state = {space["fingerprint"]: space["state"] for space in answer(settings, "status")["spaces"]}
    clicks.end()

    assert {"fingerprint": OLD, "dim": DIM, "model": "old"} == rolled_back
    assert {"fingerprint": NEW, "dim": DIM, "previous": rolled_back} == promoted
    assert {OLD: "previous", NEW: "served"} == state
    made = [found for _, found in lists(settings)]
    mixed = [found for found in made if found.user_id and not wholly_of(found, found.model)]
    assert [] == mixed
    assert {OLD, NEW} == {found.model for found in made if found.user_id}
    assert {OLD, NEW} == {found.model for found in made if not found.user_id}
    other = {OLD: NEW, NEW: OLD}
    assert not any(wholly_of(found, other[found.model]) for found in made if found.user_id)

    # The end of the old space.
    assert f"{NEW} is served; promote another model first" in refused(settings, "retire", NEW, "--yes")
    group = settings.group(f"encoder-{OLD}")
    encoder = Consumer(librdkafka_config(settings, group_id=group, auto_offset_reset="earliest"))
    encoder.subscribe([full_name(settings, "items")])
    assert encoder.poll(30) is not None
    assert f"an encoder of {OLD} is running" in refused(settings, "retire", OLD, "--yes")
    encoder.close()
    assert {"retired": OLD, "vectors": ITEMS} == answer(settings, "retire", OLD, "--yes")
    left: dict[bytes | None, bytes | None] = {}
    for record in read_topic(settings, "item-vectors"):
        assert partition_of(split_vector_key(record.key or b"")[1].encode(), 2) == record.partition
        left[record.key] = record.value
    assert {NEW} == {split_vector_key(key or b"")[0] for key, value in left.items() if value is not None}
    assert [(NEW, "served")] == [
        (space["fingerprint"], space["state"]) for space in answer(settings, "status")["spaces"]
    ]
    assert "none before it is known" in refused(settings, "rollback")
    assert f"{OLD} is not known" in refused(settings, "retire", OLD, "--yes")


def test_status_of_an_empty_namespace(settings_for: Callable[..., Settings]) -> None:
    """Without a model nothing is listed, and the commands that change say so in a sentence."""
    settings = settings_for(partitions=1)
    assert {"items": 0, "spaces": []} == answer(settings, "status")
    assert "no vector space yet" in run(settings, "status").stderr
    assert "no model is served yet" in refused(settings, "rollback")


def test_status_shows_coverage_of_items_that_have_a_text(settings_for: Callable[..., Settings]) -> None:
    """Counted are items that are not deleted and have a text; names and dimensions come from the encoders' records."""
    settings = settings_for(partitions=2)
    out = producer(settings)
    for number in range(20):
        out.produce(full_name(settings, "items"), orjson.dumps({"title": f"Item {number}"}), f"i{number}".encode())
    out.produce(full_name(settings, "items"), None, b"i19")
    out.produce(full_name(settings, "items"), orjson.dumps({"price": 2}), b"i18")
    for served in (Served(OLD, DIM, "old"), Served(NEW, DIM, "new [b]")):
        out.produce(full_name(settings, "models"), served.encode(), served.fingerprint.encode())
    out.produce(full_name(settings, "models"), Served(OLD, DIM, "old").encode(), b"served")
    assert out.flush(30) == 0
    encode(settings, OLD, range(20))
    assert 0 == run(settings, "status").exit_code

    before = answer(settings, "status")
    encode(settings, NEW, range(9))
    after = answer(settings, "status")["spaces"][1]
    shown = run(settings, "status").stdout

    old = {
        "model": "old",
        "dim": DIM,
        "covered": 18,
        "coverage": 1.0,
        "outdated": 0,
        "vectors": 20,
        "state": "served",
        "overlap": None,
    }
    new = {"model": "new [b]", "dim": DIM, "covered": 0, "coverage": 0.0, "vectors": 0, "state": "other"}
    new["outdated"] = 0
    assert {"items": 18, "spaces": [{"fingerprint": OLD} | old, {"fingerprint": NEW, "overlap": None} | new]} == before
    assert (9, 0.5, 9) == (after["covered"], after["coverage"], after["vectors"])
    assert 1.0 == after["overlap"]  # of nine items all others are among the nearest eight
    assert "9 (50.00%)" in shown
    assert "new [b]" in shown


def test_a_vector_of_an_older_text_does_not_cover(settings_for: Callable[..., Settings]) -> None:
    """An encoder that is behind with changes must not be promoted; what image an item had is not known, and counts."""
    settings = settings_for(partitions=2)
    out = producer(settings)
    for number in range(20):
        out.produce(full_name(settings, "items"), orjson.dumps({"title": f"Item {number}"}), f"i{number}".encode())
    out.produce(full_name(settings, "items"), orjson.dumps({"title": "new", "image_url": "3.jpg"}), b"i3")
    out.produce(full_name(settings, "items"), orjson.dumps({"title": "Item 4", "price": 2}), b"i4")
    assert out.flush(30) == 0
    encode(settings, NEW, range(20))
    before = answer(settings, "status")["spaces"][0]
    out.produce(full_name(settings, "items"), orjson.dumps({"title": "another text"}), b"i5")
    assert out.flush(30) == 0
    after = answer(settings, "status")["spaces"][0]

    assert (20, 0) == (before["covered"], before["outdated"])
    assert (19, 1) == (after["covered"], after["outdated"])
    assert "19 of 20 items with a text (95.00%), 1 more by an older text" in refused(settings, "promote", NEW)


def test_a_stranger_among_the_records_does_no_harm(settings_for: Callable[..., Settings]) -> None:
    """Keys of no space and values that cannot be read count as not covered, and are not in the way."""
    settings = settings_for(partitions=1)
    out = producer(settings)
    out.produce(full_name(settings, "items"), b'{"title": "a"}', b"i0")
    out.produce(full_name(settings, "models"), b"{", NEW.encode())
    out.produce(full_name(settings, "item-vectors"), b"?", b"no space")
    out.produce(full_name(settings, "item-vectors"), b"?", vector_key(NEW, "i0"))
    assert out.flush(30) == 0
    assert [] == answer(settings, "status")["spaces"]
