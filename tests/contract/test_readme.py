"""The README against the code: its table, its formats, its commands, its names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.metrics import MetricWrapperBase
from typer.testing import CliRunner

from models.artifact import ARCHITECTURES
from models.towers import TAKE_IMAGES
from streams import metrics
from streams.cli import app
from streams.commands.settings import markdown
from streams.experiments.definitions import load_file
from streams.settings import ENV_PREFIX, SECRETS, Settings
from streams.topics import TOPICS
from streams.wire.erasures import Erasure, Receipt, decode_erasure
from streams.wire.events import TYPE_CODES, Event, TimeBounds, decode_event
from streams.wire.items import Item, decode_item
from streams.wire.limits import Reason
from streams.wire.recommendations import decode_recommendation
from streams.wire.rules import Rule, decode_rule

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BOUNDS = TimeBounds(max_age_ms=10**11, max_ahead_ms=120_000)
RECORD_TS_MS = 1_769_860_800_500


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def test_settings_table_is_current() -> None:
    """The table is what `freshet settings --markdown` writes."""
    table = README.partition("<!-- settings:begin -->\n")[2].partition("<!-- settings:end -->")[0]

    assert table == markdown()


def test_examples_of_events_are_events() -> None:
    """The event and the impression shown are taken without complaint."""
    (event,), (impression,) = blocks("json event"), blocks("json impression")

    clicked = decode_event(TYPE_CODES["clicks"], b"42", event.encode(), RECORD_TS_MS, BOUNDS)
    shown = decode_event(TYPE_CODES["impressions"], b"42", impression.encode(), RECORD_TS_MS, BOUNDS)

    assert isinstance(clicked, Event)
    assert isinstance(shown, Event)
    assert shown.items == ("318", "50")


def test_example_of_an_item_is_complete() -> None:
    """The item shown is taken and has every field an item can have."""
    (text,) = blocks("json item")

    item = decode_item(b"318", text.encode())

    assert isinstance(item, Item)
    assert {*item.__struct_fields__} - {"item_id"} == set(json.loads(text))


def test_example_of_a_list_is_complete() -> None:
    """The list shown has exactly the fields of a published one, down to its items."""
    (text,) = blocks("json recommendation")
    shown = json.loads(text)

    published = json.loads(decode_recommendation(text.encode()).encode())

    assert shown == published


def test_example_of_a_rule_is_complete() -> None:
    """The rule shown is taken and has every part a rule can have."""
    (text,) = blocks("json rule")

    rule = decode_rule(b"318", text.encode())

    assert isinstance(rule, Rule)
    assert {*rule.__struct_fields__} == set(json.loads(text))


def test_examples_of_erasures_are_what_they_say() -> None:
    """The request shown is taken, and the receipt shown is what the worker writes for it."""
    (request,), (receipt,) = blocks("json erasure"), blocks("json receipt")

    erasure = decode_erasure(b"42", request.encode())

    assert isinstance(erasure, Erasure)
    assert json.loads(receipt) == json.loads(Receipt.of(erasure, 1_769_860_800_020, 3, 0).encode())


def test_example_of_experiments_is_one(tmp_path: Path) -> None:
    """The experiments file shown can be loaded, and so can the record sent to the topic."""
    (text,) = blocks("json experiments")
    path = tmp_path / "experiments.json"
    path.write_text(text)
    (record,) = re.findall(r"^echo 'freshness\|(\{.*\})' \|$", README, flags=re.MULTILINE)
    live = tmp_path / "live.json"
    live.write_text(json.dumps({"experiments": [json.loads(record)]}))

    assert [experiment.key for experiment in load_file(path)] == ["freshness"]
    assert load_file(live)[0].revision > load_file(path)[0].revision


def test_python_examples_compile() -> None:
    """The producers shown are Python."""
    examples = blocks("python")

    assert len(examples) == 2
    for example in examples:
        compile(example, "README.md", "exec")


def commands() -> list[tuple[str, ...]]:
    """Every `freshet ...` of the README: the words before the first option or argument in capitals or digits."""
    found = set()
    for line in re.findall(r"(?:^|`)freshet ([a-z][^`\n#]*)", README, flags=re.MULTILINE):
        words = []
        for word in line.split():
            if not re.fullmatch(r"[a-z]+(-[a-z]+)*", word):
                break
            words.append(word)
        found.add(tuple(words))
    return sorted(found)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_exist(words: tuple[str, ...]) -> None:
    """Each command that the README names is one."""
    assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0


def test_settings_named_are_settings() -> None:
    """Each `FRESHET_` name in the text is a setting."""
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    known |= {f"{ENV_PREFIX}{name.upper()}_FILE" for name in SECRETS}

    assert set(re.findall(r"FRESHET_[A-Z0-9_]+", README)) <= known


def test_architectures_are_named() -> None:
    """Those of texts in one sentence; each is held against transformers by a test of its own."""
    section = README.partition("## Models of texts")[2].partition("\n## ")[0]
    named = section.partition("of these architectures: ")[2].partition(".")[0]

    assert re.findall(r"`([^`]+)`", named) == sorted(ARCHITECTURES - TAKE_IMAGES)


def test_reasons_are_explained() -> None:
    """The table of dead letters names every reason there is, and no other."""
    section = README.partition("## Dead letters")[2].partition("\n## ")[0]
    named = {
        name
        for row in re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }

    assert named - {"user_id", "item_id"} == set(get_args(Reason))


def test_metrics_named_are_exported() -> None:
    """Each metric in the text is one."""
    exported = {metric._name for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)}

    assert set(re.findall(r"freshet_[a-z_]+", README)) <= exported


def test_topics_named_are_topics() -> None:
    """What the command lines produce to and consume from are topics."""
    named = set(re.findall(r" -t ([a-z]+) -[Ko]", README)) | set(re.findall(r'(?:send|produce)\("([a-z-]+)"', README))

    assert named == {"clicks", "recommendations", "experiments"}
    assert named <= set(TOPICS)
