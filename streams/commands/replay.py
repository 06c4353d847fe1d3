"""`freshet replay`: a log of events as live traffic."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.commands.common import err, guarded, out, settings
from streams.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.progress import Progress

    from streams.datasets.log import Log
    from streams.settings import Settings

DEFAULT_SPEED = "2000"

Speed = Annotated[str, typer.Option(help="Events per second, or `max`.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Replay only the first so many events.")]
Dataset = Annotated[Path | None, typer.Option("--dataset", help="A file of events, JSON lines with a `type`.")]
Items = Annotated[Path | None, typer.Option("--items", help="A file of items, JSON lines with an `item_id`.")]


@guarded
def replay(
    name: Annotated[str, typer.Argument(metavar="[DATASET]", help="A known data set: ml100k.")] = "",
    dataset: Dataset = None,
    items: Items = None,
    speed: Speed = DEFAULT_SPEED,
    limit: Limit = None,
    shift_to_now: Annotated[bool, typer.Option(help="Move all times so that the last event happens now.")] = True,
) -> None:
    """
    Replay a log of events in time order, and load its items.

    At most 200 events are on their way unacknowledged, so their order on the broker differs from the log by at most
    200 events, and users' states are exact within that. Event ids are those of the log: a second replay is
    recognised as duplicates as far as a user's state reaches back.
    """
    from streams.datasets.replay import load_items
    from streams.datasets.replay import replay as send

    configured = settings()
    pace = parse_speed(speed)
    log = find_log(configured, name, dataset, items).first(limit)
    shift_ms = log.shift_to(round(time.time() * 1000)) if shift_to_now else 0
    if log.items:
        err.print(f"{load_items(configured, log.items)} items loaded")
    with progress() as bar:
        task = bar.add_task("events replayed", total=len(log.entries))
        sent = send(
            configured, log, speed=pace, shift_ms=shift_ms, progress=lambda done: bar.update(task, completed=done)
        )
    out.print(f"{sent} events replayed from {log.name}", markup=False, highlight=False)


def find_log(configured: Settings, name: str, dataset: Path | None, items: Path | None) -> Log:
    """
    Return the log a person asked for; MovieLens-100K when nothing is named.

    Raises
    ------
    ConfigurationError
        When the name is unknown, a file is not usable, or both a name and a file are given.

    """
    from streams.datasets.log import read_log
    from streams.datasets.movielens import movielens

    if dataset is not None:
        if name:
            raise ConfigurationError("give the name of a data set or --dataset FILE, not both")
        return read_log(dataset, items)
    if items is not None:
        raise ConfigurationError("--items goes with --dataset")
    if name not in {"", "ml100k"}:
        raise ConfigurationError(f"unknown data set {name!r}; known is ml100k")
    return movielens(configured.cache_dir)


def parse_speed(text: str) -> float | None:
    """
    Return events per second; None for `max`.

    >>> parse_speed("2000"), parse_speed("max")
    (2000.0, None)

    Raises
    ------
    ConfigurationError
        For anything else.

    """
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < 1e9:
        raise ConfigurationError(f"--speed must be a positive number of events per second or max, not {text!r}")
    return speed


def progress() -> Progress:
    """Return a progress bar on stderr: description, bar, done of total, speed, time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err
    )


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel="Local stack")(replay)
