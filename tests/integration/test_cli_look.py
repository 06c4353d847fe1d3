"""The looking commands against a real Kafka and Redis, and a running interest worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from confluent_kafka import Producer
from typer.testing import CliRunner, Result

from streams.cli import app
from streams.commands.checks import check_kafka
from streams.commands.doctor import GROUPS
from streams.kafka.clients import librdkafka_config
from streams.kafka.deadline import Deadline
from streams.kafka.partitioner import partition_of
from streams.settings import ENV_PREFIX, Settings
from streams.topics import full_name
from tests.support.roles import environment
from tests.support.shop import FINGERPRINT, Sent, producer, send, stock

pytestmark = pytest.mark.integration

Freshet = Callable[..., Result]


@pytest.fixture(scope="module")
def settings(settings_for: Callable[..., Settings]) -> Settings:
    """One namespace for the module, with a stocked shop."""
    made = settings_for(partitions=4)
    stock(made)
    return made


def run(settings: Settings, *arguments: str, stdin: str | None = None) -> Result:
    """Run `freshet` with these settings."""
    env = {name: value for name, value in environment(settings).items() if name.startswith(ENV_PREFIX)}
    return CliRunner().invoke(app, list(arguments), env=env, input=stdin)


def answer(result: Result, exit_code: int = 0) -> Any:
    """Return the JSON on stdout of a run that ended with this code."""
    assert exit_code == result.exit_code, result.output
    return orjson.loads(result.stdout)


def click_of(user: str, item: str = "i1") -> Sent:
    """A click now."""
    now = time.time_ns()
    return Sent("clicks", {"event_id": f"t{now}", "user_id": user, "item_id": item, "ts": now // 1_000_000})


def known(settings: Settings, user: str, clicks: int = 1) -> dict[str, Any]:
    """Return what `inspect` says once this many clicks of the user are in state and list, and Redis agrees."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        result = run(settings, "inspect", user, "--json")
        if result.exit_code == 0:
            seen: dict[str, Any] = orjson.loads(result.stdout)
            listed = seen["list"] and seen["list"]["events_applied"] == {"clicks": clicks}
            # The list is there at once, the state with the commit that follows.
            if listed and seen["state"] and len(seen["state"]["recent"]) == clicks:
                return seen
        time.sleep(0.2)
    raise AssertionError(result.output)


