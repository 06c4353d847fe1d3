"""Logs for replay: any file of events in wire format, in time order, with ids that a second replay repeats."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from streams.commands.replay import find_log, parse_speed
from streams.datasets.log import read_log
from streams.errors import ConfigurationError
from streams.settings import Settings

_DAY_MS = 86_400_000


def _write(path: Path, *rows: dict[str, object]) -> Path:
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows) + b"\n\n")
    return path


def test_events_come_in_time_order_with_repeatable_ids(tmp_path: Path) -> None:
    """Types may be singular or topics' names, times ms or ISO; missing ids are the file's name and line."""
    path = _write(
        tmp_path / "shop.jsonl",
        {"type": "click", "user_id": "u", "item_id": "b", "ts": "2026-01-02T00:00:00Z"},
        {"type": "purchases", "user_id": 7, "item_id": "a", "ts": 1767225600000, "event_id": "mine", "price": 3},
    )

    log = read_log(path)

    assert ["purchases", "clicks"] == [entry.topic for entry in log.entries]
    assert ["mine", "shop-1"] == [entry.fields["event_id"] for entry in log.entries]
    assert [b"7", b"u"] == [entry.key for entry in log.entries]
    expected = {"event_id": "mine", "user_id": 7, "item_id": "a", "price": 3, "ts": 1767225600000 + _DAY_MS}
    assert expected == orjson.loads(log.entries[0].value(_DAY_MS))


def test_the_shift_brings_the_last_event_to_now(tmp_path: Path) -> None:
    """Distances in time stay; the limit cuts at the end."""
    rows = [{"type": "view", "user_id": "u", "item_id": "i", "ts": 1767225600000 + n} for n in range(5)]
    log = read_log(_write(tmp_path / "l.jsonl", *rows))

    assert 2_000_000_000_000 == log.entries[-1].ts_ms + log.shift_to(2_000_000_000_000)
    assert log.entries[:2] == log.first(2).entries
    assert log.entries == log.first(None).entries


def test_items_are_read_beside_the_events(tmp_path: Path) -> None:
    """A file of items has one snapshot a line."""
    events = _write(tmp_path / "e.jsonl", {"type": "view", "user_id": "u", "item_id": "i", "ts": 1767225600000})
    items = _write(tmp_path / "i.jsonl", {"item_id": "i", "title": "Mug"}, {"item_id": 8, "title": "Cup"})

    assert [("i", "Mug"), ("8", "Cup")] == [(item.item_id, item.title) for item in read_log(events, items).items]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "line 1: expected one JSON object"),
        ('{"type": "like", "user_id": "u", "ts": 1767225600000}', "line 1: type must be one of"),
        ('{"type": "click", "ts": 1767225600000}', "line 1: user_id is missing"),
        ('{"type": "click", "user_id": "u", "ts": 1767225600}', "line 1: ts must be milliseconds"),
        ('{"type": "click", "user_id": "u"}', "line 1: ts must be milliseconds or ISO 8601"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    """What cannot be replayed is refused before anything is sent, with file and line."""
    path = tmp_path / "bad.jsonl"
    path.write_text(line, encoding="utf-8")

    with pytest.raises(ConfigurationError, match=problem):
        read_log(path)


def test_a_bad_item_and_a_missing_file_are_named(tmp_path: Path) -> None:
    """The same for items and for files that are not there."""
    events = _write(tmp_path / "e.jsonl", {"type": "view", "user_id": "u", "item_id": "i", "ts": 1767225600000})
    items = _write(tmp_path / "i.jsonl", {"item_id": "i", "title": 5})

    with pytest.raises(ConfigurationError, match=r"i\.jsonl, line 1: item\.title must be a string"):
        read_log(events, items)
    with pytest.raises(ConfigurationError, match=r"none\.jsonl cannot be read: No such file"):
        read_log(tmp_path / "none.jsonl")


def test_options_that_contradict_are_refused(tmp_path: Path) -> None:
    """A name and a file, items without events, an unknown name, a speed that is none."""
    for name, dataset, items, problem in (
        ("ml100k", tmp_path, None, "not both"),
        ("", None, tmp_path, "--items goes with --dataset"),
        ("netflix", None, None, "unknown data set 'netflix'"),
    ):
        with pytest.raises(ConfigurationError, match=problem):
            find_log(Settings(), name, dataset, items)
    for speed in ("0", "-1", "fast", "nan", "inf"):
        with pytest.raises(ConfigurationError, match="--speed must be a positive number"):
            parse_speed(speed)
