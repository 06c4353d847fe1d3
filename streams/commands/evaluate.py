"""`freshet evaluate`: how good the lists are that the live path makes of a log."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.commands.common import err, examples, guarded, out, settings
from streams.commands.replay import progress

if TYPE_CHECKING:
    from streams.evaluation.progress import Progress
    from streams.evaluation.results import Evaluated


class Protocol(StrEnum):
    """What is held out."""

    LEAVE_ONE_OUT = "leave-one-out"


Items = Annotated[Path | None, typer.Option("--items", help="Items of a file of events, JSON lines with an `item_id`.")]
ExcludeSeen = Annotated[
    bool, typer.Option(help="Which lists the table is of: without items the user met before, or with them.")
]
LimitUsers = Annotated[int | None, typer.Option(min=1, help="Take only the first so many users of the log.")]
Text = Annotated[bool, typer.Option(help="Encode item texts; without, items are known by who met them alone.")]


@guarded
def evaluate(
    log: Annotated[str, typer.Argument(metavar="LOG", help="movielens-100k, or a file of events with a `type` each.")],
    protocol: Annotated[Protocol, typer.Option(help="What is held out.")] = Protocol.LEAVE_ONE_OUT,
    items: Items = None,
    exclude_seen: ExcludeSeen = True,
    limit_users: LimitUsers = None,
    text: Text = True,
) -> None:
    """
    Tell how good the lists are that the live path makes of a log, without Kafka or Redis.

    The worker's own fold, signals, catalogue and ranking run over the log in virtual time. Lists are chosen from all
    items; nothing is sampled.

    `leave-one-out`: the last event of each user is the target; all other events of all users are learned first.
    """
    from models.prebuilt import take_prebuilt
    from streams.evaluation import protocols, runs
    from streams.evaluation.logs import find_log
    from streams.evaluation.vectors import encode_items

    configured = settings()
    take_prebuilt()
    found = find_log(configured, log, items).first_users(limit_users)
    plan = protocols.leave_one_out(found.interactions)
    with progress() as shown:

        def bar(name: str, total: int) -> Progress:
            task = shown.add_task(name, total=total)
            return lambda done: shown.update(task, advance=done)

        encoded = encode_items(configured, found.cards, bar) if text and found.cards else None
        systems = [runs.freshet(configured, found, encoded)]
        evaluated = runs.run(
            found, plan, systems, bar, protocol=protocol.value, exclude_seen=exclude_seen, encoded=encoded
        )
    _show(evaluated)


def _show(evaluated: Evaluated) -> None:
    """Print a table."""
    import numpy as np
    from rich.table import Table

    from models.measures import accuracy

    shown = ("hr@10", "ndcg@10", "mrr@20", "hr@20", "ndcg@20")
    mask = "seen items out" if evaluated.exclude_seen else "seen items allowed"
    table = Table(title=f"{evaluated.log_name}, {evaluated.protocol}, {len(evaluated.questions.users)} lists, {mask}")
    table.add_column("system")
    for name in shown:
        table.add_column(name, justify="right")
    candidates = np.full(len(evaluated.questions.users), evaluated.items, np.int64)
    for name, lists in evaluated.systems.items():
        made = lists.excluded if evaluated.exclude_seen else lists.allowed
        measured = accuracy(made, evaluated.questions.targets, evaluated.questions.ends, candidates)
        table.add_row(name, *(f"{float(measured[column].mean()):.4f}" for column in shown))
    out.print(table)
    err.print(f"{evaluated.events_per_s:,.0f} events/s")


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(
        rich_help_panel="Quality",
        epilog=examples("freshet evaluate movielens-100k", "freshet evaluate clicks.jsonl --items items.jsonl"),
    )(evaluate)
