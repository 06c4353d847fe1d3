"""`freshet items`: load the shop's catalogue from a file, delete items, look at one."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple

import orjson
import typer

from streams.commands.common import err, examples, guarded, out
from streams.commands.common import settings as read_settings
from streams.errors import DependencyError, FreshetError
from streams.settings import Settings
from streams.wire.items import Item, decode_item
from streams.wire.limits import MAX_ITEM_BYTES, Rejected, RejectedError, check_id

app = typer.Typer(name="items", help="The shop's catalogue: load, show and delete items.", no_args_is_help=True)

#: Bad lines told one by one; the rest is counted.
_MAX_TOLD = 20
#: Neighbours shown of each family; `--json` has all.
_MAX_NEIGHBOURS = 10
#: What is told of an item, and the topic.
_TOLD = {"signals": "item-signals", "neighbours": "item-neighbours"}
#: A line with the largest item, its id and its line break.
_MAX_LINE_BYTES = MAX_ITEM_BYTES + 1_024


class Line(NamedTuple):
    """One line of the file: its number from 1, the file's bytes read so far, and what it holds."""

    number: int
    end: int
    item: Item | Rejected


def parse_line(line: bytes) -> Item | Rejected:
    """
    Read one JSON line as an item; the key is its `item_id`.

    >>> parse_line(b'{"item_id": 7, "title": "Mug"}').item_id
    '7'
    >>> parse_line(b'{"title": "Mug"}').reason
    'missing_field'
    """
    if len(line) > MAX_ITEM_BYTES:
        return Rejected("oversize", f"more than the {MAX_ITEM_BYTES} bytes that are allowed")
    try:
        fields = orjson.loads(line)
        if not isinstance(fields, dict):
            return Rejected("not_object", f"an item is one JSON object, not {type(fields).__name__}")
        if "item_id" not in fields:
            return Rejected("missing_field", "item_id is missing")
        item_id = check_id(fields["item_id"], "item_id")
    except orjson.JSONDecodeError as error:
        return Rejected("not_json", f"not JSON: {error.msg}")
    except RejectedError as error:
        return error.rejected
    item = decode_item(item_id.encode(), line)
    assert not isinstance(item, str)  # only a tombstone reads as an id
    return item


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """Read JSON lines; blank ones are skipped, overlong ones are refused without being held in memory."""
    number = end = 0
    while line := file.readline(_MAX_LINE_BYTES):
        number += 1
        end += len(line)
        part = line
        while not part.endswith(b"\n") and (part := file.readline(_MAX_LINE_BYTES)):
            end += len(part)
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")  # some editors put a byte order mark before UTF-8
        if text := line.strip():
            yield Line(number, end, parse_line(text))


@app.callback()
def main() -> None:
    """The shop's catalogue: load, show and delete items."""


@app.command(
    epilog=examples(
        "freshet items load catalogue.jsonl",
        "freshet items load --strict --json catalogue.jsonl",
        "zcat catalogue.jsonl.gz | freshet items load -",
    )
)
@guarded
def load(
    *,
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines, one item a line; - reads stdin.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Check the whole file first; send nothing when a line is bad.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: counts and bad lines as one object.")] = False,
) -> None:
    """
    Send items from a JSON lines file to the `items` topic.

    Each line is one object with "item_id" and any of: title, description, category, brand, price, attributes, tags,
    in_stock, image_url, reviews. A bad line is told with its number and left out; the exit code is then 1.
    """
    settings = read_settings()
    bad: list[tuple[int, Rejected]] = []
    with ExitStack() as stack:
        source, size = _open(file, stack)
        lines: Iterable[Line] = read_lines(source)
        if strict:
            lines = list(lines)
            bad = [(line.number, line.item) for line in lines if isinstance(line.item, Rejected)]
        sent = 0 if bad else _send(settings, lines, size, bad)
    _report(sent, bad, as_json=as_json)
    if bad:
        raise typer.Exit(1)


def _open(file: str, stack: ExitStack) -> tuple[BinaryIO, int | None]:
    if file == "-":
        return sys.stdin.buffer, None
    path = Path(file)
    try:
        opened = stack.enter_context(path.open("rb"))
        return opened, path.stat().st_size
    except OSError as error:
        raise FreshetError(f"{file} cannot be read: {error.strerror}") from error


