"""Logs: one JSON object a line, library logs included, user ids never as they are."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from streams.logs import configure, pseudonym
from streams.settings import Settings


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Put the process-wide logging back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """What was logged, each line decoded."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_events_are_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """An event carries its name, its keys, level, time, role and the pod's name."""
    configure(Settings(log_format="json", role_id="interest-0"), "interest")
    structlog.get_logger("test").info("commit", records=3)

    (line,) = lines(capsys)

    assert line["event"] == "commit"
    assert line["records"] == 3
    assert (line["level"], line["role"], line["id"]) == ("info", "interest", "interest-0")
    assert str(line["timestamp"]).endswith("Z")


def test_library_logs_come_out_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    """A library's standard logging becomes a JSON line too; the chatty ones speak from warning up."""
    configure(Settings(log_format="json"), "interest")
    logging.getLogger("aiokafka.consumer").info("joined")
    logging.getLogger("aiokafka.consumer").warning("lost %s", "broker 1")

    assert [line["event"] for line in lines(capsys)] == ["lost broker 1"]


def test_level_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines below the level are not written."""
    configure(Settings(log_format="json", log_level="error"), "interest")
    structlog.get_logger("test").warning("small")
    structlog.get_logger("test").error("large")

    assert [line["event"] for line in lines(capsys)] == ["large"]


def test_what_compiles_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    """At debug numba would tell every statement that it compiles: 70,000 lines, and half a minute, in a pod's start."""
    configure(Settings(log_level="debug", log_format="json"), "worker")
    logging.getLogger("numba.core.ssa").debug("on stmt")
    assert "" == capsys.readouterr().out


def test_exceptions_stay_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback is a field of its line, so that a log collector keeps it together."""
    configure(Settings(log_format="json"), "interest")
    try:
        int("broken")
    except ValueError:
        structlog.get_logger("test").exception("failed")

    (line,) = lines(capsys)

    assert "broken" in json.dumps(line["exception"])


def test_pseudonym_is_stable_and_hides_the_id() -> None:
    """The same user reads the same in every log, and the id is not in it."""
    assert pseudonym("u1") == pseudonym("u1")
    assert pseudonym("u1") != pseudonym("u2")
    assert "anna@example.org" not in pseudonym("anna@example.org")
    assert len(pseudonym("x" * 200)) == 10
