"""The looking commands without a broker: help, refusals, exit codes, and what they compute."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.commands.checks import Check, worst
from streams.commands.dead_letters import Filter, Found, Plan
from streams.commands.doctor import Group, examine
from streams.commands.items import _print_item, parse_line, read_lines
from streams.commands.lookup import printable
from streams.commands.positions import Position
from streams.kafka.deadline import Deadline
from streams.settings import Settings
from streams.wire.dead_letters import DeadLetter
from streams.wire.items import Item
from streams.wire.limits import MAX_ITEM_BYTES, Rejected

#: A port nobody listens on.
_NOWHERE = {"FRESHET_KAFKA_BOOTSTRAP": "127.0.0.1:1", "FRESHET_KAFKA_TIMEOUT_S": "0.2"}


@pytest.mark.parametrize(
    "command",
    [
        ["items", "load"],
        ["items", "delete"],
        ["items", "show"],
        ["rules", "set"],
        ["rules", "list"],
        ["rules", "remove"],
        ["tail"],
        ["inspect"],
        ["doctor"],
        ["dead-letters", "list"],
        ["dead-letters", "replay"],
    ],
)
def test_help_has_examples(command: list[str]) -> None:
    """Each command explains itself with an example that begins with its own name."""
    result = CliRunner().invoke(app, [*command, "--help"])

    assert 0 == result.exit_code
    assert f"freshet {' '.join(command)}" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tail", "nope"], "nope is no topic of Freshet"),
        (["inspect", "x" * 201], "USER must have 1 to 200 bytes"),
        (["items", "show", ""], "ITEM_ID must have 1 to 200 bytes"),
        (["items", "load", "missing.jsonl"], "missing.jsonl cannot be read: No such file or directory"),
        (["rules", "set", "i"], "say at least one of --block, --pin and --boost"),
        (["rules", "set", "", "--pin", "1"], "ITEM_ID must have 1 to 200 bytes"),
        (["rules", "set", "i", "--pin", "0"], "pin.slot must be a whole number in 1..100"),
        (["rules", "set", "i", "--boost", "-11"], "boost.by"),
        (["rules", "set", "i", "--block", "recall", "--until", "soon"], "block.until is not ISO 8601"),
        (["rules", "remove", "x" * 201], "ITEM_ID must have 1 to 200 bytes"),
        (["dead-letters", "list", "--reason", "nope"], "nope is no reason; known are"),
        (["dead-letters", "replay", "--topic", "nope"], "nope is no topic of Freshet"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments: list[str], sentence: str) -> None:
    """What was typed wrong is told in a sentence on stderr, with exit code 1 and nothing on stdout."""
    result = CliRunner().invoke(app, arguments, env=_NOWHERE)

    assert (1, "") == (result.exit_code, result.stdout)
    assert sentence in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [["tail", "clicks"], ["inspect", "u"], ["items", "show", "i"], ["rules", "list"], ["dead-letters", "list"]],
)
def test_kafka_away_is_exit_code_4(arguments: list[str]) -> None:
    """Without Kafka a command ends at its deadline with the exit code of a missing dependency."""
    result = CliRunner().invoke(app, arguments, env=_NOWHERE)

    assert 4 == result.exit_code
    assert "Kafka at 127.0.0.1:1 did not answer" in " ".join(result.stderr.split())


def test_strict_load_sends_nothing_of_a_bad_file(tmp_path: Path) -> None:
    """With --strict a bad line is told by number and reason before Kafka is asked for anything."""
    file = tmp_path / "items.jsonl"
    file.write_bytes(b'{"item_id": 1}\n\n{"title": "no id"}\n{"item_id": 2, "price": "much"}\n[]\n{\n')

    result = CliRunner().invoke(app, ["items", "load", "--strict", "--json", str(file)], env=_NOWHERE)

    assert 1 == result.exit_code
    told = orjson.loads(result.stdout)
    reasons = [(bad["line"], bad["reason"]) for bad in told["bad"]]
    assert (0, [(3, "missing_field"), (4, "wrong_type"), (5, "not_object"), (6, "not_json")]) == (
        told["sent"],
        reasons,
    )


def test_lines_are_read_as_items_with_their_numbers() -> None:
    """Blank lines count and are skipped, a byte order mark is ignored, the last line needs no line break."""
    file = io.BytesIO(b'\xef\xbb\xbf{"item_id": 1, "title": "Mug"}\n  \n{"item_id": "b"}')

    lines = [(line.number, line.end, line.item) for line in read_lines(file)]

    assert [(1, 34, Item("1", "Mug")), (3, 53, Item("b"))] == lines


def test_an_endless_line_is_refused_in_pieces() -> None:
    """A line above the limit is refused as oversize, and the next one is read at its own number."""
    file = io.BytesIO(b'{"item_id": 1, "x": "' + b"x" * 3 * MAX_ITEM_BYTES + b'"}\n{"item_id": 2}\n')

    first, second = [line.item for line in read_lines(file)]

    assert isinstance(first, Rejected)
    assert ("oversize", Item("2")) == (first.reason, second)


def test_a_line_with_a_bad_id_is_a_value() -> None:
    """An id that no item may have is refused, not raised."""
    refused = parse_line(b'{"item_id": true}')

    assert isinstance(refused, Rejected)
    assert "wrong_type" == refused.reason


def test_printed_text_cannot_steer_a_terminal() -> None:
    """Escape sequences, C1 controls and bad UTF-8 come out as visible escapes."""
    assert "a\\x1b[2J\\x9b\\u202e\\xff" == printable("a\x1b[2J\x9b\u202e".encode() + b"\xff")


def _found(offset: int, reason: str = "bug", topic: str = "clicks", key: bytes | None = b"u") -> Found:
    return Found(0, offset, DeadLetter(topic, 0, offset, reason, "", 1, key, b"{}"))


def test_a_replay_with_a_filter_leaves_the_rest_for_later() -> None:
    """What a filter passed over is replayed by a later run, what it sent is not."""
    letters = [_found(0), _found(1, "not_json"), _found(2)]
    first = Plan(Settings(), Filter("bug", None), {})
    first.ends = {0: 3}
    for found in letters:
        first.count(found)
    positions = first.after({})

    second = Plan(Settings(), Filter(None, None), {0: Position.read(0, positions[0].metadata())})
    second.ends = {0: 3}
    for found in letters:
        second.count(found)

    assert {"clicks bug": 2} == dict(first.ready)
    assert {"clicks not_json": 1} == dict(second.ready)
    assert {0: Position(3)} == second.after(positions)


def test_only_letters_with_a_key_and_a_topic_of_ours_are_replayed() -> None:
    """A letter without key, of a strange topic, or of one that nobody keys by record, is left out and counted."""
    plan = Plan(Settings(namespace="shop"), Filter(None, None), {})
    for found in (
        _found(0, topic="shop.clicks"),
        _found(1, topic="shop.clicks", key=None),
        _found(2, topic="clicks"),
        _found(3, topic="shop.dead-letters"),
        _found(4, topic="shop.user-state"),
    ):
        plan.count(found)

    assert (1, 4) == (plan.ready.total(), plan.left_out)


def test_a_position_that_another_tool_wrote_counts_by_its_offset() -> None:
    """Metadata that is not ours does not hide letters; no commit at all means from the start."""
    assert Position(7) == Position.read(7, "not json")
    assert Position(0) == Position.read(-1001, None)


def test_doctor_never_hangs() -> None:
    """A check that does not end is reported as failed at the deadline, and the others are told."""
    never = threading.Event()

    def hang(_: Settings, __: Deadline) -> Iterator[Check]:
        yield Check("first", "ok", "")
        never.wait()

    def fault(_: Settings, __: Deadline) -> Iterator[Check]:
        yield Check("a", "ok", "")
        raise ValueError("broken")

    started = time.monotonic()
    groups = [Group(("first", "second"), hang), Group(("a", "b", "c"), fault)]
    slow, broken = examine(Settings(), Deadline(0.2), groups)
    never.set()

    assert time.monotonic() - started < 2
    assert [("first", "ok"), ("second", "fail")] == [(check.name, check.status) for check in slow]
    assert [("a", "ok"), ("b", "fail"), ("c", "warn")] == [(check.name, check.status) for check in broken]
    assert "fail" == worst(slow)


def test_an_items_neighbours_are_shown_with_titles(capsys: pytest.CaptureFixture[str]) -> None:
    """The heaviest ten of each family, by title where there is one, and nothing that could steer the terminal."""
    followers = [[f"f{number}", 0.5 / (number + 1)] for number in range(12)]
    signals = {"popularity": 1.0, "events": 3, "trend": 1.0}
    report = {"item_id": "7", "source": "items", "item": {}, "vectors": [], "signals": signals}
    _print_item({**report, "neighbours": {"followers": followers}, "titles": {"f0": "Mug \x1b[31m[red]"}})
    shown = capsys.readouterr().out

    assert "followed by" in shown
    assert r"Mug \x1b[31m[red] 0.500, f1 0.250" in shown
    assert ("f9 " in shown, "f10 " in shown) == (True, False)
    assert "nothing known yet" in shown
