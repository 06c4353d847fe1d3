"""What every command shares: settings from the environment, the console, errors as one sentence."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import typer
from rich.console import Console

from streams.errors import FreshetError
from streams.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

#: Results go to stdout, progress and errors to stderr, so that `--json` output can be piped.
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)


def settings(**overrides: Any) -> Settings:
    """
    Read the settings; options that were not given (None) do not override.

    Where nothing names a Kafka or Redis, those that `freshet up` started are taken.
    """
    from streams.local.record import addresses

    read = Settings.from_env(**{name: value for name, value in overrides.items() if value is not None})
    return read.model_copy(update=addresses(read))


def examples(*lines: str) -> str:
    """Return the end of a command's help, a paragraph each; typer joins the lines of one paragraph."""
    return "\n\n".join(("Examples:", *lines))


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turn a `FreshetError` into its sentence on stderr and its exit code; Ctrl-C into 130."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except FreshetError as error:
            err.print(f"freshet: {error}", style="red", markup=False)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return run
