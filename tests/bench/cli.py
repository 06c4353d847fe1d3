"""The benchmarks' command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(no_args_is_help=True, help="Benchmarks of Freshet.")

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the results to this file as well.")]


@app.callback()
def main() -> None:
    """Benchmarks of Freshet; start the stack first with `freshet up`."""


def report(title: str, results: list[dict[str, Any]], ratios: dict[str, float], json_file: Path | None) -> None:
    """Print a table of results and ratios, and write them where asked."""
    table = Table(*results[0], title=title)
    for result in results:
        table.add_row(*(f"{value:.1f}" if isinstance(value, float) else str(value) for value in result.values()))
    console = Console()
    console.print(table)
    for name, ratio in ratios.items():
        console.print(f"{name}: {ratio:.2f}")
    if json_file is not None:
        json_file.write_bytes(orjson.dumps({"results": results, "ratios": ratios}, option=orjson.OPT_INDENT_2))


@app.command()
def freshness(
    events: Annotated[int, typer.Option(min=5, help="Events, one after the other.")] = 50,
    json_file: JsonFile = None,
) -> None:
    """Time from an event that kcat produces to the change of that user's key in Redis."""
    from tests.bench.freshness import measure  # noqa: PLC0415 -- so that --help is quick

    report("Event to Redis, ms", measure(events), {}, json_file)
