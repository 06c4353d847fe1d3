"""`freshet models`: which vector spaces there are, which is served, and going from one to the next and back."""

from __future__ import annotations

import re
from typing import Annotated, Any

import orjson
import typer

from streams.commands.common import err, examples, guarded, out
from streams.commands.common import settings as read_settings
from streams.errors import FreshetError, GroupBusyError
from streams.settings import Settings
from streams.wire.models import SERVED_KEY, Served
from streams.wire.vectors import FINGERPRINT_CHARS

app = typer.Typer(name="models", no_args_is_help=True)

#: What two spaces must share of an item's ten nearest neighbours. Measured on 1,682 film titles and genres against
#: MiniLM: with noise as of bf16 97 %, a prompt before the text 64 %, its first 64 of 384 dimensions 41 %, words alone
#: (TF-IDF) 24 %; below, weights at random 17 %, texts without genres 15 %, vectors given to the wrong items 0.4 %.
DEFAULT_MIN_OVERLAP = 0.2

_Fingerprint = Annotated[str, typer.Argument(metavar="FINGERPRINT", help="As `freshet models status` shows it.")]
_Json = Annotated[bool, typer.Option("--json", help="For machines: one object.")]


@app.callback()
def main() -> None:
    """
    The encoder's models: look, promote, roll back, retire.

    An upgrade: run a second encoder with the new model beside the old one; wait until `status` shows its coverage;
    `promote` it; when all is well, stop the old encoder and `retire` its fingerprint. Until then `rollback` goes back.
    """


@app.command(epilog=examples("freshet models status", "freshet models status --json | jq .items"))
@guarded
def status(*, as_json: _Json = False) -> None:
    """
    Show each vector space: model, dimension, items covered, whether it is served, and its overlap with the served one.

    Covered are items of the catalogue that have a text, and a vector of that text in that space; one of an older text
    does not count. The overlap is the mean share of an item's ten nearest neighbours that both spaces agree on, over a
    sample of at most 20,000 items.
    """
    from streams.commands.spaces import survey

    settings = read_settings()
    with err.status("reading") as spinner:
        found = survey(settings, lambda name: spinner.update(f"reading {name}"))
    if as_json:
        spaces = [
            {
                "fingerprint": space.fingerprint,
                "model": space.model,
                "dim": space.dim,
                "covered": space.covered,
                "coverage": found.coverage(space),
                "outdated": space.outdated,
                "vectors": space.vectors,
                "state": space.state,
                "overlap": space.overlap,
            }
            for space in found.spaces.values()
        ]
        typer.echo(orjson.dumps({"items": found.items, "spaces": spaces}, option=orjson.OPT_INDENT_2))
        return
    _print_status(found)


def _print_status(found: Any) -> None:
    from rich.table import Table

    from streams.commands.lookup import printable

    if not found.spaces:
        err.print("no vector space yet: the first encoder that starts makes one")
        return
    table = Table("fingerprint", "model", "dim", "covered", "of items", "overlap", "", box=None, header_style="dim")
    for space in found.spaces.values():
        covered = f"{space.covered} ({found.coverage(space):.2%})"
        overlap = "-" if space.overlap is None else f"{space.overlap:.1%}"
        state = "" if space.state == "other" else space.state
        model = printable(space.model) or "-"
        table.add_row(space.fingerprint, _plain(model), str(space.dim), covered, str(found.items), overlap, state)
    out.print(table)


@app.command(
    epilog=examples("freshet models promote 0123456789abcdef", "freshet models promote 0123456789abcdef --force")
)
@guarded
def promote(
    *,
    fingerprint: _Fingerprint,
    min_overlap: Annotated[
        float, typer.Option(min=0, max=1, help="Smallest overlap with the served space, as `status` shows it.")
    ] = DEFAULT_MIN_OVERLAP,
    force: Annotated[bool, typer.Option("--force", help="Promote below the gates too.")] = False,
    as_json: _Json = False,
) -> None:
    """
    Let lists be made from this model's vectors: one record, at which every worker loads them and then switches.

    Refused while less than 99.9 % of the items with a text have a vector, and where the model agrees less with the
    served one than `--min-overlap`. Words alone agree more with a good model: look for wrong weights or texts.
    """
    from streams.commands.spaces import survey

    _check(fingerprint)
    settings = read_settings()
    with err.status("reading") as spinner:
        found = survey(settings, lambda name: spinner.update(f"reading {name}"))
    served, space = found.named.served, found.spaces.get(fingerprint)
    if space is None or not space.vectors:
        raise FreshetError(f"{fingerprint} has no vectors; `freshet models status` shows which fingerprints have")
    if space.state != "served":
        refusal = found.refusal(space, min_overlap)
        if refusal is not None and not force:
            raise FreshetError(f"{refusal}; --force promotes it all the same")
        previous = None if served is None else Served(served.fingerprint, served.dim, served.model)
        served = Served(fingerprint, space.dim, space.model, previous)
        _serve(settings, served)
    assert served is not None
    _tell(served, "is served", as_json=as_json)


