"""`freshet up|down|status|demo`: the whole flow on one machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands.common import err, guarded, out
from streams.commands.replay import DEFAULT_SPEED, Dataset, Items, Limit, Speed, find_log, parse_speed, progress
from streams.errors import ConfigurationError, FreshetError
from streams.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.local.stack import Stack

_PANEL = "Local stack"
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


@guarded
def up(as_json: AsJson = False) -> None:
    """
    Start a local Kafka and Redis, create topics, start one encoder, signals and interest worker.

    What runs is used as it is; a role that runs with other settings is restarted. A Kafka or Redis that
    FRESHET_KAFKA_BOOTSTRAP or FRESHET_REDIS_URL names is used instead of a local one.
    """
    from streams.local.processes import terminable

    with terminable():
        stack = _stack()
        stack.up()
    _show_status(stack, as_json=as_json)


@guarded
def down() -> None:
    """Stop what `up` or `demo` started: roles first, which finish their commits, then Redis and Kafka."""
    stopped = _stack().down()
    err.print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


@guarded
def status(as_json: AsJson = False) -> None:
    """Show processes, readiness, addresses and the lag of each consumer group."""
    _show_status(_stack(), as_json=as_json)


@guarded
def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop everything at the end; data and logs stay.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="First remove the data of earlier runs.")] = False,
    speed: Speed = DEFAULT_SPEED,
    limit: Limit = None,
    dataset: Dataset = None,
    items: Items = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the summary to this file too.")] = None,
) -> None:
    """
    Replay MovieLens-100K (or --dataset FILE.jsonl) through the whole flow and sum up what came out.

    Everything is left running to explore, or stopped with --once. Ctrl-C stops all that this command started. A
    second run sends the same events again, which the worker knows as duplicates; --fresh begins anew.
    """
    from streams.local.demo import WORKER_OPTIONS, run
    from streams.local.processes import terminable

    pace = parse_speed(speed)
    with terminable():
        stack = _stack()
        if fresh:
            _wipe(stack)
        log = find_log(stack.settings, "", dataset, items)
        if not log.entries:
            raise ConfigurationError("the log has no events")
        with stopping(stack):
            stack.up(options={"worker": WORKER_OPTIONS})
            with progress() as bar:
                summary = run(stack, log, limit=limit, speed=pace, track=_bars(bar))
            if json_file is not None:
                _write(json_file, summary)
            if once:
                stack.down()
    _show_summary(summary)
    if not once:
        _show_ways(stack, summary)


@contextmanager
def stopping(stack: Stack) -> Iterator[None]:
    """Stop what this command started when the block fails or is interrupted."""
    try:
        yield
    except BaseException:
        stack.stop_started()
        raise


def _stack() -> Stack:
    from streams.local.stack import Stack

    return Stack(Settings.from_env(), lambda line: err.print(line, markup=False, highlight=False))


def _wipe(stack: Stack) -> None:
    if stack.external_kafka:
        raise ConfigurationError("--fresh removes local data; FRESHET_KAFKA_BOOTSTRAP names a Kafka that is not ours")
    stack.wipe()


def _bars(bar: Any) -> Callable[[str, int, int], None]:
    tasks: dict[str, Any] = {}

    def track(step: str, done: int, total: int) -> None:
        if step not in tasks:
            tasks[step] = bar.add_task(step, total=total or None)
        # A step without a total counts down: its first value is the whole.
        if total == 0:
            task = bar.tasks[bar.task_ids.index(tasks[step])]
            total = max(done, int(task.total or 0))
            done = total - done
        bar.update(tasks[step], completed=done, total=total)

    return track


def _write(path: Path, summary: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error


def _show_summary(summary: dict[str, Any]) -> None:
    from rich.table import Table

    events, freshness = summary["events"], summary["freshness_s"]
    outcomes = ", ".join(f"{count} {name}" for name, count in events["outcomes"].items())
    table = Table(show_header=False, title=f"Freshet demo: {summary['dataset']}")
    table.add_row("events in", f"{events['sent']} ({outcomes})")
    table.add_row("rejected", str(summary["rejected"]))
    table.add_row("lists published", str(summary["lists_published"]))
    times = ", ".join(f"{name} {_ms(freshness[name])}" for name in ("p50", "p95", "p99"))
    table.add_row("freshness, event to Redis", times)
    table.add_row("items encoded", str(summary["items_encoded"]))
    table.add_row("users with a list", f"{summary['users']['with_list']} of {summary['users']['in_log']}")
    for key, variants in summary["experiments"].items():
        table.add_row(f"experiment {key}", ", ".join(f"{name} {count}" for name, count in variants.items()))
    out.print(table)
    for user in summary["lists"]:
        listed = Table("item", "score", "from", "because", title=f"user {user['user_id']}", title_justify="left")
        for item in user["items"]:
            reasons = ", ".join(f"{why['title']} {why['share']:.0%}" for why in item["because"])
            listed.add_row(item["title"], f"{item['score']:.3f}", item["source"], reasons)
        out.print(listed)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"


def _show_ways(stack: Stack, summary: dict[str, Any]) -> None:
    settings = stack.settings
    user = summary["lists"][0]["user_id"] if summary["lists"] else "USER"
    ways = (
        ("freshet status", "processes, addresses, lag"),
        (f"freshet inspect {user}", "one user: state, list, reasons, buckets"),
        ("freshet tail recommendations", "lists as they are published"),
        (f"redis-cli -u {settings.redis_url} GET {settings.redis_prefix}rec:{user}", "the list in Redis"),
        ("freshet down", "stop everything"),
    )
    out.print(
        f"\nEverything is running: Kafka at {settings.kafka_bootstrap}, Redis at {settings.redis_url}", highlight=False
    )
    for command, what in ways:
        out.print(f"  {command:<64} {what}", markup=False, highlight=False)


def _show_status(stack: Stack, *, as_json: bool) -> None:
    from rich.table import Table

    found = _status(stack)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("process", "state", "pid", "port", "log")
    for process in found["processes"]:
        pid, port = str(process["pid"]), str(process["port"])
        table.add_row(process["name"], process["state"], pid, port, process["log"])
    out.print(table)
    out.print(f"Kafka  {found['kafka_bootstrap']}", highlight=False)
    out.print(f"Redis  {found['redis_url']}", highlight=False)
    if found["kafka_error"]:
        out.print(found["kafka_error"], markup=False, highlight=False)
    for group, topics in found["lag"].items():
        behind = ", ".join(f"{topic} {count}" for topic, count in topics.items() if count)
        out.print(f"lag of {group}: {behind or 'none'}", markup=False, highlight=False)


def _status(stack: Stack) -> dict[str, Any]:
    from streams.kafka.admin import group_lags

    settings = stack.settings.model_copy(update={"kafka_timeout_s": 5.0})
    lag: dict[str, dict[str, int]] = {}
    problem = ""
    try:
        lag = {one.group: one.by_topic for one in group_lags(settings)}
    except FreshetError as error:
        problem = str(error)
    return {
        "processes": [
            {
                "name": one.name,
                "state": one.state,
                "detail": one.detail,
                "pid": one.service.process.pid,
                "port": one.service.port,
                "log": str(one.service.process.log),
            }
            for one in stack.readiness()
        ],
        "kafka_bootstrap": settings.kafka_bootstrap,
        "redis_url": settings.redis_url,
        "kafka_error": problem,
        "lag": lag,
    }


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (up, down, status, demo):
        app.command(rich_help_panel=_PANEL)(command)