def test_items_are_loaded_shown_and_deleted(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """Good lines reach the topic in their order and the last one counts; bad ones are told; a tombstone deletes."""
    settings = settings_for(partitions=2)
    file = tmp_path / "items.jsonl"
    file.write_text('{"item_id": 7, "title": "Old"}\nnot JSON\n{"item_id": 7, "title": "Mug", "price": 3}\n')

    loaded = answer(run(settings, "items", "load", "--json", str(file)), 1)
    piped = answer(run(settings, "items", "load", "--json", "-", stdin='{"item_id": "8"}\n'))
    shown = answer(run(settings, "items", "show", "7", "--json"))
    deleted = run(settings, "items", "delete", "7")
    gone = answer(run(settings, "items", "show", "7", "--json"), 1)
    never = answer(run(settings, "items", "show", "9", "--json"), 1)

    assert (2, [(2, "not_json")]) == (loaded["sent"], [(bad["line"], bad["reason"]) for bad in loaded["bad"]])
    assert {"sent": 1, "bad": []} == piped
    assert ({"title": "Mug", "price": 3.0, "in_stock": True}, "items") == (shown["item"], shown["source"])
    assert 0 == deleted.exit_code
    assert (None, True) == (gone["item"], gone["deleted"])
    assert (None, False) == (never["item"], never["deleted"])


def test_rules_are_set_listed_and_removed(settings_for: Callable[..., Settings]) -> None:
    """The newest record of an item holds all its rules; a tombstone takes them back; a bad record is told."""
    settings = settings_for(partitions=2)

    run(settings, "rules", "set", "7", "--pin", "2")
    second = run(settings, "rules", "set", "7", "--block", "recall", "--until", "1800000000000")
    third = run(settings, "rules", "set", "8", "--boost", "-0.5")
    listed = answer(run(settings, "rules", "list", "--json"))
    shown = run(settings, "rules", "list")
    removed = run(settings, "rules", "remove", "7")
    out = producer(settings)
    out.produce(full_name(settings, "item-rules"), b'{"blocked": true}', b"9")
    assert out.flush(10) == 0
    left = run(settings, "rules", "list", "--json")

    boosted = {"item_id": "8", "boost": {"by": -0.5}}
    assert (0, 0, 0) == (second.exit_code, third.exit_code, removed.exit_code)
    assert [{"item_id": "7", "block": {"reason": "recall", "until": 1_800_000_000_000}}, boosted] == listed
    assert "8  boost -0.5" in shown.stdout
    assert [boosted] == answer(left, 1)
    assert "9: workers refuse this record: a rule has no field blocked" in left.stderr


def test_an_item_is_shown_with_its_vector(settings: Settings) -> None:
    """`items show` names the vector spaces an item is in, and which of them is served."""
    shown = answer(run(settings, "items", "show", "i3", "--json"))

    assert [{"fingerprint": FINGERPRINT, "dim": 16, "served": True}] == shown["vectors"]


@pytest.mark.usefixtures("worker")
def test_a_user_is_inspected_and_followed(settings: Settings) -> None:
    """State, list, titles and Redis of a user are shown as they are; tail shows the same list on the topic."""
    out = producer(settings)
    send(out, settings, click_of("looked-at", "i5"))
    assert out.flush(10) == 0
    seen = known(settings, "looked-at")

    table = run(settings, "inspect", "looked-at")
    lines = run(settings, "tail", "recommendations", "--user", "looked-at", "--no-follow", "--committed", "--json")
    line = run(settings, "tail", "recommendations", "--user", "looked-at", "--from-beginning", "--limit", "1")

    assert [("clicks", "i5")] == [(event["type"], event["item_id"]) for event in seen["state"]["recent"]]
    assert (True, True) == (seen["redis"]["agrees"], seen["buckets"]["agree"])
    assert settings.list_size == len(seen["list"]["items"])
    assert {"i5"} == {reason["item_id"] for item in seen["list"]["items"] for reason in item["because"]}
    assert 0 == table.exit_code
    assert "the same bytes as the newest record on the topic" in table.stdout
    newest = orjson.loads(lines.stdout.splitlines()[-1])
    assert ("looked-at", seen["list"]["version"]) == (newest["key"], newest["value"]["version"])
    assert f"v{seen['list']['version']}" in line.stdout


@pytest.mark.usefixtures("worker")
def test_inspect_tells_when_redis_and_topic_differ(settings: Settings) -> None:
    """Other bytes under the user's key, and no key at all, are verdicts and exit code 1."""
    out = producer(settings)
    send(out, settings, click_of("differs"))
    assert out.flush(10) == 0
    version = known(settings, "differs")["list"]["version"]
    client = redis.Redis.from_url(settings.redis_url)
    key = f"{settings.redis_prefix}rec:differs"

    client.set(key, orjson.dumps({"version": version, "items": []}))
    other = answer(run(settings, "inspect", "differs", "--json"), 1)["redis"]
    client.delete(key)
    client.close()
    absent = answer(run(settings, "inspect", "differs", "--json"), 1)["redis"]

    assert (False, version, -1) == (other["agrees"], other["version"], other["ttl_s"])
    assert "other bytes" in other["verdict"]
    assert "no list in Redis" in absent["verdict"]


def test_an_unknown_user_is_a_sentence(settings: Settings) -> None:
    """A user nobody heard of gives exit code 1 and says where to look."""
    result = run(settings, "inspect", "nobody")

    assert (1, "") == (result.exit_code, result.stdout)
    assert "user nobody is not known" in result.stderr


@pytest.mark.usefixtures("worker")
def test_dead_letters_are_listed_and_replayed_once(settings: Settings) -> None:
    """
    A record on a wrong partition is listed, and counts once it is replayed; a second replay sends nothing.

    A letter without a key is left out.
    """
    key = b"misplaced"
    topic = full_name(settings, "clicks")
    wrong = (partition_of(key, settings.partitions) + 1) % settings.partitions
    out = producer(settings)
    out.produce(topic, orjson.dumps(click_of("misplaced").event), key, wrong)
    out.produce(topic, b"{}", None, 0)
    assert out.flush(10) == 0
    for _ in range(100):
        letters = answer(run(settings, "dead-letters", "list", "--json"))
        if len(letters) == 2:
            break
        time.sleep(0.1)
    by_reason = {letter["reason"]: letter for letter in letters}

    listed = run(settings, "dead-letters", "list", "--reason", "wrong_partition", "--topic", "clicks")
    planned = answer(run(settings, "dead-letters", "replay", "--dry-run", "--json"))
    declined = run(settings, "dead-letters", "replay", stdin="n\n")
    replayed = answer(run(settings, "dead-letters", "replay", "--yes", "--json"))
    again = answer(run(settings, "dead-letters", "replay", "--yes", "--json"))
    everything = answer(run(settings, "dead-letters", "replay", "--all", "--dry-run", "--json"))

    assert ("misplaced", wrong) == (by_reason["wrong_partition"]["key"], by_reason["wrong_partition"]["partition"])
    assert f"{topic}:{wrong}:" in listed.stdout
    assert "null_key" not in listed.stdout
    assert {"selected": 2, "left_out": 1, "sent": 0} == planned
    assert 1 == declined.exit_code
    assert {"selected": 2, "left_out": 1, "sent": 1} == replayed
    assert {"selected": 0, "left_out": 0, "sent": 0} == again
    assert planned == everything
    assert known(settings, "misplaced")["redis"]["agrees"] is True
    arrived = [orjson.loads(line) for line in run(settings, "tail", "clicks", "--no-follow", "--json").stdout.split()]
    headers = [record["headers"] for record in arrived if "headers" in record]
    assert [[["replayed-from", f"dead-letters:{by_reason['wrong_partition']['dead_letter']}"]]] == headers


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("user-state", "clicks 1"),
        ("item-vectors", "vector of 16"),
        ("item-events", "events: clicks"),
        ("models", "dim"),
    ],
)
def test_binary_topics_are_told_in_words(settings: Settings, topic: str, said: str) -> None:
    """`tail` reads the formats of this project; no line holds bytes that could steer a terminal."""
    out = producer(settings)
    send(out, settings, click_of("told"))
    assert out.flush(10) == 0
    known(settings, "told", len(run(settings, "tail", "clicks", "--user", "told", "--no-follow").stdout.splitlines()))

    result = run(settings, "tail", topic, "--no-follow", "--committed")

    assert 0 == result.exit_code
    assert said in result.stdout
    assert result.stdout.replace("\n", "").isprintable()


