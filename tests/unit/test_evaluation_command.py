"""`freshet evaluate`: options that do not fit together, logs that cannot be tested, and what a run writes."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.commands.evaluate import command_line

START_MS = 1_700_000_000_000
ALONE = ("--system", "freshet", "--no-text")


def evaluate(*arguments: str | Path) -> tuple[int, str]:
    """Return exit code and all that was said."""
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a file of users who click item after item, a second each."""
    path = tmp_path / "walks.jsonl"
    events = [
        {"user_id": user, "item_id": (user + step) % 7, "ts": START_MS + 60_000 * step + user, "type": "click"}
        for step in range(6)
        for user in range(20)
    ]
    path.write_bytes(b"\n".join(orjson.dumps({**event, "session_id": "s"}) for event in events))
    return path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--protocol", "time-split"), "time-split needs --test-from"),
        (("--test-from", "2024-01-01"), "--test-from does not go with leave-one-out"),
        (("--protocol", "prequential", "--test-from", "soon"), "--test-from must be ISO 8601 or ms"),
        (("--protocol", "time-split", "--test-from", "2031-01-01"), "leaves nothing at or after it: the log goes from"),
        (("--protocol", "prequential", "--test-from", "1999-01-01"), "leaves nothing before it"),
        (("--within-session",), "go with --protocol prequential"),
        (("--protocol", "prequential", "--test-from", "2024-01-01", "--with-recbole"), "--with-recbole does not go"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(log: Path, arguments: tuple[str, ...], said: str) -> None:
    """Exit code 2 and the reason; nothing is learned first."""
    code, output = evaluate(log, *arguments, *ALONE)
    assert said in output
    assert 2 == code


def test_the_command_on_a_page_leaves_out_where_results_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured is named, and what does not change it is not."""
    monkeypatch.setattr(
        "sys.argv", ["freshet", "evaluate", "a", "--json", "/x", "--no-text", "--report=/y", "--page", "z"]
    )
    assert ["freshet", "evaluate", "a", "--no-text"] == command_line()


def test_a_log_that_is_not_there_is_named() -> None:
    """The sentence says what could have been named."""
    code, output = evaluate("nowhere.jsonl")
    assert "there is no log 'nowhere.jsonl'" in output
    assert "complete-journey" in output
    assert 2 == code


@pytest.mark.parametrize(
    "arguments",
    [
        ("--protocol", "leave-one-out"),
        ("--protocol", "cold-start"),
        ("--protocol", "time-split", "--test-from", str(START_MS + 300_000)),
        ("--protocol", "prequential", "--test-from", str(START_MS + 240_000), "--freshness", "--within-session"),
    ],
)
def test_each_protocol_writes_its_numbers(log: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """The JSON names protocol and log, and has measures of both masks and their intervals for every system."""
    out, page = tmp_path / "out.json", tmp_path / "page.md"
    code, output = evaluate(log, *arguments, *ALONE, "--json", out, "--page", page)
    assert 0 == code, output
    assert "without items the user met before" in output
    numbers = orjson.loads(out.read_bytes())
    assert (arguments[1], "walks") == (numbers["protocol"], numbers["log"])
    assert {"hr@10", "ndcg@10", "mrr@20"} <= set(numbers["metrics"]["freshet"])
    assert set(numbers["intervals"]["freshet"]) <= set(numbers["metrics"]["freshet"])
    assert numbers["events_per_s"] > 0
    # Seven items, of which nobody met all: every target is on a list of a hundred.
    assert 1.0 == numbers["excluded"]["overall"]["metrics"]["freshet"]["hr@100"]
    assert 0 == sum(count for found in numbers["violations"].values() for count in found.values())
    assert "break a rule: 0" in output
    assert f"## walks, {arguments[1]}" in page.read_text(encoding="utf-8")
    assert ("--freshness" in arguments) == (numbers["freshness"] is not None)
