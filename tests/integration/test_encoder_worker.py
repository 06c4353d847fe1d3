"""The encoder worker against a real Kafka with a tiny real model: items in, vectors out, once, whatever happens."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import pytest

from models.text import content_hash
from streams.encoding.source import load_encoder
from streams.errors import DependencyError, TopicMismatchError
from streams.kafka.admin import group_lags
from streams.kafka.partitioner import partition_of
from streams.local.processes import free_port
from streams.roles.encoder import EncoderWorker
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.dead_letters import DeadLetter
from streams.wire.items import Item
from streams.wire.models import Served, decode_served
from streams.wire.vectors import decode_vector, split_vector_key
from tests.support.encoders import RunningEncoder, counted, put, put_raw, vectors, wait_for, with_text
from tests.support.flights import forward_by, forward_of
from tests.support.roles import RoleProcess
from tests.support.tiny_model import DIM, forget_unknown_words, make_tiny_model
from tests.support.verifier import read_topic

pytestmark = pytest.mark.integration

SettingsFor = Callable[..., Settings]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model folder for the module."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def settings(settings_for: SettingsFor, model: Path) -> Settings:
    """A namespace of its own for each test."""
    return settings_for(
        partitions=4,
        model_path=model,
        device="cpu",
        encoder_threads=1,
        encoder_precision="fp32",  # vectors are compared with exact ones
        kafka_session_timeout_s=8,
        commit_timeout_s=5,
    )


def test_items_become_vectors(settings: Settings) -> None:
    """Each item has one unit vector of its text under the right key and partition, and the model is named as served."""
    items = [Item(f"i{number}", title=f"mug {number}", tags=("gift",), price=number) for number in range(50)]
    with RunningEncoder(settings):
        put(settings, *items)
        wait_for(lambda: len(vectors(settings)) == len(items))
    encoder = load_encoder(settings)
    found = vectors(settings)
    texts = [f"mug {number}. gift" for number in range(50)]
    expected = encoder.encode(texts)
    for item, text, vector in zip(items, texts, expected, strict=True):
        assert found[item.item_id].content_hash == content_hash(text)
        np.testing.assert_allclose(found[item.item_id].vector, vector, atol=2e-3)
    for record in read_topic(settings, "item-vectors"):
        fingerprint, item_id = split_vector_key(record.key or b"")
        assert (fingerprint, record.partition) == (encoder.fingerprint, partition_of(item_id.encode(), 4))
    (served,) = [record.value for record in read_topic(settings, "models") if record.key == b"served"]
    assert orjson.loads(served or b"") == {"fingerprint": encoder.fingerprint, "model": "tiny", "dim": DIM}
    (lag,) = [lag for lag in group_lags(settings) if lag.group.endswith(f"freshet-encoder-{encoder.fingerprint}")]
    assert lag.total == 0


def test_a_restart_encodes_nothing_again(settings: Settings) -> None:
    """What is on the topic is skipped by its hash, even when every item is told again; the served record stays."""
    items = [Item(f"i{number}", title=f"cup {number}") for number in range(30)]
    with RunningEncoder(settings):
        put(settings, *items)
        wait_for(lambda: len(vectors(settings)) == len(items))
    put(settings, *items, Item("i0", title="cup 0", price=9.5), Item("new", title="a new cup"))
    with counted("unchanged") as unchanged, counted("encoded") as encoded, RunningEncoder(settings):
        wait_for(lambda: unchanged() + encoded() == 32)
        assert (unchanged(), encoded()) == (31, 1)
    assert len([record for record in read_topic(settings, "models") if record.key == b"served"]) == 1


def test_changes_and_deletions_follow(settings: Settings) -> None:
    """A new text gives a new vector, a tombstone or an emptied text takes it away."""
    with RunningEncoder(settings):
        put(settings, Item("a", title="red mug"), Item("b", title="blue mug"), Item("c", title="cup"))
        wait_for(lambda: len(vectors(settings)) == 3)
        put(settings, Item("a", title="red cup"), Item("b"))
        put_raw(settings, b"c", None)
        wait_for(lambda: set(vectors(settings)) == {"a"} and with_text(settings, "red cup") == {"a"})


def test_bad_records_do_not_stop_the_partition(settings: Settings) -> None:
    """Each ends in dead-letters with its place and its bytes; good items before and after are encoded."""
    bad = [
        (b"x", b"{nope"),
        (b"x", b"[]"),
        (b"x", b'{"title": 3}'),
        (b"x", b'{"item_id": "y", "title": "mug"}'),
        (b"\xff", b'{"title": "mug"}'),
        (b"x", b'{"title": "' + b"m" * 900_000 + b'"}'),
        (b"x", b'{"attributes": ' + b'{"a": ' * 500 + b"1" + b"}" * 501),
        (b"x", b'{"title": "mug", "price": NaN}'),
        (b"k" * 300, b'{"title": "mug"}'),
    ]
    with RunningEncoder(settings):
        put(settings, Item("before", title="mug"))
        for key, value in bad:
            put_raw(settings, key, value)
        put(settings, *(Item(f"after{number}", title="mug") for number in range(20)))
        wait_for(lambda: len(vectors(settings)) == 21)
        wait_for(lambda: len(read_topic(settings, "dead-letters")) == len(bad))
    letters = [DeadLetter.from_record(record.headers, record.value) for record in read_topic(settings, "dead-letters")]
    assert sorted((letter.key or b"", letter.value or b"") for letter in letters) == sorted(bad)
    assert {letter.topic for letter in letters} == {full_name(settings, "items")}
    assert all(letter.reason and letter.error for letter in letters)


def test_an_item_the_model_cannot_encode_is_set_aside(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to dead-letters with its bytes; the items of its batch are published."""
    real = load_encoder(settings)
    forward = forward_of(real)
    poison = real.tokenize(["canary mug canary"])[0]

    def sometimes(tokens: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        result = forward(tokens)
        result[[ids == poison for ids in tokens]] = np.nan
        return result

    forward_by(monkeypatch, real, sometimes)
    monkeypatch.setattr("streams.roles.encoder.load_encoder", lambda _settings: real)
    bad = Item("bad", title="canary mug canary")
    with RunningEncoder(settings):
        put(settings, Item("a", title="red mug"), bad, Item("b", title="blue mug"))
        wait_for(lambda: set(vectors(settings)) == {"a", "b"} and len(read_topic(settings, "dead-letters")) == 1)
    (record,) = read_topic(settings, "dead-letters")
    letter = DeadLetter.from_record(record.headers, record.value)
    assert (letter.reason, letter.value) == ("bad_model_output", bad.encode())


def test_an_item_the_tokenizer_refuses_is_set_aside(settings: Settings, tmp_path: Path) -> None:
    """It goes to dead-letters with its bytes, the worker and the items of its poll go on, and nothing is left over."""
    folder = make_tiny_model(tmp_path / "words")
    forget_unknown_words(folder)
    bad = Item("bad", title="a green mug")
    strict = settings.model_copy(update={"model_path": folder})
    with RunningEncoder(strict):
        put(settings, Item("a", title="red mug"), bad, Item("b", title="blue mug"))
        wait_for(lambda: set(vectors(settings)) == {"a", "b"} and len(read_topic(settings, "dead-letters")) == 1)
        put(settings, Item("bad", title="a red cup"))
        wait_for(lambda: set(vectors(settings)) == {"a", "b", "bad"})
    (record,) = read_topic(settings, "dead-letters")
    letter = DeadLetter.from_record(record.headers, record.value)
    assert (letter.reason, letter.value) == ("bad_model_output", bad.encode())
    assert [lag.total for lag in group_lags(settings)] == [0]


def test_sightings_count_while_the_shop_is_silent(settings: Settings) -> None:
    """An item seen in an event is encoded; the shop's own snapshot replaces it and holds, across a restart too."""
    with RunningEncoder(settings):
        put(settings, Item("a", title="red mug"), topic="item-sightings")
        wait_for(lambda: with_text(settings, "red mug") == {"a"})
        put(settings, Item("a", title="blue mug"))
        wait_for(lambda: with_text(settings, "blue mug") == {"a"})
    with counted("superseded") as superseded, RunningEncoder(settings):
        put(settings, Item("a", title="gift"), topic="item-sightings")
        wait_for(lambda: superseded() == 1)
    assert with_text(settings, "blue mug") == {"a"}


def test_two_workers_share_the_catalogue(settings: Settings) -> None:
    """While partitions move between workers every item is encoded, and a text that came back is not mistaken."""
    items = [Item(f"i{number}", title=f"film {number}") for number in range(300)]
    with RunningEncoder(settings):
        put(settings, *items[:150])
        with RunningEncoder(settings):
            put(settings, *items[150:], *(Item(f"i{number}", title="drama") for number in range(150)))
            wait_for(lambda: len(with_text(settings, "drama")) == 150)
            wait_for(lambda: len(vectors(settings)) == 300)
        # The first worker once encoded these texts itself; the second has replaced them meanwhile.
        put(settings, *items[:150])
        wait_for(lambda: not with_text(settings, "drama"))
    found = vectors(settings)
    assert [item.item_id for item in items if found[item.item_id].content_hash != content_hash(item.title)] == []


def test_a_second_model_encodes_beside_the_served_one(settings: Settings, tmp_path: Path) -> None:
    """It names itself, has keys and a group of its own, and changes neither what is served nor the first one's work."""
    other = settings.model_copy(update={"model_path": make_tiny_model(tmp_path / "other", seed=1)})
    items = [Item(f"i{number}", title=f"mug {number}") for number in range(30)]
    prints = [load_encoder(one).fingerprint for one in (settings, other)]

    def covered(fingerprint: str) -> set[str]:
        keys = [split_vector_key(record.key or b"") for record in read_topic(settings, "item-vectors")]
        return {item_id for name, item_id in keys if name == fingerprint}

    with RunningEncoder(settings):
        put(settings, *items[:20])
        wait_for(lambda: len(covered(prints[0])) == 20)
        with RunningEncoder(other):
            put(settings, *items[20:])
            wait_for(lambda: all(len(covered(fingerprint)) == 30 for fingerprint in prints))
    told = {record.key: decode_served(record.value or b"") for record in read_topic(settings, "models")}
    first, second = (Served(prints[0], DIM, "tiny"), Served(prints[1], DIM, "other"))
    assert told == {b"served": first, prints[0].encode(): first, prints[1].encode(): second}
    groups = {lag.group: lag.total for lag in group_lags(settings)}
    assert groups == {settings.group(f"encoder-{fingerprint}"): 0 for fingerprint in prints}


def test_kill_9_loses_nothing(settings: Settings, tmp_path: Path) -> None:
    """Killed in the middle, the next worker encodes the rest; what was out is not encoded again."""
    words = "the blue mug and the red cup of the film " * 3
    items = [Item(f"i{number}", title=f"{words} {number}") for number in range(4_000)]
    slow = settings.model_copy(update={"encoder_batch_tokens": 500})
    put(settings, *items)
    with RoleProcess("encoder", slow, tmp_path) as process:
        process.ready()
        wait_for(lambda: process.metric("freshet_encoder_items_total", outcome="encoded") > 200)
        process.kill()
        before = len(vectors(settings))
        assert 0 < before < len(items)
        process.start().ready()
        wait_for(lambda: len(vectors(settings)) == len(items), 150)
        # Not more than was missing; less, when what the first had on its way at its death still arrived.
        assert process.metric("freshet_encoder_items_total", outcome="encoded") <= len(items) - before
        started = time.monotonic()
        process.signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert time.monotonic() - started < 10
    assert all(lag.total == 0 for lag in group_lags(settings) if "freshet-encoder" in lag.group)


def test_a_killed_encoder_leaves_its_share_to_the_other(settings: Settings, tmp_path: Path) -> None:
    """While partitions move, every item gets the vector of its newest text, and no text is encoded twice."""
    model = make_tiny_model(tmp_path / "slow", layers=60)
    slow = settings.model_copy(update={"model_path": model, "encoder_batch_tokens": 300})
    items = [Item(f"i{number}", title=f"{'the blue mug ' * 8}{number}") for number in range(2_000)]
    changed = [Item(f"i{number}", title=f"mug {number}") for number in range(0, 2_000, 20)]
    wanted = {item.item_id: content_hash(item.title) for item in [*items, *changed]}
    with RoleProcess("encoder", slow, tmp_path, "one") as one, RoleProcess("encoder", slow, tmp_path, "other") as other:
        for each in (one, other):
            each.ready()
        put(settings, *items)
        wait_for(lambda: all(each.metric("freshet_encoder_items_total", outcome="encoded") for each in (one, other)))
        one.kill()
        put(settings, *changed)
        wait_for(lambda: {name: found.content_hash for name, found in vectors(settings).items()} == wanted, 120)
        assert other.alive
        wait_for(lambda: all(lag.total == 0 for lag in group_lags(settings)))
    assert len(read_topic(settings, "item-vectors")) <= len(items) + len(changed)


def history(settings: Settings) -> dict[str, list[bytes]]:
    """Return the content hashes of each item's vectors, in the order in which they came out."""
    hashes: dict[str, list[bytes]] = {}
    for record in read_topic(settings, "item-vectors"):
        item_id = split_vector_key(record.key or b"")[1]
        hashes.setdefault(item_id, []).append(decode_vector(record.value or b"").content_hash)
    return hashes


def test_live_changes_go_before_a_backlog(settings: Settings, tmp_path: Path) -> None:
    """They are encoded before it, older texts of theirs never after, also where the worker was killed meanwhile."""
    words = "the blue mug and the red cup of the film " * 3
    items = [Item(f"i{number}", title=f"{words}{number}") for number in range(6_000)]
    # Every hundredth changes: some were encoded already, of most the old text waits unread.
    changed = [Item(f"i{number}", title=f"mug {number}") for number in range(0, 6_000, 100)]
    first, second = changed[::2], changed[1::2]
    fresh = {item.item_id: content_hash(item.title) for item in changed}
    model = make_tiny_model(tmp_path / "slow", layers=60)
    slow = settings.model_copy(update={"model_path": model, "encoder_batch_tokens": 500})

    def out() -> dict[str, bytes]:
        return {item_id: hashes[-1] for item_id, hashes in history(settings).items()}

    def are_fresh(some: list[Item]) -> bool:
        found = out()
        return all(found.get(item.item_id) == fresh[item.item_id] for item in some)

    put(settings, *items)
    with RoleProcess("encoder", slow, tmp_path) as process:
        process.ready()
        wait_for(lambda: process.metric("freshet_encoder_items_total", outcome="encoded") > 100)
        put(settings, *first)
        wait_for(lambda: are_fresh(first))
        time.sleep(1)  # the next commit notes where live records begin
        process.kill()
        assert len(out()) < len(items) - 1_000
        process.start().ready()
        put(settings, *second)
        wait_for(lambda: are_fresh(changed))
        wait_for(lambda: len(out()) == len(items), 150)
        wait_for(lambda: all(lag.total == 0 for lag in group_lags(settings)))
    old = {item.item_id: content_hash(item.title) for item in items}
    wanted = {
        item_id: [[text], [text, fresh.get(item_id, text)], [fresh.get(item_id, text)]] for item_id, text in old.items()
    }
    assert out() == old | fresh
    # The last vector of each partition is of the backlog.
    lasts = {read.partition: split_vector_key(read.key or b"")[1] for read in read_topic(settings, "item-vectors")}
    assert not fresh.keys() & lasts.values()
    turns = {item_id: [text for text, _ in groupby(hashes)] for item_id, hashes in history(settings).items()}
    assert {item_id: texts for item_id, texts in turns.items() if texts not in wanted[item_id]} == {}


def test_kafka_away_ends_it_with_a_sentence(settings: Settings) -> None:
    """Nobody listens: after `kafka_timeout_s` the worker ends with the address in the message."""
    port = free_port()
    nowhere = settings.model_copy(update={"kafka_bootstrap": f"127.0.0.1:{port}", "kafka_timeout_s": 1.0})
    with pytest.raises(DependencyError, match=f"127.0.0.1:{port} did not answer"):
        EncoderWorker(nowhere).run()


def test_a_missing_topic_ends_it_with_a_sentence(settings: Settings) -> None:
    """Nothing is read or created when the topics were not made."""
    with pytest.raises(TopicMismatchError, match=r"nobody\.items is missing"):
        EncoderWorker(settings.model_copy(update={"namespace": "nobody"})).run()
