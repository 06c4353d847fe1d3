"""F12, F16, F17, F18 and F23: events that meet a bug, come again, come late, come early, or all at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import orjson
import pytest

from streams.settings import EVENT_TYPES
from streams.topics import full_name
from streams.wire.dead_letters import DeadLetter
from tests.support.planted import PLANTED
from tests.support.scene import Fault, Scene, rows
from tests.support.shop import Sent, producer
from tests.support.verifier import Lists, read_topic

pytestmark = [pytest.mark.integration, pytest.mark.faults]

_DAY_MS = 86_400_000


def planted_bug(scene: Scene) -> None:
    """Our own code fails on a record: it becomes a dead letter with the reason `bug`, and the partition goes on."""
    worker = scene.worker(module="tests.support.planted")
    out = producer(scene.settings)
    event = {"event_id": "e", "user_id": "u", "item_id": PLANTED, "ts": round(time.time() * 1000)}
    for number in range(3):
        value = orjson.dumps({**event, "event_id": f"planted-{number}"})
        out.produce(full_name(scene.settings, "clicks"), value, b"u")
    assert out.flush(30) == 0
    scene.oracle.add("clicks", {**event, "item_id": "i1"})
    out.produce(full_name(scene.settings, "clicks"), orjson.dumps({**event, "item_id": "i1"}), b"u")
    assert out.flush(30) == 0
    scene.settle()
    letters = [DeadLetter.from_record(read.headers, read.value) for read in read_topic(scene.settings, "dead-letters")]

    assert ["bug"] * 3 == [letter.reason for letter in letters]
    assert {1} == set(Counter((letter.topic, letter.offset) for letter in letters).values())
    assert worker.metric("freshet_dead_letters_total", reason="bug") == 3
    assert {"clicks": 1} == Lists(read_topic(scene.settings, "recommendations")).applied("u")


def replayed(scene: Scene) -> None:
    """Every event topic is sent again from start to end: nothing is counted twice."""
    worker = scene.worker()
    scene.send(3_000)
    scene.settle()
    before = scene.check()
    out = producer(scene.settings)
    for name in EVENT_TYPES:
        for read in read_topic(scene.settings, name):
            out.produce(full_name(scene.settings, name), read.value, read.key, read.partition)
    assert out.flush(60) == 0
    scene.bad *= 2
    scene.settle()
    after = scene.check()

    assert before.last == after.last, "a replay made new lists"
    assert worker.metric("freshet_events_total", outcome="duplicate") > 0


def disordered(scene: Scene) -> None:
    """Within lateness exact; far behind a full history counted as late, not folded; from the future clamped."""
    worker = scene.worker()
    # Each user gets far more than the 64 events that are kept whatever their age.
    scene.send(4_000, users=10)
    scene.settle()
    start_ms = min(sent.event["ts"] for sent in scene.stream(1))
    out = producer(scene.settings)
    for number in range(20):
        late = {
            "event_id": f"late-{number}",
            "user_id": f"u{number % 10}",
            "item_id": "i1",
            "ts": start_ms - 9 * _DAY_MS,
        }
        out.produce(full_name(scene.settings, "views"), orjson.dumps(late), str(late["user_id"]).encode())
    assert out.flush(30) == 0
    scene.settle()

    assert worker.metric("freshet_events_total", outcome="late_or_duplicate") >= 20

    now_ms = round(time.time() * 1000)
    for number in range(10):
        early = {"event_id": f"early-{number}", "user_id": f"f{number}", "item_id": "i1", "ts": now_ms + _DAY_MS}
        out.produce(
            full_name(scene.settings, "views"), orjson.dumps(early), str(early["user_id"]).encode(), timestamp=now_ms
        )
        scene.oracle.add("views", {**early, "ts": now_ms + 120_000})
    assert out.flush(30) == 0
    scene.settle()

    assert 10 == worker.metric("freshet_events_clamped_total")


def skewed(scene: Scene) -> None:
    """Producers whose clocks are a day behind or ahead: exact users, and a lead cut to two minutes."""
    worker = scene.worker()
    out = producer(scene.settings)
    now_ms = round(time.time() * 1000)
    for number in range(300):
        user = f"u{number % 20}"
        lead_ms = (-_DAY_MS, 0, _DAY_MS)[number % 3]
        event = {
            "event_id": f"e{number}",
            "user_id": f"{user}-{number % 3}",
            "item_id": "i1",
            "ts": now_ms + lead_ms + number,
        }
        # The producer's own stamp is as wrong as its event's; Kafka refuses more than an hour ahead.
        stamp_ms = now_ms + min(lead_ms, 0)
        out.produce(
            full_name(scene.settings, "clicks"), orjson.dumps(event), str(event["user_id"]).encode(), timestamp=stamp_ms
        )
        told_ms = min(now_ms + lead_ms + number, stamp_ms + 120_000)
        scene.oracle.add("clicks", {**event, "ts": told_ms})
    assert out.flush(30) == 0
    scene.settle()

    assert 100 == worker.metric("freshet_events_clamped_total")


def hot(scene: Scene) -> None:
    """One user sends two thirds of a burst: its lists coalesce, the others' do not wait for it."""
    worker = scene.worker()
    sent = scene.stream(12_000, users=200)
    # In order and spread out, so that the robot's events stay exact too.
    first_ms = min(one.event["ts"] for one in sent)
    robot = [
        Sent(
            "views",
            {
                "event_id": f"r{number}",
                "user_id": "robot",
                "item_id": f"i{number % 120}",
                "ts": first_ms + number * 500,
            },
        )
        for number in range(24_000)
    ]
    scene.tell(one for place, other in enumerate(sent) for one in (other, *robot[2 * place : 2 * place + 2]))
    scene.settle()
    lists = [read.key for read in read_topic(scene.settings, "recommendations")]

    assert lists.count(b"robot") < 2_400, "the robot's lists do not coalesce"
    assert worker.metric("freshet_alignment_timeouts_total") == 0


_HOLDS = "I1 I2 I3 I4 I5 I7"


@rows(
    Fault("F16", "every event sent again", "a replay of all topics", _HOLDS, replayed, quick=True),
    Fault("F18", "producers' clocks a day off", "event and record times", "I1 I2 I4 I5 I12", skewed),
    Fault("F23", "a robot and a burst", "36,000 events at once, 24,000 of one user", _HOLDS + " I8", hot),
)
def test_input(fault: Fault, played: Callable[[Fault], None]) -> None:
    """Whatever comes, however often, the end is what plain loops say of the distinct events."""
    played(fault)


@rows(
    Fault("F12", "our own bug", "decoding raises in a worker of the test's", "I7 I12", planted_bug, quick=True),
    Fault("F17", "disorder", "late by nine days; ahead by a day", "I1 I2 I12", disordered),
)
def test_what_is_refused_is_told(fault: Fault, staged_scene: Callable[[Fault], Scene]) -> None:
    """What is not folded is counted, and what is, is exact."""
    fault.inject(staged_scene(fault))
