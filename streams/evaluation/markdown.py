"""A page of results in Markdown: a section for each command, replaced when that command runs again."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from streams.errors import DependencyError

_PACKAGES: Final = ("freshet", "numpy", "numba", "torch", "implicit")


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


def write_section(path: Path, name: str, command: Sequence[str], revision: str, parts: Sequence[str]) -> None:
    """
    Put results on a page, with the command, the machine and the versions.

    Parameters
    ----------
    revision
        `commit()` when the command began: sources may change while it runs.

    Raises
    ------
    DependencyError
        When the page cannot be written.

    """
    told = ", ".join(f"{package} {found}" for package, found in versions(_PACKAGES).items())
    head = [
        f"`{shlex.join(command)}`, {time.strftime('%Y-%m-%d', time.gmtime())}, commit `{revision}`",
        f"{machine()}. Versions: Python {platform.python_version()}, {told}.",
    ]
    try:
        page = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
        path.write_text(replaced(page, name, "\n\n".join([*head, *parts])), encoding="utf-8")
    except OSError as error:
        raise DependencyError(f"{path} cannot be written: {error.strerror}") from error


def commit() -> str:
    """Return the commit of the code that runs; `unknown` where it is installed without its history."""
    asked = ["git", "describe", "--always", "--dirty"]
    try:
        told = subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)  # noqa: S603  # fixed command line
    except OSError:
        return "unknown"
    return told.stdout.strip() or "unknown"


def machine() -> str:
    """Return cores, memory and system of this machine."""
    info = Path("/proc/cpuinfo")
    cpu = re.search(r"^model name\s*: (.+)$", info.read_text(encoding="utf-8"), re.MULTILINE) if info.exists() else None
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return f"{os.cpu_count()} cores of {cpu[1] if cpu else platform.machine()}, {memory_gb:.0f} GB, {platform.system()}"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those of the packages that are installed."""
    return {name: found for name in packages if (found := _version(name))}


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return ""


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int | float) else str(value)
