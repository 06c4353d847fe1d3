"""What an evaluation says on a page of results in Markdown: the numbers of its JSON enter, tables leave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from streams.evaluation.markdown import table
from streams.evaluation.scores import OURS

Numbers = Mapping[str, Any]

_MASKS: Final = {"excluded": "without items the user met before", "allowed": "with items the user met before"}
_ACCURACY: Final = ("hr@10", "ndcg@10", "mrr@10", "recall@10")
_COMPARED: Final = ("ndcg@10", "recall@10")
_NEW_ITEMS: Final = ("hr@10", "hr@100", "ndcg@10")


def title(numbers: Numbers) -> str:
    """Return what a run is called."""
    return f"{numbers['log']}, {numbers['protocol']}"


def sections(numbers: Numbers) -> list[str]:
    """Return the tables of a run, each with what it is of; `numbers` as `scores.as_json` has them."""
    masks = sorted(_MASKS, key=lambda mask: (mask == "excluded") != numbers["exclude_seen"])
    headline = numbers[masks[0]]
    made = [_part(f"Lists {_MASKS[mask]}", numbers[mask]["overall"]) for mask in masks]
    if numbers["excluded"]["explore"] is not None:
        made.append(_part("Items new to the user, those met before masked", numbers["excluded"]["explore"]))
    made.append(_by_history(headline["by_history"], headline["overall"]))
    if headline["new_items"] is not None:
        made.append(_part("Items that nobody had met before", headline["new_items"], _NEW_ITEMS))
    if numbers["freshness"] is not None:
        made.append(_part("Freshet, told of events at each", numbers["freshness"], ours="event"))
    made += [_violations(numbers["violations"]), f"{numbers['events_per_s']:,.0f} events a second."]
    return made


def _part(name: str, part: Numbers, measures: Sequence[str] = _ACCURACY, ours: str = OURS) -> str:
    """Return a table of means with 95 % intervals, and what the first system has more than each other."""
    compared = [measure for measure in _COMPARED if measure in measures] if part["paired"] else []
    rows = []
    for system in _in_order(part):
        row = {"system": system}
        row |= {measure.upper(): _mean(part, system, measure) for measure in measures}
        row |= {f"{ours} minus it, {measure.upper()}": _difference(part, system, measure) for measure in compared}
        rows.append(row)
    return f"{name}: {part['questions']:,} lists.\n\n{table(rows)}"


def _in_order(part: Numbers) -> Iterable[str]:
    return sorted(part["metrics"], key=lambda system: -part["metrics"][system]["ndcg@10"])


def _mean(part: Numbers, system: str, measure: str) -> str:
    low, high = part["intervals"][system][measure]
    return f"{part['metrics'][system][measure]:.4f} ({low:.4f}\u2013{high:.4f})"


def _difference(part: Numbers, system: str, measure: str) -> str:
    found = part["paired"].get(system, {}).get(measure)
    if found is None:
        return ""
    verdict = "above" if found["above"] else "below" if found["below"] else "level"
    return f"{found['mean']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f}) {verdict}"


def _by_history(parts: Numbers, overall: Numbers) -> str:
    rows = [
        {"system": system}
        | {
            f"{name} ({part['questions']:,})": f"{part['metrics'][system]['ndcg@10']:.4f}"
            for name, part in parts.items()
        }
        for system in _in_order(overall)
    ]
    return f"NDCG@10 by events of the user before (and how many lists).\n\n{table(rows)}"


def _violations(violations: Numbers) -> str:
    count = sum(sum(found.values()) for found in violations.values())
    return f"Items on Freshet's lists that break a rule, under both masks: {count:,}."
