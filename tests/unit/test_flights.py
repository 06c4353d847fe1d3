"""Batches under way on a device that does everything late: memory is used again in time, two are open at most."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.flights import MOST_IN_FLIGHT, CudaLink, Flight, Flights
from tests.support.flights import LateLink

Values = npt.NDArray[np.int64]


def doubling(link: LateLink) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a forward pass that doubles, when the device comes to it."""

    def forward(values: torch.Tensor) -> torch.Tensor:
        result = torch.full(values.shape, torch.nan)
        link.work(lambda: result.copy_(2 * values))
        return result

    return forward


def batch(number: int, rows: int = 2) -> Values:
    """Values that no other batch has."""
    return np.full((rows, 3), number, np.int64)


@given(st.lists(st.integers(1, 40), max_size=12), st.randoms(use_true_random=False))
def test_every_batch_gets_its_own_vectors(sizes: list[int], random: Random) -> None:
    """Whatever their sizes, and in whatever order their results are asked for between the launches."""
    link = LateLink()
    flights = Flights(link)
    expected: dict[Flight, Values] = {}
    for number, rows in enumerate(sizes):
        expected[flights.launch(batch(number, rows), doubling(link))] = 2 * batch(number, rows)
        if random.random() < 0.4:
            asked = random.choice(list(expected))
            np.testing.assert_array_equal(asked.result(), expected.pop(asked))
    for flight in sorted(expected, key=lambda _: random.random()):
        np.testing.assert_array_equal(flight.result(), expected[flight])
    assert link.most_waiting <= MOST_IN_FLIGHT


def test_a_launch_does_not_wait() -> None:
    """Two are under way before anything is done; the third makes the first one land."""
    link = LateLink()
    flights = Flights(link)
    made = [flights.launch(batch(number), doubling(link)) for number in range(2)]
    assert link.most_waiting == MOST_IN_FLIGHT == 2
    made.append(flights.launch(batch(2), doubling(link)))
    assert [flight.result()[0, 0] for flight in made] == [0, 2, 4]
    assert link.most_waiting == 2


def test_a_result_is_the_callers() -> None:
    """Later batches in the same memory leave it alone."""
    link = LateLink()
    flights = Flights(link)
    first = flights.launch(batch(1), doubling(link)).result()
    for number in range(2, 6):
        flights.launch(batch(number), doubling(link)).result()
    np.testing.assert_array_equal(first, np.full((2, 3), 2))


def test_a_failed_launch_leaves_the_memory_to_others() -> None:
    """A batch that does not fit is raised, and the others land as ever."""
    link = LateLink()
    flights = Flights(link)

    def fail(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    first = flights.launch(batch(1), doubling(link))
    for _ in range(5):
        with pytest.raises(torch.OutOfMemoryError):
            flights.launch(batch(9), fail)
    second = flights.launch(batch(2), doubling(link))
    assert [flight.result()[0, 0] for flight in (first, second)] == [2, 4]
    assert link.most_waiting == 2


def test_a_failure_on_the_device_is_its_batchs() -> None:
    """It is told by the batch that it happened to, also when another launch was the first to wait for it."""
    link = LateLink()
    flights = Flights(link)

    def broken(values: torch.Tensor) -> torch.Tensor:
        def fail() -> None:
            raise RuntimeError("device-side assert")

        link.work(fail)
        return values.float()

    bad = flights.launch(batch(1), broken)
    good = [flights.launch(batch(number), doubling(link)) for number in (2, 3, 4)]
    assert [flight.result()[0, 0] for flight in good] == [4, 6, 8]
    for _ in range(2):
        with pytest.raises(RuntimeError, match="device-side assert"):
            bad.result()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpus_own_link() -> None:
    """Batches of rising and falling size, two at a time, come back as they are computed on the device itself."""
    device = torch.device("cuda")
    flights = Flights(CudaLink(device))
    weights = torch.ones((3, 5), device=device)
    given = [batch(number, rows) for number, rows in enumerate([1, 1_000, 7, 20_000, 1, 3_000])]
    made = [flights.launch(values, lambda there: there.float() @ weights) for values in given]
    for values, flight in zip(given, made, strict=True):
        np.testing.assert_array_equal(flight.result(), np.full((len(values), 5), 3 * values[0, 0]))