def _send(settings: Settings, lines: Iterable[Line], size: int | None, bad: list[tuple[int, Rejected]]) -> int:
    """Send the good lines, collect the bad ones; return how many items Kafka took."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from streams.commands.lookup import partition_counts
    from streams.commands.sending import Sender
    from streams.topics import full_name

    partition_counts(settings, "items")
    topic = full_name(settings, "items")
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[items]} items"), TimeRemainingColumn(),
        console=err, transient=True, disable=not err.is_terminal,
    )  # fmt: skip
    with bar, Sender(settings) as sender:
        task = bar.add_task("items", total=size, items=0)
        queued = 0
        for line in lines:
            if isinstance(line.item, Rejected):
                bad.append((line.number, line.item))
                continue
            sender.send(topic, line.item.item_id.encode(), line.item.encode())
            queued += 1
            bar.update(task, completed=line.end, items=queued)
        sender.flush()
    if sender.refused:
        raise FreshetError(f"Kafka refused {len(sender.refused)} items ({sender.sent} were sent): {sender.refused[0]}")
    return sender.sent


def _report(sent: int, bad: list[tuple[int, Rejected]], *, as_json: bool) -> None:
    from streams.commands.lookup import printable

    for number, rejected in bad[:_MAX_TOLD]:
        err.print(f"line {number}: {rejected.reason}: {printable(rejected.error)}", style="red", markup=False)
    if len(bad) > _MAX_TOLD:
        err.print(f"and {len(bad) - _MAX_TOLD} more bad lines", style="red")
    if as_json:
        told = [{"line": number, "reason": rejected.reason, "error": rejected.error} for number, rejected in bad]
        typer.echo(orjson.dumps({"sent": sent, "bad": told}, option=orjson.OPT_INDENT_2))
    else:
        out.print(f"{sent} items sent, {len(bad)} bad lines", highlight=False)


@app.command(epilog=examples("freshet items delete 42 43"))
@guarded
def delete(
    item_ids: Annotated[list[str], typer.Argument(metavar="ITEM_ID...", help="Items to delete.")],
) -> None:
    """Delete items: a tombstone each, so that they leave the catalogue and every new list."""
    from streams.commands.lookup import partition_counts
    from streams.commands.sending import Sender
    from streams.topics import full_name

    settings = read_settings()
    keys = [_id(item_id) for item_id in item_ids]
    partition_counts(settings, "items")
    with Sender(settings) as sender:
        for key in keys:
            sender.send(full_name(settings, "items"), key.encode(), None)
    if sender.refused:
        raise FreshetError(f"Kafka refused {len(sender.refused)} tombstones: {sender.refused[0]}")
    out.print(f"{sender.sent} items deleted", highlight=False)


def _id(given: str) -> str:
    try:
        return check_id(given, "ITEM_ID")
    except RejectedError as error:
        raise FreshetError(error.rejected.error) from error


@app.command(epilog=examples("freshet items show 42", "freshet items show 42 --json | jq .vectors"))
@guarded
def show(
    *,
    item_id: Annotated[str, typer.Argument(metavar="ITEM_ID", help="The item to look up.")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one object.")] = False,
) -> None:
    """Show what Kafka holds of one item: the snapshot, its vectors, its popularity and its neighbours."""
    settings = read_settings()
    report = item_report(settings, _id(item_id))
    if as_json:
        typer.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    else:
        _print_item(report)
    if report["item"] is None:
        err.print(f"item {item_id} is {'deleted' if report['deleted'] else 'not known'}", style="red", markup=False)
        raise typer.Exit(1)


def item_report(settings: Settings, item_id: str) -> dict[str, Any]:
    """
    Return what Kafka holds of an item.

    The fields are `item_id`, `source` (`items`, or `item-sightings` while the shop says nothing), `deleted`, `item`
    (the snapshot or None), `vectors` (fingerprint, dim, whether it is the served space), `signals` and `neighbours`
    (the newest records of `item-signals` and `item-neighbours`, or None) and `titles` of the items that the latter
    names, where Redis has their cards.

    Raises
    ------
    FreshetError
        When a topic is missing or Kafka does not answer.

    """
    from streams.commands.lookup import newest_records, partition_counts
    from streams.kafka.deadline import Deadline
    from streams.kafka.partitioner import partition_of

    counts = partition_counts(settings, "items", "item-sightings", "item-vectors", *_TOLD.values(), "models")
    deadline = Deadline(settings.kafka_timeout_s)
    key = item_id.encode()
    report: dict[str, Any] = {"item_id": item_id, "source": None, "deleted": False, "item": None}
    for name in ("items", "item-sightings"):
        found = newest_records(settings, name, partition_of(key, counts[name]), {key}, deadline).get(key)
        if found is None:
            continue
        item = decode_item(key, found.value())
        report["deleted"] = isinstance(item, str)
        report["source"] = name
        if isinstance(item, Item):
            report["item"] = item.snapshot()
        break
    partition = partition_of(key, counts["item-vectors"])
    report["vectors"] = _vectors(settings, key, partition, counts["models"], deadline)
    for part, name in _TOLD.items():
        told = newest_records(settings, name, partition_of(key, counts[name]), {key}, deadline).get(key)
        report[part] = orjson.loads(told.value()) if told is not None and told.value() else None
    report["titles"] = _titles(settings, report["neighbours"] or {})
    return report


def _titles(settings: Settings, neighbours: dict[str, Any]) -> dict[str, str]:
    from streams.commands.lookup import item_titles

    named = [item_id for family in ("followers", "neighbours") for item_id, _ in neighbours.get(family, ())]
    try:
        return item_titles(settings, named)
    except DependencyError:
        # Titles are a courtesy: Kafka has what was asked for.
        return {}


def _vectors(settings: Settings, key: bytes, partition: int, models: int, deadline: Any) -> list[dict[str, Any]]:
    from streams.commands.lookup import newest_records
    from streams.kafka.bulk_read import read_to_end
    from streams.kafka.partitioner import partition_of
    from streams.topics import full_name
    from streams.wire.models import SERVED_KEY, decode_served
    from streams.wire.vectors import decode_vector, split_vector_key

    told = newest_records(settings, "models", partition_of(SERVED_KEY, models), {SERVED_KEY}, deadline)
    served = told.get(SERVED_KEY)
    fingerprint = decode_served(served.value()).fingerprint if served is not None and served.value() else None
    values: dict[str, bytes | None] = {}

    def keep(messages: Any) -> None:
        values.update(
            (split_vector_key(message.key())[0], message.value())
            for message in messages
            if message.key().endswith(b":" + key) and split_vector_key(message.key())[1].encode() == key
        )

    read_to_end(settings, full_name(settings, "item-vectors"), [partition], keep, deadline)
    return [
        {"fingerprint": name, "dim": int(decode_vector(value).vector.shape[0]), "served": name == fingerprint}
        for name, value in sorted(values.items())
        if value is not None
    ]


def _print_item(report: dict[str, Any]) -> None:
    from rich.table import Table

    from streams.commands.lookup import printable

    table = Table(box=None, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows: dict[str, object] = {"item_id": report["item_id"], "source": report["source"] or "-"}
    for name, value in (report["item"] or {}).items():
        rows[name] = value if isinstance(value, str) else orjson.dumps(value)
    spaces = [f"{v['fingerprint']} ({v['dim']}{', served' if v['served'] else ''})" for v in report["vectors"]]
    rows["vectors"] = ", ".join(spaces) or "none yet"
    if signals := report["signals"]:
        rows["popularity"] = (
            f"{signals['popularity']:.4g} from {signals['events']} events, trend {signals['trend']:.3g}"
        )
    for label, family in (("followed by", "followers"), ("goes with", "neighbours")):
        heaviest = (report["neighbours"] or {}).get(family, ())[:_MAX_NEIGHBOURS]
        told = (f"{report['titles'].get(item_id, item_id)} {weight:.3f}" for item_id, weight in heaviest)
        rows[label] = ", ".join(told) or "nothing known yet"
    for name, value in rows.items():
        shown = value if isinstance(value, bytes) else str(value)
        table.add_row(name, _plain(printable(shown)))
    out.print(table)


def _plain(text: str) -> Any:
    """Wrap a text so that brackets in it are not read as markup."""
    from rich.text import Text

    return Text(text)


def register(app_: typer.Typer) -> None:
    """Add `items` to the command line."""
    app_.add_typer(app, rich_help_panel="Kafka")
