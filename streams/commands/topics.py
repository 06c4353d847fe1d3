"""`freshet topics`: what must exist in Kafka before a role starts."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from streams.commands.common import err, guarded, out, settings
from streams.errors import TopicMismatchError

_app = typer.Typer(help="Create, check and list the topics of this namespace.", no_args_is_help=True)


@_app.command("create")
@guarded
def create() -> None:
    """Create every missing topic with FRESHET_PARTITIONS and FRESHET_REPLICATION; existing ones stay as they are."""
    from streams.kafka.admin import create_topics

    created = create_topics(settings())
    for name in created:
        out.print(name, markup=False, highlight=False)
    err.print(f"{len(created)} topics created" if created else "every topic is there already")


@_app.command("check")
@guarded
def check() -> None:
    """Say what is missing or unfit; exit code 3 when anything is."""
    from streams.kafka.admin import check_topics

    problems = check_topics(settings())
    for problem in problems:
        out.print(problem, markup=False, highlight=False)
    if problems:
        raise TopicMismatchError(f"{len(problems)} problems with topics")
    err.print("every topic is there and fits")


@_app.command("list")
@guarded
def show(
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """List every topic: partitions in Kafka (- where it is missing), cleanup, key and content."""
    from rich.table import Table

    from streams.kafka.admin import topic_partitions
    from streams.topics import TOPICS

    configured = settings()
    partitions = topic_partitions(configured)
    rows = [(topic.full_name(configured), topic) for topic in TOPICS.values()]
    if as_json:
        listed = [
            {
                "name": name,
                "partitions": partitions.get(name),
                "cleanup": topic.cleanup,
                "key": topic.key,
                "content": topic.content,
            }
            for name, topic in rows
        ]
        typer.echo(json.dumps(listed, indent=2))
        return
    table = Table("topic", "partitions", "cleanup", "key", "content")
    for name, topic in rows:
        table.add_row(name, str(partitions.get(name, "-")), topic.cleanup, topic.key, topic.content)
    out.print(table)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(_app, name="topics", rich_help_panel="Kafka")
