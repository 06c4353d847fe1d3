"""The results page: a section for each benchmark, replaced when that benchmark runs again with `--page`."""

from __future__ import annotations

import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streams.evaluation.markdown import commit, machine, replaced, table, versions
from streams.local.kafka import kafka_version

PAGE = Path(__file__).parent / "RESULTS.md"
_HEAD = """# Benchmark results

Each section was written by the command it names; absolute figures are of that machine, ratios travel better.
What is measured, and how, stands in the docstrings of `tests/bench`.
"""
_PACKAGES = ("freshet", "faust-streaming", "aiokafka", "confluent-kafka", "numpy", "numba", "torch")


def write(name: str, rows: Sequence[Mapping[str, Any]], ratios: Mapping[str, float], more: Mapping[str, str]) -> None:
    """Put a benchmark's results on the page, with the machine, the versions and the command."""
    parts = [
        f"`{_command()}`, {time.strftime('%Y-%m-%d', time.gmtime())}, commit `{commit()}`",
        f"{machine()}. Versions: {', '.join(f'{key} {value}' for key, value in {**_versions(), **more}.items())}.",
        table(rows),
    ]
    if ratios:
        parts.append("\n".join(f"- {key}: {value:.2f}" for key, value in ratios.items()))
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else _HEAD
    PAGE.write_text(replaced(page, name, "\n\n".join(parts)), encoding="utf-8")


def _command() -> str:
    return shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]])


def _versions() -> dict[str, str]:
    return {
        "Python": platform.python_version(),
        **versions(_PACKAGES),
        "Kafka": kafka_version(),
        "Java": _told(r'"(.+?)"', "java", "-version"),
        "Redis": _told(r"v=(\S+)", "redis-server", "--version"),
    }


def _told(pattern: str, *command: str) -> str:
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, said.stdout + said.stderr)
    return found[1] if found else "unknown"
