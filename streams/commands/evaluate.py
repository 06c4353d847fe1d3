"""`freshet evaluate`: how good the lists are that the live path makes of a log."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands.common import err, examples, guarded, out, settings
from streams.commands.replay import progress
from streams.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.table import Table

    from models.interactions import Interactions
    from streams.evaluation.progress import Bars, Progress
    from streams.evaluation.protocols import Plan

#: Columns of the table.
_SHOWN = ("hr@10", "ndcg@10", "mrr@20", "recall@10", "hr@100")


#: Options that say where results go.
_WRITTEN_TO = ("--json", "--page", "--report")


class Protocol(StrEnum):
    """What is held out."""

    LEAVE_ONE_OUT = "leave-one-out"
    TIME_SPLIT = "time-split"
    PREQUENTIAL = "prequential"
    COLD_START = "cold-start"


LogName = Annotated[
    str, typer.Argument(metavar="LOG", help="movielens-100k, complete-journey, or a file of events with a `type` each.")
]
TestFrom = Annotated[
    str,
    typer.Option(metavar="TS", help="Where testing begins: ISO 8601 (UTC unless it says so), or ms since the epoch."),
]
Items = Annotated[Path | None, typer.Option("--items", help="Items of a file of events, JSON lines with an `item_id`.")]
ExcludeSeen = Annotated[
    bool,
    typer.Option(
        "--exclude-seen/--include-seen",
        help="Which lists the headline is of: without items the user met before, or with them.",
    ),
]
WithinSession = Annotated[
    bool, typer.Option("--within-session", help="prequential: ask only before events that a session already began.")
]
Freshness = Annotated[
    bool,
    typer.Option(
        "--freshness", help="prequential: also with users' states brought up to date each minute, hour and day only."
    ),
]
RefitHours = Annotated[
    float, typer.Option(min=0.01, help="prequential: hours of the log between two fits of item-to-item weights.")
]
WithRecbole = Annotated[
    bool,
    typer.Option(
        "--with-recbole",
        help="Also train RecBole's GRU4Rec and SASRec on the same events, up to ten minutes each on two cores; the "
        "first time installs RecBole. With leave-one-out and time-split.",
    ),
]
Report = Annotated[
    Path | None, typer.Option("--report", metavar="DIR", help="Write plots, and one HTML page with all of it, here.")
]
Page = Annotated[
    Path | None, typer.Option("--page", metavar="FILE", help="Put the results on this page, in Markdown, in a section.")
]
Json = Annotated[Path | None, typer.Option("--json", help="Write all results here, as JSON.")]
System = Annotated[
    list[str] | None,
    typer.Option("--system", help="Compare Freshet with this system alone, or with several."),
]
LimitUsers = Annotated[int | None, typer.Option(min=1, help="Take only the first so many users of the log.")]
Text = Annotated[bool, typer.Option(help="Encode item texts; without, items are known by who met them alone.")]


@guarded
def evaluate(
    log: Annotated[
        str,
        typer.Argument(metavar="LOG", help="movielens-100k, complete-journey, or a file of events with a `type` each."),
    ],
    protocol: Annotated[Protocol, typer.Option(help="What is held out.")] = Protocol.LEAVE_ONE_OUT,
    test_from: TestFrom = "",
    items: Items = None,
    exclude_seen: ExcludeSeen = True,
    within_session: WithinSession = False,
    freshness: Freshness = False,
    refit_hours: RefitHours = 24.0,
    system: System = None,
    with_recbole: WithRecbole = False,
    json_out: Json = None,
    folder: Report = None,
    page: Page = None,
    limit_users: LimitUsers = None,
    text: Text = True,
) -> None:
    """
    Tell how good the lists are that the live path makes of a log, without Kafka or Redis.

    The worker's own fold, signals, catalogue and ranking run over the log in virtual time. Lists are chosen from all
    items; nothing is sampled. Well-known systems learn the same events and answer the same questions.

    `leave-one-out`: the last event of each user is the target; all other events of all users are learned first.

    `time-split`: everything from --test-from on is held out; one list a user, whose targets are all items met then.

    `prequential`: for every event from --test-from on, the list as it stood just before; then the event is learned.

    `cold-start`: every tenth user is new to what the others did; lists after 0, 1, 2, 3, 5 and 10 of their events.
    """
    from models.prebuilt import take_prebuilt
    from streams.evaluation.logs import find_log
    from streams.evaluation.markdown import commit, write_section
    from streams.evaluation.recbole import recbole_models
    from streams.evaluation.report import report
    from streams.evaluation.runs import Run, baselines, evaluated
    from streams.evaluation.sections import sections, title
    from streams.evaluation.vectors import encode_items

    if protocol is not Protocol.PREQUENTIAL and (within_session or freshness):
        raise ConfigurationError("--within-session and --freshness go with --protocol prequential")
    if protocol in {Protocol.PREQUENTIAL, Protocol.COLD_START} and with_recbole:
        raise ConfigurationError(
            f"--with-recbole does not go with {protocol.value}, where histories grow between lists"
        )
    test_from_ms = _test_from_ms(test_from, protocol)
    revision = commit()
    configured = settings()
    found = find_log(configured, log, items).first_users(limit_users)
    plan = _plan(protocol, found.interactions, test_from_ms, within_session=within_session)
    others = baselines(found, system or ())
    if with_recbole:
        others += recbole_models(len(found.users), configured.cache_dir)
    take_prebuilt()
    with bars() as bar:
        run = Run(
            settings=configured,
            log=found,
            plan=plan,
            protocol=protocol.value,
            encoded=encode_items(configured, found.cards, bar) if text and found.cards else None,
            exclude_seen=exclude_seen,
            refit_ms=round(refit_hours * 3_600_000),
        )
        made = evaluated(run, others, bar, freshness=freshness)
    err.print("measuring")
    numbers = report(made, json_out=json_out, folder=folder)
    _show(numbers)
    if page is not None:
        write_section(page, title(numbers), command_line(), revision, sections(numbers))
    if folder is not None:
        err.print(f"the report is {folder / 'index.html'}")


def command_line() -> list[str]:
    """Return the command that runs, as it can be typed; where its results are written to is left out."""
    arguments = iter(sys.argv[1:])
    command = ["freshet"]
    for argument in arguments:
        if argument in _WRITTEN_TO:
            next(arguments, None)
        elif not argument.startswith(tuple(f"{option}=" for option in _WRITTEN_TO)):
            command.append(argument)
    return command


@contextmanager
def bars() -> Iterator[Bars]:
    """Show a bar for each long step, on stderr."""
    with progress() as shown:

        def bar(name: str, total: int) -> Progress:
            task = shown.add_task(name, total=total)
            return lambda done: shown.update(task, advance=done)

        yield bar


def _plan(protocol: Protocol, log: Interactions, test_from_ms: int | None, *, within_session: bool) -> Plan:
    from streams.evaluation import protocols

    if test_from_ms is None:
        return protocols.cold_start(log) if protocol is Protocol.COLD_START else protocols.leave_one_out(log)
    if protocol is Protocol.TIME_SPLIT:
        return protocols.time_split(log, test_from_ms)
    return protocols.prequential(log, test_from_ms, within_session=within_session)


def _test_from_ms(text: str, protocol: Protocol) -> int | None:
    """Return where testing begins; None where no time tells that."""
    if protocol in {Protocol.LEAVE_ONE_OUT, Protocol.COLD_START}:
        if text:
            raise ConfigurationError(
                f"--test-from does not go with {protocol.value}, whose test is of users, not of a time"
            )
        return None
    if not text:
        raise ConfigurationError(f"{protocol.value} needs --test-from, like --test-from 2017-12-04")
    return moment_ms(text)


def moment_ms(text: str) -> int:
    """Return a moment given on the command line, ms since the epoch."""
    if text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"--test-from must be ISO 8601 or ms since the epoch, not {text!r}") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _show(numbers: Mapping[str, Any]) -> None:
    """Print a table for each mask, the headline's first."""
    masks = {"excluded": "without items the user met before", "allowed": "with items the user met before"}
    for mask in sorted(masks, key=lambda name: (name == "excluded") != numbers["exclude_seen"]):
        part = numbers[mask]["overall"]
        out.print(_table(f"{numbers['log']}, {numbers['protocol']}: {part['questions']:,} lists {masks[mask]}", part))
    if numbers["freshness"] is not None:
        out.print(_table("told of events at each", numbers["freshness"]))
    broken = sum(sum(found.values()) for found in numbers["violations"].values())
    out.print(f"items on Freshet's lists that break a rule: {broken:,}")
    err.print(f"{numbers['events_per_s']:,.0f} events/s")


def _table(title: str, part: Mapping[str, Any]) -> Table:
    """Return means by system, and whether the first one's NDCG@10 is surely above or below that of the others."""
    from rich.table import Table

    table = Table(title=title)
    table.add_column("system")
    for name in _SHOWN:
        table.add_column(name, justify="right")
    table.add_column("ndcg@10: freshet is")
    for name, measured in part["metrics"].items():
        found = part["paired"].get(name, {}).get("ndcg@10")
        verdict = "" if found is None else "above" if found["above"] else "below" if found["below"] else "level"
        table.add_row(name, *(f"{measured[column]:.4f}" for column in _SHOWN), verdict)
    return table


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(
        rich_help_panel="Quality",
        epilog=examples(
            "freshet evaluate movielens-100k",
            "freshet evaluate movielens-100k --protocol prequential --test-from 1998-03-20 --freshness",
            "freshet evaluate complete-journey --protocol time-split --test-from 2017-12-04",
            "freshet evaluate clicks.jsonl --items items.jsonl --protocol time-split --test-from 2024-05-01",
        ),
    )(evaluate)
