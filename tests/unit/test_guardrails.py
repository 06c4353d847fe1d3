"""What evaluated lists break is counted: every planted violation is seen, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.ranking import RankingParameters
from streams.datasets.log import Entry
from streams.evaluation.driving import answers
from streams.evaluation.guardrails import Guardrails, Violations
from streams.evaluation.live import Live
from streams.evaluation.logs import EvaluationLog, columns
from streams.evaluation.protocols import leave_one_out
from streams.settings import Settings
from streams.wire.items import Item

START_MS = 1_700_000_000_000
SETTINGS = Settings()
#: Item 0..5 by place: two brands, three categories, one far too dear and one out of stock.
CARDS = [
    Item("i0", brand="a", category="x", price=10.0),
    Item("i1", brand="a", category="x", price=12.0),
    Item("i2", brand="a", category="y", price=11.0),
    Item("i3", brand="b", category="y", price=900.0),
    Item("i4", brand="b", category="z", price=9.0, in_stock=False),
    Item("i5", brand="b", category="z", price=10.0),
]


def log() -> EvaluationLog:
    """Return one user who meets items 0 and 1 and dislikes 3, and another who meets the others."""
    events = [
        ("clicks", "u", 0),
        ("clicks", "u", 1),
        ("dislikes", "u", 3),
        *(("views", "v", item) for item in range(6)),
    ]
    entries = [
        Entry(topic, START_MS + 1000 * step, {"user_id": user, "item_id": f"i{item}"})
        for step, (topic, user, item) in enumerate(events)
    ]
    made = columns("test", entries, CARDS)
    return EvaluationLog(made.name, made.interactions, made.users, made.items, CARDS)


def broken(*items: int, before: int = 2, exclude_seen: bool = False, **parameters: Any) -> Violations:
    """Return what the first user's list breaks, items by the numbers in their names."""
    told = log()
    listed = [told.items.index(f"i{item}") if item >= 0 else -1 for item in items]
    return Guardrails(told, SETTINGS.weights).broken(
        np.array([listed], np.int32), np.array([0], np.int32), np.array([before]), [RankingParameters(**parameters)],
        exclude_seen=exclude_seen,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (broken(2, 5, -1, -1, exclude_seen=True), Violations()),
        (broken(2, 0, 1, exclude_seen=True), Violations(seen=2)),
        (broken(2, 3, before=2, exclude_seen=True), Violations()),
        (broken(2, 3, before=3, exclude_seen=True), Violations(seen=1)),
        (broken(0, 1), Violations()),
        (broken(2, 5, 2, -1, -1), Violations(twice=1)),
        (broken(4, 5), Violations(withheld=1)),
        (broken(0, 1, 2, brand_cap=2), Violations(brand=1)),
        (broken(0, 2, 1, category_cap=1), Violations(category=1)),
        (broken(0, 3, price_share=0.5), Violations()),
        (broken(0, 3, price_share=0.6), Violations(price=1)),
    ],
)
def test_a_planted_violation_is_counted(found: Violations, expected: Violations) -> None:
    """Met before, twice, out of stock, beyond a cap or the price band: each is counted, and nothing else."""
    assert expected == found


def test_a_cap_that_no_full_list_could_keep_is_no_violation() -> None:
    """Five items in stock are of two brands: a list of all five must hold more than one of each."""
    assert Violations() == broken(0, 1, 2, 3, 5, brand_cap=1)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_lists_of_the_live_path_break_nothing(*, exclude_seen: bool) -> None:
    """Under both masks, with an item out of stock and a log in which users come back to items."""
    random = np.random.default_rng(3)
    entries = [
        Entry("clicks", START_MS + 1000 * step, {"user_id": f"u{step % 9}", "item_id": f"i{random.integers(40)}"})
        for step in range(300)
    ]
    told = columns("test", entries, [Item(f"i{number}", in_stock=number % 5 > 0) for number in range(40)])
    plan = leave_one_out(told.interactions)
    live = Live(SETTINGS, told.users, told.items, told.cards)
    lists = answers(live, told.interactions, plan, 12, progress=lambda _: None)
    asked = plan.questions
    assert Violations() == Guardrails(told, SETTINGS.weights).broken(
        lists.excluded if exclude_seen else lists.allowed, asked.users, asked.before, live.parameters(asked.users),
        exclude_seen=exclude_seen,
    )  # fmt: skip
