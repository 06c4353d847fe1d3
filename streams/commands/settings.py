"""`freshet settings`: every option with its default, its value here and its meaning; secrets stay masked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import orjson
import typer
from pydantic import SecretStr
from rich.table import Table

from streams.commands.common import guarded, out
from streams.commands.common import settings as read_settings
from streams.settings import ENV_PREFIX, SECRETS, Settings

_MASK = "********"


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table; `value` is what this environment gives, written as in the environment."""

    name: str
    default: str
    value: str
    meaning: str


def options(settings: Settings) -> list[Option]:
    """
    Return every setting in the order of `Settings`, secrets masked.

    >>> options(Settings(namespace="shop"))[0].value
    'shop'
    """
    rows = []
    for name, field in Settings.model_fields.items():
        meaning = field.description or ""
        if name in SECRETS:
            meaning += f" Or `{ENV_PREFIX}{name.upper()}_FILE` names a file that holds it."
        rows.append(
            Option(
                f"{ENV_PREFIX}{name.upper()}", as_env(field.default), as_env(getattr(settings, name)), meaning.strip()
            )
        )
    return rows


def as_env(value: object) -> str:
    """
    Write a value as it would stand in the environment.

    >>> as_env(("home", "cart")), as_env({"views": 0.5}), as_env(259200.0)
    ('home,cart', 'views=0.5', '259200')
    """
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return _MASK if value.get_secret_value() else ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, Mapping):
        return ",".join(f"{name}={as_env(part)}" for name, part in value.items())
    if isinstance(value, tuple):
        return ",".join(as_env(part) for part in value)
    if isinstance(value, Path):
        return value.as_posix()
    return str(value)


def markdown() -> str:
    """Return the table of the README: names, defaults and meanings, nothing of this environment."""
    rows = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for option in options(Settings.model_construct()):
        default = f"`{option.default}`" if option.default else ""
        rows.append(f"| `{option.name}` | {default} | {option.meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


@guarded
def settings(
    *,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="The table as it stands in the README.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: a list of objects.")] = False,
) -> None:
    """List every setting: its name, default, value in this environment and meaning."""
    if as_markdown:
        typer.echo(markdown(), nl=False)
        return
    rows = options(read_settings())
    if as_json:
        fields = [
            {"name": row.name, "default": row.default, "value": row.value, "meaning": row.meaning} for row in rows
        ]
        typer.echo(orjson.dumps(fields, option=orjson.OPT_INDENT_2))
        return
    table = Table(box=None, header_style="bold")
    table.add_column("setting", no_wrap=True)
    for heading in ("value", "default", "meaning"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        changed = row.value != row.default
        table.add_row(row.name, row.value, row.default, row.meaning, style="bold" if changed else None)
    out.print(table)
