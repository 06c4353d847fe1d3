"""
The cores of a CPU as a device: each computes a batch of its own, where there are as many.

Cores that share one batch meet after every operation, hundreds of times in a forward pass, and all wait for the one
that something else took for a moment: two of them make about a fifth less, alone as beside a busy Kafka.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt
import torch

Vectors = npt.NDArray[np.float32]
_Forward = Callable[[torch.Tensor], torch.Tensor]
#: Where the result goes, the values, what is done with them, and the cores it may take.
_Entry = tuple[Future[Vectors], npt.NDArray[np.generic], _Forward, int]


class Cores:
    """
    The batches under way on the cores of this machine; all calls come from one thread.

    A batch that begins while no other is under way takes all cores: what comes alone comes soonest that way.

    >>> cores = Cores(2)
    >>> batches = [cores.launch(np.array([[number, 2]]), lambda values: values.float()) for number in range(3)]
    >>> [batch.result().tolist() for batch in batches]
    [[[0.0, 2.0]], [[1.0, 2.0]], [[2.0, 2.0]]]

    Attributes
    ----------
    most
        Batches between their launch and their end, two for each core: they are waited for in order, and while the
        oldest lasts, others may have ended.

    """

    def __init__(self, cores: int) -> None:
        self.most = 2 * cores
        self._cores = cores
        self._open: deque[Future[Vectors]] = deque()
        work: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._work = work
        # Daemons, as an executor's threads are not: a call that is stuck must not keep the process alive.
        for number in range(cores):
            threading.Thread(target=_compute, args=(work,), name=f"core-{number}", daemon=True).start()
        weakref.finalize(self, _end, work, cores)

    def launch(self, values: npt.NDArray[np.generic], forward: _Forward) -> Future[Vectors]:
        """
        Begin a batch and return, after the end of the oldest where the most are under way.

        Parameters
        ----------
        values
            What `forward` is given, of any shape and type.
        forward
            Gives (n, dim) float32. What it raises is raised by the result.

        """
        while self._open and (self._open[0].done() or len(self._open) == self.most):
            self._open.popleft().exception()  # waits
        batch: Future[Vectors] = Future()
        self._work.put((batch, values, forward, 1 if self._open else self._cores))
        self._open.append(batch)
        return batch


@torch.inference_mode()
def _compute(work: queue.SimpleQueue[_Entry | None]) -> None:
    threads = 0
    while (entry := work.get()) is not None:
        batch, values, forward, wanted = entry
        if threads != wanted:  # what torch keeps by thread costs some microseconds to change
            torch.set_num_threads(wanted)
            threads = wanted
        try:
            batch.set_result(forward(torch.from_numpy(values)).numpy())
        except BaseException as error:  # noqa: BLE001 -- handed to whoever asks for the result
            batch.set_exception(error)
        del entry, batch, values, forward


def _end(work: queue.SimpleQueue[_Entry | None], cores: int) -> None:
    for _ in range(cores):
        work.put(None)
