"""The results page: a section for each benchmark, replaced when that benchmark runs again with `--page`."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from streams.local.kafka import kafka_version

PAGE = Path(__file__).parent / "RESULTS.md"
_ROOT = Path(__file__).parents[2]
_HEAD = """# Benchmark results

Each section was written by the command it names; absolute figures are of that machine, ratios travel better.
What is measured, and how, stands in the docstrings of `tests/bench`.
"""
_PACKAGES = ("freshet", "faust-streaming", "aiokafka", "confluent-kafka", "numpy", "numba", "torch")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """
    Return rows as Markdown.

    >>> print(table([{"name": "a", "events": 12000}]))
    | name | events |
    |---|---|
    | a | 12,000 |
    """
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    lines += [f"| {' | '.join(_cell(row[name]) for name in names)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def replaced(page: str, name: str, section: str) -> str:
    r"""
    Return the page with a section put in place of the one of that name, or added.

    >>> print(replaced("# Head\n\n## a\n\nold\n\n## b\n\nkept\n", "a", "new"))
    # Head
    <BLANKLINE>
    ## a
    <BLANKLINE>
    new
    <BLANKLINE>
    ## b
    <BLANKLINE>
    kept
    <BLANKLINE>
    """
    made = f"## {name}\n\n{section.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(name)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(page) is None:
        return f"{page.rstrip()}\n\n{made}"
    return pattern.sub(lambda _: f"{made}\n", page).rstrip() + "\n"


def write(name: str, rows: Sequence[Mapping[str, Any]], ratios: Mapping[str, float], more: Mapping[str, str]) -> None:
    """Put a benchmark's results on the page, with the machine, the versions and the command."""
    parts = [
        f"`{_command()}`, {time.strftime('%Y-%m-%d', time.gmtime())}, commit `{_commit()}`",
        f"{_machine()}. Versions: {', '.join(f'{key} {value}' for key, value in {**_versions(), **more}.items())}.",
        table(rows),
    ]
    if ratios:
        parts.append("\n".join(f"- {key}: {value:.2f}" for key, value in ratios.items()))
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else _HEAD
    PAGE.write_text(replaced(page, name, "\n\n".join(parts)), encoding="utf-8")


def _command() -> str:
    return shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]])


def _commit() -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "unknown"


def _machine() -> str:
    cpu = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return f"{os.cpu_count()} cores of {cpu[1] if cpu else platform.machine()}, {memory_gb:.0f} GB, {platform.system()}"


def _versions() -> dict[str, str]:
    return {
        "Python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "Kafka": kafka_version(),
        "Java": _told(r'"(.+?)"', "java", "-version"),
        "Redis": _told(r"v=(\S+)", "redis-server", "--version"),
    }


def _told(pattern: str, *command: str) -> str:
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, said.stdout + said.stderr)
    return found[1] if found else "unknown"
