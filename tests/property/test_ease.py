"""Item-to-item weights against a naive dense implementation, and histories against plain loops."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models import ease
from streams.signals.histories import Histories
from streams.wire.signals import ItemEvent, item_events

Event = tuple[int, int, int]
LENGTH = 32
#: User, item, time: more items than a history holds, and many at one time.
EVENTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 45), st.integers(0, 60)), max_size=150)


def joined(*batches: list[Event], max_users: int = 100) -> Histories:
    """Read events batch by batch."""
    histories = Histories(max_users, LENGTH)
    for batch in batches:
        events = item_events([ItemEvent(user, f"i{item}", 1, ts_ms) for user, item, ts_ms in batch])
        histories.add(events, np.ones(len(batch), np.bool_))
    return histories


# Compiled here, before Hypothesis looks at the clock.
joined([(0, 0, 0)])


def held(histories: Histories) -> list[set[str]]:
    """Each user's items."""
    ids, matrix = histories.matrix(10_000)
    return sorted(({ids[index] for index in row if index >= 0} for row in matrix.tolist()), key=sorted)


def naive(histories: np.ndarray, items: int, regularisation: float) -> np.ndarray:
    """EASE as its paper writes it, in float64."""
    x = np.zeros((len(histories), items))
    for user, row in enumerate(histories):
        x[user, row[row >= 0]] = 1.0
    inverse = np.linalg.inv(x.T @ x + regularisation * np.eye(items))
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


@pytest.mark.parametrize(("items", "kept"), [(40, 64), (700, 64), (1_100, 5)])
def test_weights_are_those_of_the_paper(items: int, kept: int) -> None:
    """Those of each row farthest from 0, the farthest first; also over several blocks and with fewer items."""
    rng = np.random.default_rng(items)
    histories = np.full((900, 12), -1, np.int32)
    for row in histories:
        chosen = np.unique((items * rng.random(rng.integers(1, 13)) ** 2).astype(np.int32))
        row[: len(chosen)] = chosen
    expected = naive(histories, items, 20.0)
    found = ease.fit(ease.co_occurrences(histories, items), 20.0, kept)

    assert found.targets.shape == found.weights.shape == (items, kept)
    for row, targets, weights in zip(expected, found.targets, found.weights, strict=True):
        best = np.sort(np.abs(row))[::-1][:kept]
        count = int((targets >= 0).sum())
        np.testing.assert_allclose(np.abs(weights[:count]), best[:count], atol=2e-6)
        np.testing.assert_allclose(weights[:count], row[targets[:count]], atol=2e-6)
        assert (best[count:] < 2e-6).all()
        assert (weights[count:] == 0).all()


def test_a_matrix_without_an_inverse_is_told() -> None:
    """Not positive definite: an error, no nonsense."""
    with pytest.raises(ValueError, match="positive definite"):
        ease.fit(np.array([[1, 3], [3, 1]], np.float32), 0.5, 2)


@given(EVENTS, st.integers(0, 150), st.randoms(use_true_random=False))
def test_histories_do_not_depend_on_the_reading(events: list[Event], cut: int, rng: random.Random) -> None:
    """Any order, any batches, any of them twice: the same histories, and the same order of items."""
    shuffled = [*events, *rng.sample(events, len(events) // 3)]
    rng.shuffle(shuffled)

    first, second = joined(events), joined(shuffled[:cut], shuffled[cut:])
    assert held(first) == held(second)
    assert first.matrix(10_000).ids == second.matrix(10_000).ids


@given(EVENTS)
@hypothesis_settings(max_examples=50)
def test_histories_are_the_newest_items(events: list[Event]) -> None:
    """Plain loops: each item at its newest time, the newest 32; what is left out is no newer than what is kept."""
    newest: dict[int, dict[int, int]] = {}
    for user, item, ts_ms in events:
        times = newest.setdefault(user, {})
        times[item] = max(times.get(item, -1), ts_ms)
    found = held(joined(events))

    assert sorted(min(len(times), LENGTH) for times in newest.values()) == sorted(map(len, found))
    for times in newest.values():
        surely = {f"i{item}" for item, ts_ms in times.items() if sum(o >= ts_ms for o in times.values()) <= LENGTH}
        assert any(surely <= items for items in found)


@given(EVENTS)
def test_co_occurrences_are_counted_exactly(events: list[Event]) -> None:
    """Plain loops over users and pairs of their items."""
    histories = joined(events)
    ids, matrix = histories.matrix(10_000)
    expected = {
        (first, second): sum(first in items and second in items for items in held(histories))
        for first in ids
        for second in ids
    }
    gram = ease.co_occurrences(matrix, len(ids))

    assert expected == {(ids[a], ids[b]): int(gram[a, b]) for a in range(len(ids)) for b in range(len(ids))}


def test_only_the_most_met_items_are_fitted() -> None:
    """Beyond the bound, items of most users come first, and the rest leaves the histories given out."""
    ids, matrix = joined([(user, item, 5) for user in range(4) for item in range(user + 1)]).matrix(2)

    assert ["i0", "i1"] == ids
    assert sorted(sorted(row[row >= 0].tolist()) for row in matrix) == [[0], [0, 1], [0, 1], [0, 1]]


def test_silent_users_leave() -> None:
    """One user more than there is room for: an eighth of them, those longest silent, leaves; the others keep all."""
    batches = [[(user, user % 7, 1_000 - user), (user, 8, 1_000 - user)] for user in range(104)]
    histories = joined(*batches, max_users=104)
    before = len(histories)
    more = joined(*batches, [(500, 3, 2_000)], max_users=104)

    assert (104, 91) == (before, len(more))
    assert 90 * 2 + 1 == more.held == sum(map(len, held(more)))
    assert {"i3"} in held(more)
