"""`freshet frontier`: what steadier lists cost on a log."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from streams.commands.common import err, examples, guarded, out, settings
from streams.commands.evaluate import Items, Json, LimitUsers, RefitHours, TestFrom, Text, bars, moment_ms
from streams.errors import ConfigurationError

if TYPE_CHECKING:
    from streams.evaluation.steadiness import Point

Knobs = Annotated[str, typer.Option(help="Settings of the knob, 0 to 1, with commas between them.")]


@guarded
def frontier(
    log: Annotated[str, typer.Argument(metavar="LOG", help="As for `freshet evaluate`.")],
    test_from: TestFrom,
    steadiness: Knobs = "0.25,0.5,0.75,1",
    items: Items = None,
    refit_hours: RefitHours = 24.0,
    json_out: Json = None,
    limit_users: LimitUsers = None,
    text: Text = True,
) -> None:
    """
    Tell what steadier lists cost: hits against overlap with the list before, for settings of the knob `steadiness`.

    The live path runs over the log as in `freshet evaluate --protocol prequential`; after each event the user's list of
    20 is made anew under each setting, with the one before it, and the user's next event is looked for in its first 10.
    """
    from models.prebuilt import take_prebuilt
    from streams.evaluation import protocols
    from streams.evaluation.logs import find_log
    from streams.evaluation.runs import Run, freshet
    from streams.evaluation.steadiness import frontier as measured
    from streams.evaluation.vectors import encode_items

    knobs = _knobs(steadiness)
    configured = settings()
    found = find_log(configured, log, items).first_users(limit_users)
    plan = protocols.prequential(found.interactions, moment_ms(test_from))
    take_prebuilt()
    with bars() as bar:
        run = Run(
            settings=configured,
            log=found,
            plan=plan,
            protocol="prequential",
            encoded=encode_items(configured, found.cards, bar) if text and found.cards else None,
        )
        points = measured(
            freshet(run), found.interactions, plan, knobs, found.categories(),
            refit_ms=round(refit_hours * 3_600_000), progress=bar("freshet", run.events),
        )  # fmt: skip
    _show(points)
    if json_out is not None:
        _write(points, json_out)


def _knobs(text: str) -> list[float]:
    try:
        knobs = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigurationError(f"--steadiness must be numbers with commas between them, not {text!r}") from None
    if strange := [knob for knob in knobs if not 0 <= knob <= 1]:
        raise ConfigurationError(f"--steadiness must lie in 0..1, not {strange[0]:g}")
    return knobs


def _show(points: list[Point]) -> None:
    from rich.table import Table

    table = Table()
    heads = ("steadiness", "HR@10", "MRR@10", "RBO to list before", "stayed", "unforced", "style, bits", "price")
    for head in heads:
        table.add_column(head, justify="right")
    for point in points:
        values = (point.hr, point.mrr, point.rbo, point.stayed, point.unforced, point.style, point.price)
        table.add_row(f"{point.steadiness:g}", *("-" if math.isnan(value) else f"{value:.4f}" for value in values))
    out.print(table)


def _write(points: list[Point], path: Path) -> None:
    rows = [dataclasses.asdict(point) for point in points]
    path.write_bytes(orjson.dumps({"frontier": rows}, option=orjson.OPT_INDENT_2))
    err.print(f"written to {path}", highlight=False)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(
        rich_help_panel="Quality",
        epilog=examples("freshet frontier movielens-100k --test-from 1998-03-01"),
    )(frontier)
