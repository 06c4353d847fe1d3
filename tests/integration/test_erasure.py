"""Erasing users with a real Kafka and Redis: nothing is left, nothing comes back, and somebody has the receipt."""

from __future__ import annotations

import time
from collections.abc import Callable

import orjson
import pytest
import redis

from streams.interests import codec
from streams.kafka.partitioner import partition_of
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.erasures import Receipt, decode_receipt
from tests.support.forgotten import cached, check_forgotten, clicks, freshet, listed, newest, wait_for
from tests.support.roles import RoleProcess
from tests.support.shop import producer, send, stock
from tests.support.verifier import read_topic, wait_until_consumed

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def settings(settings_for: Callable[..., Settings]) -> Settings:
    """One namespace for the module, with a stocked shop."""
    made = settings_for(partitions=2, kafka_session_timeout_s=8, commit_timeout_s=5)
    stock(made)
    return made


def test_an_erased_user_is_gone_and_a_replay_brings_nobody_back(
    settings: Settings, worker: RoleProcess, cache: redis.Redis
) -> None:
    """Erased with a receipt; the same bytes at their old times change nothing; new events begin a new user."""
    out = producer(settings)
    sent = clicks("ann", 5)
    began_ms = round(time.time() * 1000)
    for one in sent:
        send(out, settings, one)
    out.flush(30)
    before = listed(cache, settings, "ann", 5)
    told = freshet(settings, "erase", "ann", "--wait", "--request-id", "r-ann", "--json")

    assert 0 == told.exit_code, told.output
    receipt = Receipt(**orjson.loads(told.stdout)["receipt"])
    kept = newest(settings, "erasure-receipts", "r-ann")
    assert kept is not None
    assert receipt == decode_receipt(kept.value or b"")
    assert b"ann" not in (kept.value or b"").replace(b"r-ann", b"")
    assert receipt.partition == partition_of(b"ann", settings.partitions)

    wait_for(lambda: cached(cache, settings, "ann").get("erased"), "Redis forgets")
    mark = codec.mark(receipt.erased_at, pending=False)
    wait_for(lambda: (found := newest(settings, "user-state", "ann")) and found.value == mark, "the mark is settled")
    check_forgotten(settings, cache, "ann", receipt.erased_at)
    assert cached(cache, settings, "ann")["version"] > before["version"]

    shown = freshet(settings, "inspect", "ann", "--json")
    assert 0 == shown.exit_code, shown.output
    assert receipt.erased_at == orjson.loads(shown.stdout)["state"]["erased_at"]

    dropped = worker.metric("freshet_events_total", outcome="erased")
    for one in sent:
        out.produce(full_name(settings, "clicks"), orjson.dumps(one.event), b"ann", timestamp=began_ms)
    out.flush(30)
    wait_until_consumed(settings)

    check_forgotten(settings, cache, "ann", receipt.erased_at)
    assert dropped + 5 == worker.metric("freshet_events_total", outcome="erased")

    for one in clicks("ann", 2, "new"):
        send(out, settings, one)
    out.flush(30)
    fresh = listed(cache, settings, "ann", 2)

    assert {"new0", "new1"} >= {fresh["trigger"]["event_id"]}
    assert {"i0", "i1"} >= {reason["item_id"] for item in fresh["items"] for reason in item["because"]}


def test_a_request_that_is_none_is_a_dead_letter(settings: Settings, worker: RoleProcess) -> None:
    """A request of a foreign shape is kept with its reason, its partition goes on."""
    del worker
    out = producer(settings)
    out.produce(full_name(settings, "user-erasures"), b'{"user":"bob"}', b"bob")
    out.flush(30)
    told = freshet(settings, "erase", "bob", "--wait", "--json")

    assert 0 == told.exit_code, told.output
    letters = [dict(read.headers) for read in read_topic(settings, "dead-letters")]
    assert [(full_name(settings, "user-erasures").encode(), b"missing_field")] == [
        (one["topic"], one["reason"]) for one in letters
    ]


def test_without_a_worker_the_request_stands(settings_for: Callable[..., Settings]) -> None:
    """Nobody serves it: exit code 4 and a sentence that says so; not waited for it is sent and that is that."""
    lonely = settings_for(partitions=2)
    told = freshet(lonely, "erase", "ann", "--wait", "--timeout", "1")

    assert 4 == told.exit_code
    assert "the request stands" in " ".join(told.output.split())
    assert 0 == freshet(lonely, "erase", "ann").exit_code
    assert 2 == len(read_topic(lonely, "user-erasures"))
    assert 1 == freshet(lonely, "erase", "a\x00b").exit_code
