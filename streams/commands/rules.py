"""`freshet rules`: what must not be listed, what has a slot, what is put forward: set it, look at it, take it back."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import typer

from streams.commands.common import err, examples, guarded, out
from streams.commands.common import settings as read_settings
from streams.errors import FreshetError
from streams.settings import Settings
from streams.wire.limits import Rejected, RejectedError, check_id
from streams.wire.rules import Rule, decode_rule

app = typer.Typer(name="rules", help="Rules of the shop: block, pin and boost items.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Rules of the shop: block, pin and boost items."""


@app.command(
    "set",
    epilog=examples(
        "freshet rules set 42 --block recall",
        "freshet rules set 43 --pin 1 --from 2027-01-01T00:00:00Z --until 2027-01-08T00:00:00Z",
        "freshet rules set 44 --boost -0.2",
    ),
)
@guarded
def set_(
    *,
    item_id: Annotated[str, typer.Argument(metavar="ITEM_ID", help="The item that the rules are about.")],
    block: Annotated[
        str | None, typer.Option(metavar="REASON", help="Keep the item out of lists, for this reason.")
    ] = None,
    pin: Annotated[
        int | None, typer.Option(metavar="SLOT", help="Give the item this slot of lists; 1 is first.")
    ] = None,
    boost: Annotated[
        float | None, typer.Option(metavar="BY", help="Add this to the item's score; below 0 puts it back.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="When that begins; ISO 8601 or milliseconds.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="When that ends; without, never.")] = None,
) -> None:
    """
    Set the rules of an item, in place of those it has.

    At least one of --block, --pin and --boost. The times count for all of them; where they should differ, send the
    record yourself.
    """
    rule = build_rule(item_id, block=block, pin=pin, boost=boost, from_=from_, until=until)
    _send(read_settings(), {rule.item_id: rule.encode()})
    out.print(f"rules set: {rule.encode().decode()}", markup=False, highlight=False)


def build_rule(
    item_id: str,
    *,
    block: str | None = None,
    pin: int | None = None,
    boost: float | None = None,
    from_: str | None = None,
    until: str | None = None,
) -> Rule:
    """
    Return the rules that options ask for, checked as a worker checks them.

    >>> build_rule("42", block="recall").encode()
    b'{"item_id":"42","block":{"reason":"recall"}}'

    Raises
    ------
    FreshetError
        With the sentence a dead letter would have.

    """
    times = {"from": from_, "until": until}
    span = {name: int(text) if text.isdecimal() else text for name, text in times.items() if text is not None}
    asked = {"block": ("reason", block), "pin": ("slot", pin), "boost": ("by", boost)}
    parts = {part: {name: value, **span} for part, (name, value) in asked.items() if value is not None}
    if not parts:
        raise FreshetError("say at least one of --block, --pin and --boost; `freshet rules remove` takes rules back")
    rule = decode_rule(_id(item_id).encode(), orjson.dumps(parts))
    if isinstance(rule, Rejected):
        raise FreshetError(rule.error)
    assert isinstance(rule, Rule)  # only a tombstone reads as an id
    return rule


@app.command(epilog=examples("freshet rules remove 42 43"))
@guarded
def remove(
    item_ids: Annotated[list[str], typer.Argument(metavar="ITEM_ID...", help="Items whose rules are taken back.")],
) -> None:
    """Take all rules of items back: a tombstone each."""
    sent = _send(read_settings(), dict.fromkeys(map(_id, item_ids)))
    out.print(f"rules of {sent} items removed", highlight=False)


def _send(settings: Settings, values: dict[str, bytes | None]) -> int:
    from streams.commands.lookup import partition_counts
    from streams.commands.sending import Sender
    from streams.topics import full_name

    partition_counts(settings, "item-rules")
    with Sender(settings) as sender:
        for item_id, value in values.items():
            sender.send(full_name(settings, "item-rules"), item_id.encode(), value)
    if sender.refused:
        raise FreshetError(f"Kafka refused {len(sender.refused)} records: {sender.refused[0]}")
    return sender.sent


def _id(given: str) -> str:
    try:
        return check_id(given, "ITEM_ID")
    except RejectedError as error:
        raise FreshetError(error.rejected.error) from error


@app.command("list", epilog=examples("freshet rules list", "freshet rules list --json | jq '.[] | select(.block)'"))
@guarded
def list_(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: a list of objects.")] = False,
) -> None:
    """List the rules that stand on the topic, by item id; those whose time is over or to come among them."""
    standing, refused = read_rules(read_settings())
    fields = [orjson.loads(rule.encode()) for rule in standing]
    if as_json:
        typer.echo(orjson.dumps(fields, option=orjson.OPT_INDENT_2))
    else:
        for one in fields:
            out.print(_line(one), markup=False, highlight=False)
        err.print(f"rules of {len(fields)} items", highlight=False)
    for text in refused:
        err.print(text, style="red", markup=False, highlight=False)
    if refused:
        raise typer.Exit(1)


def read_rules(settings: Settings) -> tuple[list[Rule], list[str]]:
    """
    Return the newest rules of each item, by item id, and a sentence for each that workers refuse.

    Raises
    ------
    FreshetError
        When the topic is missing or Kafka does not answer.

    """
    from streams.commands.lookup import partition_counts, printable
    from streams.kafka.bulk_read import read_to_end
    from streams.kafka.deadline import Deadline
    from streams.topics import full_name

    newest: dict[bytes | None, bytes | None] = {}

    def keep(messages: Any) -> None:
        newest.update((message.key(), message.value()) for message in messages)

    count = partition_counts(settings, "item-rules")["item-rules"]
    topic = full_name(settings, "item-rules")
    read_to_end(settings, topic, list(range(count)), keep, Deadline(settings.kafka_timeout_s))
    standing: list[Rule] = []
    refused: list[str] = []
    for key, value in newest.items():
        match decode_rule(key, value):
            case Rule() as rule:
                standing.append(rule)
            case Rejected(error=error):
                refused.append(f"{printable(key or b'without a key')}: workers refuse this record: {printable(error)}")
    return sorted(standing, key=lambda rule: rule.item_id), sorted(refused)


def _line(fields: dict[str, Any]) -> str:
    from streams.commands.lookup import local_time, printable

    parts = []
    for name, part in fields.items():
        if name == "item_id":
            continue
        what = next(value for key, value in part.items() if key not in ("from", "until"))
        times = "".join(f" {bound} {local_time(part[bound])}" for bound in ("from", "until") if bound in part)
        parts.append(f"{name} {printable(str(what))}{times}")
    return f"{printable(fields['item_id'])}  {', '.join(parts)}"


def register(app_: typer.Typer) -> None:
    """Add `rules` to the command line."""
    app_.add_typer(app, rich_help_panel="Kafka")
