"""The benchmarks' command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(no_args_is_help=True, help="Benchmarks of Freshet.")

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the results to this file as well.")]
Page = Annotated[bool, typer.Option("--page", help="Put the results on tests/bench/RESULTS.md.")]
Users = Annotated[int, typer.Option(min=1_000, help="Users held.")]
Events = Annotated[int, typer.Option(min=10_000, help="Events they are made from.")]


@app.callback()
def main() -> None:
    """Benchmarks of Freshet; `freshness` measures the stack of `freshet up`, the others start what they need."""


def report(title: str, results: list[dict[str, Any]], ratios: dict[str, float], json_file: Path | None) -> None:
    """Print a table of results and ratios, and write them where asked."""
    table = Table(title=title)
    for name in results[0]:
        table.add_column(name, no_wrap=name == "name")
    for result in results:
        table.add_row(*(_cell(value) for value in result.values()))
    # A table in a file is not cut to a terminal that is not there.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for name, ratio in ratios.items():
        console.print(f"{name}: {ratio:.2f}")
    if json_file is not None:
        write(json_file, results, ratios)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def finish(
    name: str,
    title: str,
    results: list[dict[str, Any]],
    ratios: dict[str, float],
    json_file: Path | None,
    *,
    page: bool,
    versions: Mapping[str, str] | None = None,
) -> None:
    """Report, and put the results on the page where asked."""
    report(title, results, ratios, json_file)
    if page:
        from tests.bench.page import write as write_page  # noqa: PLC0415 -- so that --help is quick

        write_page(name, results, ratios, versions or {})


def write(json_file: Path, results: list[dict[str, Any]], ratios: dict[str, float]) -> None:
    """Write results and ratios as JSON."""
    json_file.write_bytes(orjson.dumps({"results": results, "ratios": ratios}, option=orjson.OPT_INDENT_2))


@app.command()
def freshness(
    events: Annotated[int, typer.Option(min=5, help="Events, one after the other.")] = 50,
    json_file: JsonFile = None,
) -> None:
    """Time from an event that kcat produces to the change of that user's key in Redis."""
    from tests.bench.freshness import measure  # noqa: PLC0415 -- so that --help is quick

    report("Event to Redis, ms", measure(events), {}, json_file)


@app.command()
def stream(
    *,
    only: Annotated[list[str] | None, typer.Option(help="Part of a contestant's name; may be repeated.")] = None,
    log: Annotated[list[str] | None, typer.Option(help="uniform or zipf; both unless given.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each contestant; medians are told.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the log, for development.")] = False,
    minutes: Annotated[
        float | None,
        typer.Option(min=1, help="Time for all: the long log for those alone that a ratio rests on, the best first."),
    ] = None,
    json_file: JsonFile = None,
    page: Page = False,
) -> None:
    """Freshet and its peers at the same job, one core each: events per second and per CPU second."""
    from streams.settings import Settings  # noqa: PLC0415 -- so that --help is quick
    from tests.bench.stream import contest  # noqa: PLC0415 -- the same
    from tests.bench.stream.installs import versions  # noqa: PLC0415 -- the same
    from tests.bench.stream.job import LOGS  # noqa: PLC0415 -- the same

    so_far: list[dict[str, Any]] = []

    def on_row(row: dict[str, Any]) -> None:
        so_far.append(row)
        print(row, flush=True)
        if json_file is not None:
            write(json_file, so_far, contest.ratios(so_far))

    size = contest.QUICK if quick else contest.FULL
    found = contest.compete(only or (), log or LOGS, runs, size, on_row, minutes=minutes)
    if found.rows:
        title = "Decayed vectors of 100k users, one core"
        page = page and not found.failures
        told = contest.ratios(found.rows)
        finish("stream", title, found.rows, told, json_file, page=page, versions=versions(Settings().cache_dir))
    if found.failures:
        sys.exit("\n".join(found.failures))


@app.command()
def encoder(
    *,
    texts: Annotated[list[str] | None, typer.Option(help="ML-100K or Complete Journey; both unless given.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each contestant; medians are told.")] = 5,
    threads: Annotated[int, typer.Option(min=0, help="Threads of each contestant; 0 takes all cores.")] = 0,
    json_file: JsonFile = None,
    page: Page = False,
) -> None:
    """Items to vectors on CPU: Freshet from Kafka to Kafka, sentence-transformers, infinity, the bare forward pass."""
    from tests.bench.encoder import contest  # noqa: PLC0415 -- so that --help is quick

    def on_rows(rows: list[dict[str, Any]]) -> None:
        print(*rows, sep="\n", flush=True)
        if json_file is not None:
            write(json_file, rows, contest.ratios(rows))

    if unknown := sorted(set(texts or ()) - set(contest.SETS)):
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(contest.SETS)}")
    found = contest.compete(texts or (), runs, threads or len(os.sched_getaffinity(0)), on_rows)
    told = contest.ratios(found.rows)
    finish("encoder", "Items to vectors, CPU", found.rows, told, json_file, page=page, versions=contest.VERSIONS)
    for reason in found.absent:
        print(reason)


