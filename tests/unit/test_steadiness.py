"""What steadiness costs, measured through the live path."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streams.commands.frontier import _knobs
from streams.datasets.log import Entry
from streams.errors import ConfigurationError
from streams.evaluation.guardrails import Guardrails
from streams.evaluation.live import Live
from streams.evaluation.logs import EvaluationLog, columns
from streams.evaluation.protocols import prequential
from streams.evaluation.steadiness import Point, frontier
from streams.settings import Settings
from streams.wire.items import Item

START_MS = 1_700_000_000_000
DAY_MS = 86_400_000
ITEMS = 60


def log() -> EvaluationLog:
    """Return users who walk through items of two categories, some events a minute, over three days."""
    random = np.random.default_rng(4)
    entries = [
        Entry(
            "clicks",
            START_MS + day * DAY_MS + step * 20_000 + user,
            {
                "user_id": f"u{user}",
                "item_id": f"i{int((7 * user + 3 * step + 11 * day + random.integers(4)) % ITEMS)}",
            },
        )
        for day in range(3)
        for step in range(4)
        for user in range(20)
    ]
    return columns("test", entries, [Item(f"i{number}", category=f"c{number % 2}") for number in range(ITEMS)])


@pytest.fixture(scope="module")
def points() -> list[Point]:
    """Return what was measured at 0, .5 and 1."""
    told = log()
    plan = prequential(told.interactions, START_MS + DAY_MS)
    live = Live(Settings(), told.users, told.items, told.cards)
    seen: list[int] = []
    found = frontier(
        live,
        told.interactions,
        plan,
        [1.0, 0.5],
        told.categories(),
        Guardrails(told, Settings().weights),
        refit_ms=DAY_MS,
        progress=seen.append,
    )  # fmt: skip
    assert len(told.interactions.users) == sum(seen)
    return found


def test_settings_are_told_in_order(points: list[Point]) -> None:
    """The setting without control comes first and is the base of the prices."""
    assert [0.0, 0.5, 1.0] == [point.steadiness for point in points]
    assert math.isnan(points[0].price)
    assert all(0 <= share <= 1 for point in points for share in (point.hr, point.mrr, point.rbo, point.stayed))


def test_a_steadier_list_changes_less_and_never_without_an_event(points: list[Point]) -> None:
    """Overlap grows with the knob; whatever became of the catalogue overnight, lists stayed."""
    assert points[0].rbo < points[1].rbo < points[2].rbo
    assert [0.0] * 3 == [point.unforced for point in points]
    assert [0] * 3 == [point.violations for point in points]


def test_style_is_how_far_lists_are_from_the_common_mix(points: list[Point]) -> None:
    """Lists of two categories in about equal parts are near to each other: far below one bit."""
    assert all(0 <= point.style < 0.5 for point in points)


@pytest.mark.parametrize(("text", "told"), [("0.5,much", "numbers"), ("0.5,1.5", "1.5")])
def test_knobs_that_cannot_be_are_refused(text: str, told: str) -> None:
    """The refusal names the option and what is wrong."""
    with pytest.raises(ConfigurationError, match=rf"--steadiness.*{told}"):
        _knobs(text)
