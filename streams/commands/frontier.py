"""`freshet frontier`: what steadier lists cost on a log."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from streams.commands.common import err, examples, guarded, out, settings
from streams.commands.evaluate import (
    Items,
    Json,
    LimitUsers,
    Page,
    RefitHours,
    TestFrom,
    Text,
    bars,
    command_line,
    moment_ms,
)
from streams.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.evaluation.progress import Bars
    from streams.evaluation.runs import Run
    from streams.evaluation.steadiness import Point
    from streams.evaluation.switching import Followed

#: Columns of the tables, by what they show.
_ROWS = {
    "steadiness": "steadiness",
    "hr": "HR@10",
    "mrr": "MRR@10",
    "rbo": "RBO to list before",
    "stayed": "stayed",
    "unforced": "unforced",
    "violations": "break a rule",
    "style": "style, bits",
    "price": "price",
}
_EVENTS_UNTIL = "Events after a switch of categories until half of the first 10 is of the new one (21: not within 20)"
_SWITCHED = {"steadiness": "steadiness", "median": "median", "p90": "90 % of users", "within_8": "within 8 events"}

Knobs = Annotated[str, typer.Option(help="Settings of the knob, 0 to 1, with commas between them.")]


@guarded
def frontier(
    log: Annotated[str, typer.Argument(metavar="LOG", help="As for `freshet evaluate`.")],
    test_from: TestFrom,
    steadiness: Knobs = "0.25,0.5,0.75,1",
    items: Items = None,
    refit_hours: RefitHours = 24.0,
    json_out: Json = None,
    page: Page = None,
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
    from streams.evaluation.guardrails import Guardrails
    from streams.evaluation.logs import find_log
    from streams.evaluation.markdown import commit, table, write_section
    from streams.evaluation.runs import Run, freshet
    from streams.evaluation.steadiness import frontier as measured
    from streams.evaluation.vectors import encode_items

    knobs = _knobs(steadiness)
    revision = commit()
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
            Guardrails(found, configured.weights), refit_ms=round(refit_hours * 3_600_000),
            progress=bar("freshet", run.events),
        )  # fmt: skip
        switched = _switched(run, [point.steadiness for point in points], bar)
    _show("what steadier lists cost", _ROWS, points)
    _show(_EVENTS_UNTIL, _SWITCHED, switched)
    if json_out is not None:
        _write({"frontier": points, "switched": switched}, json_out)
    if page is not None:
        parts = [table([_cells(_ROWS, point) for point in points])]
        if switched:
            parts.append(f"{_EVENTS_UNTIL}:\n\n{table([_cells(_SWITCHED, one) for one in switched])}")
        write_section(page, f"{found.name}, steadiness", command_line(), revision, parts)


def _knobs(text: str) -> list[float]:
    try:
        knobs = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigurationError(f"--steadiness must be numbers with commas between them, not {text!r}") from None
    if strange := [knob for knob in knobs if not 0 <= knob <= 1]:
        raise ConfigurationError(f"--steadiness must lie in 0..1, not {strange[0]:g}")
    return knobs


def _switched(run: Run, knobs: list[float], bar: Bars) -> list[Followed]:
    """Return how fast lists follow a switched interest; nothing where no two categories have items enough."""
    from streams.evaluation.driving import learn
    from streams.evaluation.runs import freshet
    from streams.evaluation.switching import followed, plant

    planted = plant(run.log)
    if planted is None:
        return []
    log, switches = planted
    live = freshet(dataclasses.replace(run, log=log))
    learn(live, log.interactions, bar("learn", len(log.interactions.users)))
    live.fit()
    return followed(live, log, switches, knobs, bar("switch", switches.items.size))


def _cells(heads: Mapping[str, str], row: Point | Followed) -> dict[str, str]:
    """Return a row of a table: its columns' values as text, by heading."""
    found = ((head, getattr(row, name)) for name, head in heads.items())
    return {head: "-" if math.isnan(value) else f"{value:.4g}" for head, value in found}


def _show(title: str, heads: Mapping[str, str], rows: Sequence[Point | Followed]) -> None:
    from rich.table import Table

    if not rows:
        return
    shown = Table(title=title)
    for head in heads.values():
        shown.add_column(head, justify="right")
    for row in rows:
        shown.add_row(*_cells(heads, row).values())
    out.print(shown)


def _write(found: Mapping[str, Sequence[Point | Followed]], path: Path) -> None:
    told = {name: [dataclasses.asdict(row) for row in rows] for name, rows in found.items()}
    path.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))
    err.print(f"written to {path}", highlight=False)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(
        rich_help_panel="Quality",
        epilog=examples("freshet frontier movielens-100k --test-from 1998-03-01"),
    )(frontier)
