"""The table of faults as it was run: collected from all test processes, written when `--faults` is given."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

_PROPERTY = "fault_row"
_ROOT = Path(__file__).resolve().parents[2]
RESULTS = _ROOT / "tests" / "faults" / "RESULTS.md"
_SECURE_RESULTS = RESULTS.with_name("RESULTS-SECURE.md")

_TOP = """\
# Fault table

Every row breaks real processes: Kafka, Redis and workers of this machine. After each the verifier (kafka-python and
redis-py, reading nothing but topics and Redis) holds the end against a plain-loop oracle. The invariants are:

I1 nothing lost · I2 states exact · I3 committed offsets never fall · I4 lists: the last one has seen everything,
versions never fall, read-committed readers see none twice · I5 Redis holds the last list, with a TTL · I7 bad records
are dead letters, once each · I8 bounded · I9 heals alone · I10 one user's events in order · I12 visible in a metric or
an exit code · I13 ends in time

"""


class _Row(NamedTuple):
    name: str
    fault: str
    how: str
    holds: str
    outcome: str
    seconds: float


class FaultTable:
    """A pytest plugin."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._rows: list[_Row] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Give the report its row, which crosses from a test process to the one that counts."""
        report = yield
        if (marker := item.get_closest_marker("row")) is not None and report.when == "call":
            report.user_properties.append((_PROPERTY, list(marker.args)))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note an outcome."""
        for name, value in report.user_properties:
            if name == _PROPERTY and report.when == "call":
                row, fault, how, holds = (str(part) for part in value)  # type: ignore[attr-defined]  # the marker's
                outcome = "held" if report.passed else "FAILED"
                self._rows.append(_Row(row, fault, how, holds, outcome, report.duration))

    def pytest_sessionfinish(self) -> None:
        """Write the table of a whole run: one that was not narrowed to some files or names."""
        narrowed = self._config.option.keyword or self._config.args_source is pytest.Config.ArgsSource.ARGS
        if not self._config.getoption("--faults") or hasattr(self._config, "workerinput") or narrowed:
            return
        secure = bool(self._config.getoption("--secure"))
        (_SECURE_RESULTS if secure else RESULTS).write_text(self._table(secure=secure), encoding="utf-8")

    def _table(self, *, secure: bool) -> str:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude", "*"],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        run = f"tests/run --faults{' --secure' if secure else ''}"
        kafka = "over TLS and SCRAM" if secure else "in plaintext"
        held = sum(row.outcome == "held" for row in self._rows)
        commit_line = (
            f"Commit `{commit or 'unknown'}`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Kafka {kafka}. "
        )
        lines = [
            _TOP,
            commit_line + f"Made by `{run}`; {held} of {len(self._rows)} rows held.\n\n",
            "| row | fault | injected by | must hold | outcome | seconds |\n|---|---|---|---|---|---|\n",
        ]
        lines += [
            f"| {row.name} | {row.fault} | {row.how} | {row.holds} | {row.outcome} | {row.seconds:.0f} |\n"
            for row in sorted(self._rows, key=lambda row: (int(row.name.strip("F")), row.fault))
        ]
        return "".join(lines)
