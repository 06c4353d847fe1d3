"""A device that does everything late, and forward passes that tests put in the place of a model's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.encoder import Encoder
from models.flights import Event

Vectors = npt.NDArray[np.float32]
Forward = Callable[[Sequence[Sequence[int]]], Vectors]


class Landed:
    """Vectors that are there."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def result(self) -> Vectors:
        """Return them."""
        return self._vectors


def forward_of(encoder: Encoder) -> Forward:
    """Return the forward pass of texts as it is now, whatever takes its place later."""
    launch = encoder._launch
    return lambda tokens: launch(tokens).result()


def forward_by(monkeypatch: pytest.MonkeyPatch, encoder: Encoder, forward: Forward) -> None:
    """Let an encoder take this for its forward pass of texts."""
    monkeypatch.setattr(encoder, "_launch", lambda tokens: Landed(forward(tokens)))


class LateLink:
    """
    A device as lazy as one may be: it does nothing before somebody waits for it, and then no more than it must.

    Memory that is used again too early shows in what it computes. `work` adds to what it has to do; `most_waiting` is
    the greatest number of results that were under way at once.
    """

    def __init__(self) -> None:
        self._todo: deque[Callable[[], object]] = deque()
        self._waiting = 0
        self.most_waiting = 0

    def work(self, do: Callable[[], object]) -> Event:
        """Have something done after everything before it."""
        event = _LateEvent(self._todo, do)
        self._todo.append(event.happen)
        return event

    def buffer(self, size: int) -> torch.Tensor:
        """Return memory."""
        return torch.empty(size, dtype=torch.uint8)

    def send(self, host: torch.Tensor) -> torch.Tensor:
        """Copy in its turn."""
        there = torch.zeros_like(host)
        self.work(lambda: there.copy_(host))
        return there

    def fetch(self, result: torch.Tensor, host: torch.Tensor) -> Event:
        """Copy back in its turn."""
        self._waiting += 1
        self.most_waiting = max(self.most_waiting, self._waiting)

        def copy() -> None:
            host.copy_(result)
            self._waiting -= 1

        return self.work(copy)


class _LateEvent:
    def __init__(self, todo: deque[Callable[[], object]], do: Callable[[], object]) -> None:
        self._todo = todo
        self._do = do
        self._happened = False

    @torch.inference_mode()
    def happen(self) -> None:
        self._happened = True
        self._do()

    def synchronize(self) -> None:
        while not self._happened:
            self._todo.popleft()()
