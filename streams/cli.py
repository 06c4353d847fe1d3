"""`freshet`: the command line. Each command lives in `streams.commands`."""

from __future__ import annotations

import typer

from streams.commands import (
    dead_letters,
    doctor,
    erase,
    evaluate,
    frontier,
    inspect,
    items,
    models,
    replay,
    resources,
    roles,
    rules,
    stack,
    tail,
    topics,
    train,
    tune,
)
from streams.commands.settings import settings

app = typer.Typer(
    name="freshet",
    help="Freshet turns a shop's click stream into fresh ranked lists: Kafka in, Kafka and Redis out.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold settings, and settings hold secrets
)
for commands in (
    stack,
    replay,
    topics,
    items,
    rules,
    models,
    tail,
    inspect,
    erase,
    evaluate,
    frontier,
    tune,
    train,
    doctor,
    dead_letters,
    roles,
):
    commands.register(app)
app.command("settings")(settings)
app.add_typer(resources.app)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
