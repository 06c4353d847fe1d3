"""The report of an evaluation: numbers as JSON, pictures as PNG, and one HTML page that holds all of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from streams.errors import DependencyError
from streams.evaluation.guardrails import Violations
from streams.evaluation.plots import in_order, plots
from streams.evaluation.results import Evaluated
from streams.evaluation.scores import OURS, Mode, Part, Scores, as_json, scored

_PAGE = Path(__file__).with_name("report.html")
_ACCURACY: Final = ("hr@10", "ndcg@10", "mrr@10", "recall@10", "f1@10", "hr@100", "auc")
_WHOLE_LISTS: Final = (
    "coverage@10", "gini@10", "novelty@10", "ild@10", "category_ild@10", "miscalibration@10",
)  # fmt: skip
_NEW_ITEMS: Final = ("hr@10", "hr@100", "ndcg@10", "auc")
_GUARDRAILS: Final = (
    "Counted from the log and the items' cards: met before under the mask, on a list twice, out of stock, or more than "
    "a cap on brand, category or far prices allows."
)
_COMPARED: Final = ("hr@10", "ndcg@10", "recall@10")


def report(result: Evaluated, *, json_out: Path | None = None, folder: Path | None = None) -> dict[str, Any]:
    """
    Measure a run; write its numbers to `json_out`, and pictures and `index.html` to `folder`.

    Returns
    -------
    dict
        What stands in the JSON: `protocol`, `log`, `metrics` (system to measure to mean), `intervals`, `paired`,
        `events_per_s`, and the rest as `streams.evaluation.scores.as_json` says.

    Raises
    ------
    DependencyError
        When something cannot be written, or a folder is asked for without the extra `evaluation`.

    """
    scores = scored(result)
    numbers = as_json(result, scores)
    try:
        if json_out is not None:
            json_out.parent.mkdir(parents=True, exist_ok=True)
            json_out.write_bytes(orjson.dumps(numbers, option=orjson.OPT_INDENT_2))
        if folder is not None:
            images = plots(result, scores)
            folder.mkdir(parents=True, exist_ok=True)
            for name, (_, png) in images.items():
                (folder / f"{name}.png").write_bytes(png)
            (folder / "index.html").write_text(page(result, scores, images), encoding="utf-8")
    except OSError as error:
        raise DependencyError(f"{error.filename} cannot be written: {error.strerror}") from error
    return numbers


class _Cell(NamedTuple):
    text: str
    range: str = ""
    kind: str = ""


class _Row(NamedTuple):
    name: str
    cells: list[_Cell]
    ours: bool


class _Table(NamedTuple):
    caption: str
    columns: list[str]
    rows: list[_Row]


class _Section(NamedTuple):
    title: str
    words: list[str]
    tables: list[_Table]
    image: str = ""
    alt: str = ""


def page(result: Evaluated, scores: Scores, images: Mapping[str, tuple[str, bytes]]) -> str:
    """Return the page; it needs no other file."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415  # the extra may be missing

    headline, other = scores.excluded, scores.allowed
    words, other_words = "without items the user met before", "with items the user met before"
    if not result.exclude_seen:
        headline, other, words, other_words = other, headline, other_words, words
    sections = [
        _section("accuracy", f"Accuracy, {words}", _accuracy(headline.overall), images),
        _section("lengths", "By length of the list", [], images),
        _Section(f"Accuracy, {other_words}", [], _accuracy(other.overall)),
        _section("explore", "Items new to the user, and items met before", _explore(headline), images),
        _section("history", "By history of the user", _by_history(headline), images),
        _section("exposure", "The lists as a whole", [_whole_lists(headline.overall)], images),
    ]
    if headline.new_items is not None:
        sections.append(_section("new", "Items that nobody had met", [_new_items(headline.new_items)], images))
    if scores.freshness is not None:
        title = "How much an update at every event is worth"
        sections.append(_section("freshness", title, _accuracy(scores.freshness, "event"), images))
    if result.violations:
        sections.append(_Section("Guardrails", [_GUARDRAILS], [_violations(result)]))
    if result.seconds:
        sections.append(_Section("Time", [], [_seconds(result)]))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_PAGE.read_text(encoding="utf-8")).render(
        log=result.log_name,
        protocol=result.protocol,
        verdict=_verdict(headline.overall, words),
        facts=_facts(result),
        sections=sections,
    )


def _verdict(part: Part, words: str) -> str:
    """Say in a sentence or two what the paired comparisons say."""
    ours = part.metrics[OURS]
    said = f"Freshet, lists {words}: HR@10 {ours['hr@10']:.4f}, NDCG@10 {ours['ndcg@10']:.4f}."
    if not part.paired:
        return said
    not_above = [name for name, found in part.paired.items() if not (found["hr@10"].above and found["ndcg@10"].above)]
    if not not_above:
        return f"{said} It is above each of the {len(part.paired)} other systems in both (paired bootstrap, 95 %)."
    return f"{said} It is not above {', '.join(sorted(not_above))} in both (paired bootstrap, 95 %)."


