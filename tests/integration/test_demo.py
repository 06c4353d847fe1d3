"""The demo from the command line, on a small shop: everything comes out, a second run changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from streams.local.stack import Stack
from streams.settings import Settings

pytestmark = pytest.mark.integration

_USERS, _ITEMS, _EVENTS = 20, 30, 600
_TYPES = ("click", "view", "dislike")

Freshet = Callable[..., str]


@pytest.fixture
def freshet(tmp_path: Path) -> Iterator[Freshet]:
    """The command line on a state folder of its own; what it leaves running is stopped at the end."""
    settings = Settings(state_dir=tmp_path / "state")
    env = {**os.environ, "FRESHET_STATE_DIR": str(settings.state_dir), "FRESHET_CACHE_DIR": str(settings.cache_dir)}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "streams.cli", *arguments]
        ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    yield run
    Stack(settings).down()


@pytest.fixture
def shop(tmp_path: Path) -> list[str]:
    """Options that name a small log and its items."""
    events, items = tmp_path / "shop.jsonl", tmp_path / "items.jsonl"
    rows = [
        {"type": _TYPES[n % 3], "user_id": f"u{n % _USERS}", "item_id": f"i{n * 7 % _ITEMS}", "ts": 1767225600000 + n}
        for n in range(_EVENTS)
    ]
    events.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    items.write_bytes(b"\n".join(orjson.dumps({"item_id": f"i{n}", "title": f"Mug {n}"}) for n in range(_ITEMS)))
    return ["--dataset", str(events), "--items", str(items), "--speed", "max"]


def test_the_demo_twice(freshet: Freshet, shop: list[str], tmp_path: Path) -> None:
    """The first run folds every event once and lists every user; the second finds duplicates; `--once` stops all."""
    report = tmp_path / "summary.json"

    shown = freshet("demo", *shop, "--json", str(report))

    first: dict[str, Any] = json.loads(report.read_bytes())
    assert {"sent": _EVENTS, "outcomes": {"applied": _EVENTS}} == first["events"]
    assert 0 == first["rejected"]
    assert _ITEMS == first["items_encoded"]
    assert {"in_log": _USERS, "with_list": _USERS} == first["users"]
    assert _USERS <= first["lists_published"] <= _EVENTS
    assert 0 < first["freshness_s"]["p50"] <= first["freshness_s"]["p95"] <= first["freshness_s"]["p99"]
    assert _USERS == sum(first["experiments"]["popularity-blend"].values())
    assert 3 == len(first["lists"])
    assert first["lists"][0]["items"][0]["title"].startswith("Mug ")
    assert "freshet down" in shown

    status = json.loads(freshet("status", "--json"))
    states = {process["name"]: process["state"] for process in status["processes"]}
    assert dict.fromkeys(("kafka", "redis", "encoder", "signals", "worker"), "ready") == states
    assert {0} == set(status["lag"]["freshet-interest"].values())

    freshet("demo", *shop, "--once", "--json", str(report))

    second: dict[str, Any] = json.loads(report.read_bytes())
    assert {"duplicate": _EVENTS} == second["events"]["outcomes"]
    assert 0 == second["lists_published"]
    assert second["freshness_s"]["p50"] is None
    status = json.loads(freshet("status", "--json"))
    assert {"dead"} == {process["state"] for process in status["processes"]}
