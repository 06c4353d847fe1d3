"""Lists follow a switched interest within few events, also where they are held together."""

from __future__ import annotations

import numpy as np

from streams.datasets.log import Entry
from streams.evaluation.live import Live
from streams.evaluation.logs import EvaluationLog, columns
from streams.evaluation.switching import AFTER, BEFORE, followed, plant
from streams.settings import Settings
from streams.wire.items import Item

START_MS = 1_700_000_000_000
EACH = 60


def log(categories: int = 4) -> EvaluationLog:
    """Return users who keep to one category each, of sixty items, some of them more liked than others."""
    random = np.random.default_rng(11)
    entries = []
    for user in range(120):
        liked = random.zipf(1.5, 25) % EACH
        entries += [
            Entry(
                "clicks",
                START_MS + 60_000 * (40 * user + step),
                {"user_id": f"u{user}", "item_id": f"c{user % categories}-{item}"},
            )
            for step, item in enumerate([*liked.tolist(), *random.permutation(EACH)[:15].tolist()])
        ]
    cards = [Item(f"c{kind}-{number}", category=f"c{kind}") for kind in range(categories) for number in range(EACH)]
    return columns("test", entries, cards)


def test_planted_users_meet_one_category_and_then_another() -> None:
    """Items are met by the log's users, none twice; the users are new to the log."""
    told = log()
    planted = plant(told, 30)
    assert planted is not None
    made, switches = planted
    assert len(told.users) + 30 == len(made.users)
    kinds = made.categories()[switches.items]
    assert (kinds[:, BEFORE:] == switches.turned_to[:, None]).all()
    assert (kinds[:, :BEFORE] == kinds[:, :1]).all()
    assert (kinds[:, 0] != switches.turned_to).all()
    assert np.isin(switches.items, told.interactions.items).all()
    assert all(BEFORE + AFTER == len(set(row)) for row in switches.items.tolist())


def test_an_item_is_of_a_category_by_its_tags_too() -> None:
    """A tag that names a category counts; one that names none does not."""
    told = log(categories=2)
    cards = [*told.cards[1:], Item("c0-0", category="c0", tags=("c1", "new"))]
    planted = plant(EvaluationLog(told.name, told.interactions, told.users, told.items, cards), 1)
    assert planted is not None
    of_it = planted[1].of_it
    assert [True, True] == of_it[:, told.items.index("c0-0")].tolist()
    assert len(told.items) + 1 == of_it.sum()


def test_a_log_of_one_category_has_no_switch() -> None:
    """Nothing is planted where there is nothing to turn to."""
    assert plant(log(categories=1)) is None


def test_half_of_the_list_follows_within_eight_events_at_half_steadiness() -> None:
    """After twenty events in one category; without control sooner or as soon, and at 1 no sooner than at .5."""
    planted = plant(log(), 40)
    assert planted is not None
    made, switches = planted
    live = Live(Settings(), made.users, made.items, made.cards)
    live.learn(made.interactions)
    live.fit()
    free, half, most = followed(live, made, switches, [0.0, 0.5, 1.0], lambda _: None)
    assert half.p90 <= 8
    assert 1.0 == half.within_8
    assert free.median <= half.median <= most.median
