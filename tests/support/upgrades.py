"""`freshet models` against a namespace of the tests."""

from __future__ import annotations

from typing import Any

import orjson
from typer.testing import CliRunner, Result

from streams.cli import app
from streams.settings import ENV_PREFIX, Settings
from tests.support.roles import environment


def run(settings: Settings, *arguments: str) -> Result:
    """Run `freshet models` with these settings."""
    env = {name: value for name, value in environment(settings).items() if name.startswith(ENV_PREFIX)}
    return CliRunner().invoke(app, ["models", *arguments], env=env)


def answer(settings: Settings, *arguments: str) -> Any:
    """Return the JSON of a run that succeeded."""
    result = run(settings, *arguments, "--json")
    assert 0 == result.exit_code, result.output
    return orjson.loads(result.stdout)


def refused(settings: Settings, *arguments: str) -> str:
    """Return the sentence of a run that was refused."""
    result = run(settings, *arguments)
    assert (1, "") == (result.exit_code, result.stdout), result.output
    return " ".join(result.stderr.split())
