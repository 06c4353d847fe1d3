"""When the item-to-item weights are fitted, from what, and what a fit says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from confluent_kafka import KafkaError

from streams import metrics
from streams.errors import DependencyError
from streams.settings import Settings
from streams.signals.fitting import Fitter, fit_histories
from streams.signals.routing import item_partitions, routed
from streams.wire.signals import ItemEvent, item_events

CLICK, DISLIKE = 1, 4
SETTINGS = Settings(
    partitions=3, neighbours_regularisation=0.5, neighbours_refit_interval_s=100.0, neighbours_refit_drift=0.5
)


class FakeMessage:
    """A record, or what Kafka's client reports of a partition."""

    def __init__(self, partition: int, value: bytes | None = None, error: KafkaError | None = None) -> None:
        self._partition, self._value, self._error = partition, value, error

    def partition(self) -> int:
        """The partition."""
        return self._partition

    def value(self) -> bytes | None:
        """The value."""
        return self._value

    def error(self) -> KafkaError | None:
        """What is reported instead of a record."""
        return self._error


class Clock:
    """A clock that a test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


def told(rows: list[ItemEvent], partitions: int = 3) -> list[Any]:
    """Rows as they lie on the topic: in the partition of each of their items."""
    events = item_events(rows)
    owners = item_partitions(events.ids, partitions)
    return [FakeMessage(partition, value) for partition, value in routed(events, owners)]


def clicks(users: range, *items: str) -> list[ItemEvent]:
    """Each user clicks all of the items, with the one before told."""
    return [
        ItemEvent(user, item_id, CLICK, 1_000 + place, items[max(0, place - 1) : place])
        for user in users
        for place, item_id in enumerate(items)
    ]


def ends() -> list[Any]:
    """Every partition was read to its end."""
    return [FakeMessage(number, error=KafkaError(KafkaError._PARTITION_EOF)) for number in range(3)]


def test_a_fit_knows_what_goes_together() -> None:
    """Histories are joined over partitions; each event counts once; dislikes and unreadable records do not."""
    fitter = Fitter(SETTINGS, 3)
    rows = [*clicks(range(40), "a", "b", "c"), *clicks(range(40, 80), "d", "e"), *clicks(range(80, 90), "c", "d")]
    rows += [ItemEvent(user, "e", DISLIKE, 5) for user in range(20)]
    fitter.take([*told(rows), FakeMessage(0, b"damaged"), *told(rows)])
    fit = fit_histories(fitter.histories, SETTINGS, 3)
    best = {item_id: [name for name, _ in fit.neighbours(place)] for place, item_id in enumerate(fit.ids)}

    assert 90 == len(fitter.histories)
    assert 40 * 3 + 40 * 2 + 10 * 2 == fitter.histories.held
    assert {"a", "b", "c", "d", "e"} == set(best)
    assert ({"b", "c"}, ["d"], "e") == (set(best["a"][:2]), best["e"][:1], best["d"][0])
    assert item_partitions(fit.ids, 3).tolist() == fit.partitions.tolist()
    # Who clicked c either clicked a or d.
    assert dict(fit.neighbours(fit.ids.index("a")))["d"] < 0


def test_a_fit_of_many_items_needs_no_dense_inverse() -> None:
    """Beyond the limit each item is fitted by itself: on all others here, so with the same weights."""
    fitter = Fitter(SETTINGS, 3)
    fitter.take(told([*clicks(range(40), "a", "b", "c"), *clicks(range(40, 80), "d", "e")]))
    dense, local = (
        fit_histories(fitter.histories, SETTINGS.model_copy(update={"neighbours_dense_items": limit}), 3)
        for limit in (5, 4)
    )

    assert dense.ids == local.ids
    for place in range(5):
        assert dict(dense.neighbours(place)) == pytest.approx(dict(local.neighbours(place)), abs=1e-4)


def test_a_fit_is_due_at_the_end_by_time_and_by_drift() -> None:
    """First when all was read; then at the interval if anything is new; sooner if much is, but not at once."""
    clock = Clock()
    fitter = Fitter(SETTINGS, 3, clock=clock)
    fitter.take(told(clicks(range(10), "a", "b")))
    before_the_end = fitter._is_due()
    fitter.take(ends())

    assert (False, True) == (before_the_end, fitter._is_due())
    fitter._fit()
    clock.now_s = 1_000
    assert not fitter._is_due()

    fitter.take(told(clicks(range(10, 11), "a", "b")))
    assert fitter._is_due()
    clock.now_s = 99
    assert not fitter._is_due()

    fitter.take(told(clicks(range(11, 40), "a", "b")))
    assert fitter._is_due()
    clock.now_s = 9
    assert not fitter._is_due()


def test_a_fit_that_fails_leaves_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted, and tried again at the interval."""
    fitter = Fitter(SETTINGS, 3, clock=Clock())
    fitter.take([*told(clicks(range(10), "a", "b")), *ends()])
    fitter._fit()
    latest = fitter.latest
    failed = metrics.FITS.labels("failed")._value.get()
    fitter.take(told(clicks(range(10, 40), "a", "b")))

    def no_inverse(*_: object) -> None:
        raise ValueError("the matrix is not positive definite")

    monkeypatch.setattr("streams.signals.fitting.ease.fit", no_inverse)
    fitter._fit()

    assert latest is not None
    assert fitter.latest is latest
    assert 1 == metrics.FITS.labels("failed")._value.get() - failed
    assert not fitter._is_due()


def test_kafka_errors_that_stay_end_the_fitter() -> None:
    """What the client gets over by itself passes; the rest is told."""
    fitter = Fitter(SETTINGS, 3)
    passing, staying = (
        FakeMessage(0, error=KafkaError(code))
        for code in (KafkaError.REQUEST_TIMED_OUT, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    )
    fitter.take([passing])
    with pytest.raises(DependencyError, match="following item-events failed"):
        fitter.take([staying])
    assert not np.any(fitter.histories.held)
