"""
Pictures of an evaluation, as PNG.

Freshet is blue and drawn last; all others are grey and named where they stand, so that no picture needs a key of
colours. Systems keep one order in all of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from streams.errors import DependencyError
from streams.evaluation.results import Evaluated
from streams.evaluation.scores import OURS, Mode, Part, Scores

#: Both have a contrast of more than 4.5 to 1 with white.
_BLUE: Final = "#0b5fa5"
_GREY: Final = "#6b6b6b"
_INK: Final = "#1a1a1a"
#: 8 inches at 120 dots: as wide as the column of text in the report, on a screen of twice its dots still sharp.
_DOTS_PER_INCH: Final = 120
_WIDTH: Final = 8.0


def plots(result: Evaluated, scores: Scores) -> dict[str, tuple[str, bytes]]:
    """
    Return pictures by name: what each shows in words, and the PNG.

    Raises
    ------
    DependencyError
        Without the extra `evaluation`.

    """
    headline = scores.excluded if result.exclude_seen else scores.allowed
    order = in_order(headline.overall)
    drawn: dict[str, tuple[str, Callable[[Any], None], float]] = {
        "accuracy": (
            "HR@10 and NDCG@10 of every system, with 95 % intervals.",
            lambda figure: _bars(figure, headline.overall, order, ("hr@10", "ndcg@10")),
            0.32 * len(order) + 1,
        ),
        "history": (
            "NDCG@10 of every system by the number of the user's events before the question.",
            lambda figure: _by_history(figure, headline, order),
            4.2,
        ),
        "lengths": (
            "HR at 5, 10, 20 and 100 of every system.",
            lambda figure: _by_length(figure, headline.overall, order),
            4.2,
        ),
        "exposure": (
            "NDCG@10 against the share of the catalogue that stands on any list of ten.",
            lambda figure: _exposure(figure, headline.overall, order),
            4.2,
        ),
    }
    if headline.explore is not None and headline.repeat is not None:
        parts = {"never met before": headline.explore, "met before": headline.repeat}
        drawn["explore"] = (
            "NDCG@10 of every system on items the user had never met before, and on items met before.",
            lambda figure: _parts(figure, parts, order),
            0.32 * len(order) + 1,
        )
    if headline.new_items is not None:
        new_items = headline.new_items
        drawn["new"] = (
            "HR@10 and HR@100 of every system on items that nobody had met.",
            lambda figure: _bars(figure, new_items, order, ("hr@10", "hr@100")),
            0.32 * len(order) + 1,
        )
    if scores.freshness is not None:
        freshness = scores.freshness
        drawn["freshness"] = (
            "HR@10 and NDCG@10 of Freshet by how often users' states are brought up to date.",
            lambda figure: _bars(figure, freshness, list(freshness.metrics)[::-1], ("hr@10", "ndcg@10")),
            0.32 * len(freshness.metrics) + 1,
        )
    return {name: (words, _png(draw, height)) for name, (words, draw, height) in drawn.items()}


def in_order(part: Part) -> list[str]:
    """Return the systems from the least NDCG@10 to the greatest."""
    return sorted(part.metrics, key=lambda name: part.metrics[name]["ndcg@10"])


def _png(draw: Callable[[Any], None], height: float) -> bytes:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # the extra may be missing
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise DependencyError("the report needs the extra `evaluation`: pip install 'freshet[evaluation]'") from error
    figure = Figure(figsize=(_WIDTH, height), dpi=_DOTS_PER_INCH, layout="constrained", facecolor="white")
    draw(figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_INK)
    image = io.BytesIO()
    FigureCanvasAgg(figure).print_png(image)
    return image.getvalue()


def _colour(name: str) -> str:
    return _BLUE if name in {OURS, "event"} else _GREY


def _bars(figure: Any, part: Part, order: Sequence[str], names: Sequence[str]) -> None:
    for axes, measure in zip(figure.subplots(1, len(names), sharey=True), names, strict=True):
        means = [part.metrics[system][measure] for system in order]
        ends = [part.intervals[system][measure] for system in order]
        errors = [
            [mean - low for mean, (low, _) in zip(means, ends, strict=True)],
            [high - mean for mean, (_, high) in zip(means, ends, strict=True)],
        ]
        axes.barh(order, means, color=[_colour(system) for system in order], height=0.62)
        axes.errorbar(means, order, xerr=errors, fmt="none", ecolor=_INK, elinewidth=1.1, capsize=2.5)
        for system, mean, (_, high) in zip(order, means, ends, strict=True):
            axes.annotate(f"{mean:.3f}", (high, system), (5, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_xlim(0, max((high for _, high in ends), default=0.0) * 1.18 or 1.0)
        axes.set_xlabel(measure.upper())


def _parts(figure: Any, parts: Mapping[str, Part], order: Sequence[str]) -> None:
    for axes, (title, part) in zip(figure.subplots(1, len(parts), sharey=True), parts.items(), strict=True):
        axes.barh(
            order,
            [part.metrics[system]["ndcg@10"] for system in order],
            color=[_colour(system) for system in order],
            height=0.62,
        )
        axes.set_title(f"{title} ({part.questions:,} lists)", fontsize=10)
        axes.set_xlabel("NDCG@10")


def _by_history(figure: Any, mode: Mode, order: Sequence[str]) -> None:
    axes = figure.subplots()
    names = list(mode.by_history)
    labels = [f"{name}\n{part.questions:,} lists" for name, part in mode.by_history.items()]
    lines = {system: [mode.by_history[name].metrics[system]["ndcg@10"] for name in names] for system in order}
    _lines(axes, labels, lines)
    axes.set_xlabel("events of the user before")
    axes.set_ylabel("NDCG@10")


def _by_length(figure: Any, part: Part, order: Sequence[str]) -> None:
    axes = figure.subplots()
    cuts = [name for name in part.metrics[order[0]] if name.startswith("hr@")]
    _lines(
        axes, [cut.upper() for cut in cuts], {system: [part.metrics[system][cut] for cut in cuts] for system in order}
    )
    axes.set_ylabel("share of lists with a hit")


def _lines(axes: Any, labels: Sequence[str], lines: Mapping[str, Sequence[float]]) -> None:
    """Draw one line a system and name it behind its end, names apart from each other."""
    for system, values in lines.items():
        ours = system == OURS
        axes.plot(labels, values, color=_colour(system), lw=2.4 if ours else 1.0, marker="o", ms=4, zorder=2 + ours)
    top = max((value for values in lines.values() for value in values), default=0.0) or 1.0
    axes.set_ylim(0, top * 1.08)
    # A name takes a twentieth of the height.
    place = -1.0
    for system, values in sorted(lines.items(), key=lambda line: line[1][-1]):
        place = max(values[-1], place + top / 20)
        axes.annotate(
            system, (len(labels) - 1, values[-1]), (len(labels) - 0.85, place), color=_colour(system), fontsize=8,
            va="center", annotation_clip=False, arrowprops={"arrowstyle": "-", "color": "#c0c0c0", "lw": 0.6},
        )  # fmt: skip
    axes.set_xlim(-0.2, len(labels) + 0.1)


def _exposure(figure: Any, part: Part, order: Sequence[str]) -> None:
    axes = figure.subplots()
    places: dict[tuple[float, float], list[str]] = {}
    for system in order:
        at = (part.metrics[system]["coverage@10"], part.metrics[system]["ndcg@10"])
        axes.plot(*at, "o", color=_colour(system), ms=8 if system == OURS else 5)
        # Systems that fall on one point, as personal frequency without seen items on popularity, share a label.
        places.setdefault((round(at[0], 2), round(at[1], 3)), []).append(system)
    for at, names in places.items():
        colour = _BLUE if OURS in names else _GREY
        axes.annotate(", ".join(names), at, (8, 3), textcoords="offset points", fontsize=8, color=colour)
    axes.margins(x=0.2, y=0.1)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of all items on any list of ten")
    axes.set_ylabel("NDCG@10")