def _facts(result: Evaluated) -> list[tuple[str, str]]:
    return [
        ("Events", f"{len(result.log.users):,}"),
        ("Users", f"{len(set(result.log.users.tolist())):,}"),
        ("Items", f"{result.items:,}"),
        ("Lists asked for", f"{len(result.questions.users):,}"),
        ("Events a second", f"{result.events_per_s:,.0f}"),
    ]


def _section(name: str, title: str, tables: list[_Table], images: Mapping[str, tuple[str, bytes]]) -> _Section:
    if name not in images:
        return _Section(title, [], tables)
    alt, png = images[name]
    return _Section(title, [], tables, f"data:image/png;base64,{base64.b64encode(png).decode()}", alt)


def _ranked(part: Part) -> list[str]:
    return in_order(part)[::-1]


def _accuracy(part: Part, ours: str = OURS) -> list[_Table]:
    rows = [
        _Row(name, [_measured(part, name, measure) for measure in _ACCURACY], name == ours) for name in _ranked(part)
    ]
    tables = [_Table(f"Means over {part.questions:,} lists, with 95 % intervals", _columns(_ACCURACY), rows)]
    if part.paired:
        against = [
            _Row(name, [_difference(part, name, measure) for measure in _COMPARED], ours=False)
            for name in _ranked(part)
            if name in part.paired
        ]
        said = "Freshet" if ours == OURS else f"Freshet told at every {ours}"
        tables.append(_Table(f"{said} minus each other system, with 95 % intervals", _columns(_COMPARED), against))
    return tables


def _columns(names: Sequence[str], first: str = "system") -> list[str]:
    return [first, *(name.replace("_", " ").upper() for name in names)]


def _measured(part: Part, name: str, measure: str) -> _Cell:
    low, high = part.intervals[name][measure]
    return _Cell(f"{part.metrics[name][measure]:.4f}", f"{low:.3f}\u2013{high:.3f}")


def _difference(part: Part, name: str, measure: str) -> _Cell:
    found = part.paired[name][measure]
    kind = "above" if found.above else "below" if found.below else ""
    return _Cell(f"{found.mean:+.4f} {kind or 'level'}", f"{found.low:+.3f} to {found.high:+.3f}", kind)


def _explore(mode: Mode) -> list[_Table]:
    parts = {"new to the user": mode.explore, "met before": mode.repeat}
    return [
        _Table(
            f"Targets {name}: {part.questions:,} lists",
            _columns(("hr@10", "ndcg@10", "recall@10")),
            [
                _Row(
                    system, [_measured(part, system, one) for one in ("hr@10", "ndcg@10", "recall@10")], system == OURS
                )
                for system in _ranked(part)
            ],
        )
        for name, part in parts.items()
        if part is not None
    ]


def _by_history(mode: Mode) -> list[_Table]:
    columns = ["system", *(f"{name} ({part.questions:,})" for name, part in mode.by_history.items())]
    rows = [
        _Row(system, [_measured(part, system, "ndcg@10") for part in mode.by_history.values()], system == OURS)
        for system in _ranked(mode.overall)
    ]
    return [_Table("NDCG@10 by events of the user before (and how many lists)", columns, rows)]


def _new_items(part: Part) -> _Table:
    rows = [_Row(name, [_measured(part, name, one) for one in _NEW_ITEMS], name == OURS) for name in _ranked(part)]
    return _Table(f"Targets known by their text alone: {part.questions:,} lists", _columns(_NEW_ITEMS), rows)


def _violations(result: Evaluated) -> _Table:
    rows = [
        _Row(
            words, [_Cell(f"{count:,}", kind="below" if count else "") for count in result.violations[mask]], ours=False
        )
        for mask, words in (("excluded", "without items met before"), ("allowed", "with items met before"))
        if mask in result.violations
    ]
    return _Table("Items on Freshet's lists that break a rule", ["lists", *Violations._fields], rows)


def _whole_lists(part: Part) -> _Table:
    names = [name for name in _WHOLE_LISTS if name in part.metrics[OURS]]
    rows = [
        _Row(system, [_Cell(f"{part.metrics[system][name]:.3f}") for name in names], system == OURS)
        for system in _ranked(part)
    ]
    return _Table("The first ten of each list", _columns(names), rows)


def _seconds(result: Evaluated) -> _Table:
    rows = [_Row(name, [_Cell(f"{spent:,.1f}")], name == OURS) for name, spent in result.seconds.items()]
    return _Table("To learn, fit and answer", ["system", "seconds"], rows)