@app.command(epilog=examples("freshet models rollback"))
@guarded
def rollback(*, as_json: _Json = False) -> None:
    """
    Serve the model that was served before: the same record back.

    Nothing is gated: items that the old encoder has not seen meanwhile are found by popularity until it has. Refused
    once the old model is retired, and after a rollback; `promote` goes to any model.
    """
    from streams.commands.spaces import read_models, vector_keys

    settings = read_settings()
    served = read_models(settings).served
    if served is None:
        raise FreshetError("no model is served yet")
    if served.previous is None:
        raise FreshetError(f"{served.fingerprint} is served, and none before it is known; `freshet models promote` it")
    if not vector_keys(settings, served.previous.fingerprint):
        raise FreshetError(f"{served.previous.fingerprint} was served before, and has no vectors any more")
    _serve(settings, served.previous)
    _tell(served.previous, "is served again", as_json=as_json)


@app.command(epilog=examples("freshet models retire 0123456789abcdef", "freshet models retire 0123456789abcdef --yes"))
@guarded
def retire(
    *,
    fingerprint: _Fingerprint,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: _Json = False,
) -> None:
    """
    Delete a model's vectors: a tombstone for each, and its consumer group, so that it would begin anew.

    Refused for the served model, and while an encoder of this model runs. There is no rollback to it afterwards.
    """
    from streams.commands.spaces import read_models, vector_keys
    from streams.kafka.admin import delete_group

    _check(fingerprint)
    settings = read_settings()
    named = read_models(settings)
    if named.served is not None and named.served.fingerprint == fingerprint:
        raise FreshetError(f"{fingerprint} is served; promote another model first")
    keys = vector_keys(settings, fingerprint)
    if not keys and fingerprint not in named.models:
        raise FreshetError(f"{fingerprint} is not known; `freshet models status` shows which fingerprints are")
    if not yes and not typer.confirm(f"Delete {len(keys)} vectors of {fingerprint}?", err=True):
        raise typer.Exit(1)
    try:
        # Whoever starts with this model again must not go on behind what it had read: its vectors are gone.
        delete_group(settings, settings.group(f"encoder-{fingerprint}"))
    except GroupBusyError as error:
        raise FreshetError(
            f"an encoder of {fingerprint} is running and would write new vectors; stop it first"
        ) from error
    _bury(settings, fingerprint, keys, named.served)
    if as_json:
        typer.echo(orjson.dumps({"retired": fingerprint, "vectors": len(keys)}, option=orjson.OPT_INDENT_2))
    else:
        out.print(f"{fingerprint} is retired: {len(keys)} vectors deleted", highlight=False)


def _bury(settings: Settings, fingerprint: str, keys: dict[bytes, int], served: Served | None) -> None:
    """Write the tombstones: first nothing leads back to the space, then its vectors go, and its name last."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from streams.commands.sending import Sender
    from streams.topics import full_name

    if served is not None and served.previous is not None and served.previous.fingerprint == fingerprint:
        _serve(settings, Served(served.fingerprint, served.dim, served.model))
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=err, transient=True, disable=not err.is_terminal,
    )  # fmt: skip
    topic = full_name(settings, "item-vectors")
    with bar, Sender(settings) as sender:
        for key, partition in bar.track(keys.items(), total=len(keys), description="vectors"):
            sender.send(topic, key, None, partition=partition)
        sender.flush()
    if sender.refused:
        raise FreshetError(f"Kafka refused {len(sender.refused)} tombstones: {sender.refused[0]}; retire it again")
    _write(settings, fingerprint.encode(), None)


def _serve(settings: Settings, served: Served) -> None:
    _write(settings, SERVED_KEY, served.encode())


def _write(settings: Settings, key: bytes, value: bytes | None) -> None:
    """Write one record of `models`."""
    from streams.commands.sending import Sender
    from streams.topics import full_name

    with Sender(settings) as sender:
        sender.send(full_name(settings, "models"), key, value)
    if sender.refused:
        raise FreshetError(f"Kafka refused the record: {sender.refused[0]}")


def _check(fingerprint: str) -> None:
    if not re.fullmatch(f"[0-9a-f]{{{FINGERPRINT_CHARS}}}", fingerprint):
        raise FreshetError(
            f"FINGERPRINT has {FINGERPRINT_CHARS} hexadecimal digits; `freshet models status` shows them"
        )


def _tell(served: Served, said: str, *, as_json: bool) -> None:
    from streams.commands.lookup import printable

    if as_json:
        typer.echo(served.encode())
        return
    before = f"; {served.previous.fingerprint} was before" if served.previous else ""
    name = printable(served.model) or "no name"
    out.print(f"{served.fingerprint} ({name}, {served.dim}) {said}{before}", markup=False, highlight=False)


def _plain(text: str) -> Any:
    """Wrap a text so that brackets in it are not read as markup."""
    from rich.text import Text

    return Text(text)


def register(app_: typer.Typer) -> None:
    """Add `models` to the command line."""
    app_.add_typer(app, rich_help_panel="Kafka")
