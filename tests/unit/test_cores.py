"""Batches on the cores of a CPU: side by side, each its own, and a failure is its batch's."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import Future
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.cores import Cores

Values = npt.NDArray[np.int64]


def doubled(values: torch.Tensor) -> torch.Tensor:
    """A forward pass."""
    return 2 * values.float()


def batch(number: int, rows: int = 2) -> Values:
    """Values that no other batch has."""
    return np.full((rows, 3), number, np.int64)


class Gate:
    """A forward pass that waits, and says who computes by how many threads of torch."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.begun = threading.Semaphore(0)
        self._opened = threading.Event()

    def open(self) -> None:
        """Let everybody through."""
        self._opened.set()

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Compute once it is open."""
        self.threads.append(torch.get_num_threads())
        self.begun.release()
        assert self._opened.wait(10)
        return doubled(values)


@given(st.integers(1, 3), st.lists(st.integers(1, 40), max_size=12), st.randoms(use_true_random=False))
def test_every_batch_gets_its_own_vectors(number: int, sizes: list[int], random: Random) -> None:
    """However many cores, whatever the sizes, and in whatever order their results are asked for."""
    cores = Cores(number)
    expected: dict[Future[npt.NDArray[np.float32]], Values] = {}
    for place, rows in enumerate(sizes):
        expected[cores.launch(batch(place, rows), doubled)] = 2 * batch(place, rows)
        if random.random() < 0.4:
            asked = random.choice(list(expected))
            np.testing.assert_array_equal(expected.pop(asked), asked.result())
    for made in sorted(expected, key=lambda _: random.random()):
        np.testing.assert_array_equal(expected[made], made.result())


def test_batches_are_computed_side_by_side() -> None:
    """As many as there are cores, each by one; the first, which came alone, may take all."""
    cores, gate = Cores(3), Gate()
    made = [cores.launch(batch(number), gate) for number in range(4)]
    for _ in range(3):
        assert gate.begun.acquire(timeout=10)
    gate.open()

    assert [0, 2, 4, 6] == [vectors.result()[0, 0] for vectors in made]
    assert [1, 1, 1, 3] == sorted(gate.threads)


def test_two_of_each_core_are_under_way_at_most() -> None:
    """The next launch waits for the oldest."""
    cores, gate = Cores(1), Gate()
    made = [cores.launch(batch(number), gate) for number in range(cores.most)]
    late = threading.Thread(target=lambda: made.append(cores.launch(batch(9), gate)))
    late.start()
    late.join(0.2)
    waits = late.is_alive()
    gate.open()
    late.join(10)

    assert waits
    assert [0, 2, 18] == [vectors.result()[0, 0] for vectors in made]


@pytest.mark.parametrize("error", [RuntimeError("it does not fit"), IndexError("no such token")])
def test_a_failure_is_its_batchs(error: Exception) -> None:
    """Its result raises it as often as it is asked for; the others have theirs, and the core goes on."""

    def fail(_: torch.Tensor) -> torch.Tensor:
        raise error

    cores = Cores(1)
    made = [cores.launch(batch(number), fail if number == 1 else doubled) for number in range(3)]

    assert [0, 4] == [made[number].result()[0, 0] for number in (0, 2)]
    for _ in range(2):
        with pytest.raises(type(error), match=str(error)):
            made[1].result()


def test_threads_end_with_the_cores() -> None:
    """An encoder that is dropped leaves none behind."""
    before = set(threading.enumerate())
    cores = Cores(2)
    cores.launch(batch(1), doubled).result()
    made = set(threading.enumerate()) - before
    del cores
    gc.collect()
    for thread in made:
        thread.join(10)

    assert len(made) == 2
    assert not any(thread.is_alive() for thread in made)