def test_doctor_names_the_producer_that_partitions_otherwise(settings_for: Callable[..., Settings]) -> None:
    """Kafka of a fresh namespace is well; events of librdkafka's default partitioner fail and say what to set."""
    settings = settings_for(partitions=4)
    before = {check.name: check for check in check_kafka(settings, Deadline(60))}
    out = Producer(librdkafka_config(settings))
    for number in range(40):
        out.produce(full_name(settings, "carts"), b"{}", b"user-%d" % number)
    assert out.flush(10) == 0

    after = {check.name: check for check in check_kafka(settings, Deadline(60))}

    assert ("ok", "ok", "warn") == tuple(before[name].status for name in ("kafka", "topics", "partitioner"))
    assert "fail" == after["partitioner"].status
    assert "partitioner=murmur2_random" in after["partitioner"].message


def test_doctor_answers_everything_within_its_deadline(settings: Settings) -> None:
    """Every check is told once, in 20 seconds and what starting takes; the exit code is 1 only for a failure."""
    started = time.monotonic()
    result = run(settings, "doctor", "--json")
    took_s = time.monotonic() - started

    checks = orjson.loads(result.stdout)
    assert [name for group in GROUPS for name in group.names] == [check["name"] for check in checks]
    assert int(any(check["status"] == "fail" for check in checks)) == result.exit_code
    assert took_s < 25