@app.command("encoder-live")
def encoder_live(
    *,
    bulk: Annotated[int, typer.Option(min=1_000, help="Items that are encoded meanwhile.")] = 100_000,
    rate: Annotated[float, typer.Option(min=0.1, help="Live items per second.")] = 20.0,
    seconds: Annotated[float, typer.Option(min=5, help="Measured time.")] = 60.0,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the encoder; 0 takes all cores.")] = 0,
    json_file: JsonFile = None,
    page: Page = False,
) -> None:
    """From a changed item to its vector on `item-vectors`, while a whole catalogue is encoded."""
    from tests.bench.encoder.live import measure  # noqa: PLC0415 -- so that --help is quick

    rows = measure(bulk, rate, seconds, threads)
    finish("encoder-live", "Live items beside a bulk, CPU", rows, {}, json_file, page=page)


@app.command("encoder-changes")
def encoder_changes(
    *,
    items: Annotated[int, typer.Option(min=1_000, help="Items of the catalogue.")] = 100_000,
    share: Annotated[float, typer.Option(min=0, max=1, help="Part of them that changes.")] = 0.01,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the encoder; 0 takes all cores.")] = 0,
    json_file: JsonFile = None,
    page: Page = False,
) -> None:
    """What is encoded twice or lost when the encoder is killed, and what when a catalogue is told anew."""
    from tests.bench.encoder.changes import measure  # noqa: PLC0415 -- so that --help is quick

    rows = measure(items, share, threads)
    finish("encoder-changes", "A killed encoder, and a catalogue told anew", rows, {}, json_file, page=page)


@app.command()
def latency(
    *,
    rate: Annotated[list[float] | None, typer.Option(help="Events per second; 100, 1k and 5k unless given.")] = None,
    log: Annotated[list[str] | None, typer.Option(help="uniform or zipf; both unless given.")] = None,
    seconds: Annotated[float, typer.Option(min=5, help="Measured time of each row.")] = 300.0,
    partitions: Annotated[int, typer.Option(min=1, help="Of every topic; one carries these rates.")] = 1,
    json_file: JsonFile = None,
    page: Page = False,
) -> None:
    """From an event's append to the first list in Redis that has seen it, at fixed rates."""
    from tests.bench import latency as bench  # noqa: PLC0415 -- so that --help is quick
    from tests.bench.stream.job import LOGS  # noqa: PLC0415 -- the same

    rows = bench.measure(rate or bench.RATES, log or LOGS, seconds, partitions)
    finish("latency", "Event to Redis", rows, {}, json_file, page=page)


@app.command()
def ranking(
    *,
    items: Annotated[list[int] | None, typer.Option(min=100, help="Items; 10k and 100k unless given.")] = None,
    json_file: JsonFile = None,
    page: Page = False,
) -> None:
    """From owed users to encoded lists, in process, on one core."""
    # As a role does; read when NumPy is imported.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from tests.bench import ranking as bench  # noqa: PLC0415 -- so that --help is quick

    finish("ranking", "Lists made", bench.measure(items or bench.ITEMS), {}, json_file, page=page)


@app.command()
def strikes(
    *,
    users: Annotated[int, typer.Option(min=6_000, help="Users whose lists hold the item.")] = 20_000,
    json_file: JsonFile = None,
    page: Page = False,
) -> None:
    """From a block record to lists in Redis without the item, of 5,000 users and of all."""
    from tests.bench.strikes import measure  # noqa: PLC0415 -- so that --help is quick

    finish("strikes", "Items struck from lists", measure(users), {}, json_file, page=page)


@app.command()
def restore(
    users: Users = 1_000_000, events: Events = 10_000_000, json_file: JsonFile = None, *, page: Page = False
) -> None:
    """Restart of a worker that holds a million users."""
    from tests.bench.million import restore as measure  # noqa: PLC0415 -- so that --help is quick

    finish("restore", "Restart of a worker", measure(users, events), {}, json_file, page=page)


@app.command()
def memory(
    users: Users = 1_000_000,
    events: Events = 10_000_000,
    hot_users: Annotated[int, typer.Option(min=1, help="Users with a list and vectors in memory.")] = 100_000,
    json_file: JsonFile = None,
    *,
    page: Page = False,
) -> None:
    """Resident memory of a worker that holds a million users."""
    from tests.bench.million import memory as measure  # noqa: PLC0415 -- so that --help is quick

    finish("memory", "Memory of a worker", measure(users, events, hot_users), {}, json_file, page=page)


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.1, help="Length.")] = 30.0,
    rate: Annotated[float | None, typer.Option(help="Events per second; else 70 % of the capacity.")] = None,
    log: Annotated[str, typer.Option(help="uniform or zipf.")] = "zipf",
    json_file: JsonFile = None,
    *,
    page: Page = False,
) -> None:
    """Worker and signals at 70 % of capacity: growth of memory, freshness, lag at the end."""
    from tests.bench.soak import measure  # noqa: PLC0415 -- so that --help is quick

    finish("soak", "Soak", measure(log, minutes, rate), {}, json_file, page=page)


@app.command()
def index(
    *,
    rows: Annotated[list[int] | None, typer.Option(help="Rows searched; 10k, 100k and 1M unless given.")] = None,
    graph_rows: Annotated[
        int, typer.Option(min=0, help="The largest catalogue that gets a graph; one of 1M takes some ten minutes.")
    ] = 1_000_000,
    json_file: JsonFile = None,
    page: Page = False,
) -> None:
    """Ways to the nearest of many product vectors, one core: milliseconds, recall, inserts."""
    from tests.bench import index as bench  # noqa: PLC0415 -- so that --help is quick

    results, ratios = bench.measure(rows or bench.ROWS, graph_rows)
    finish("index", "Nearest rows, 100 for each query", results, ratios, json_file, page=page)
