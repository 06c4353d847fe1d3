"""
Batches on their way through a GPU: while it computes one, the next is copied to it and the last one from it.

The order of these steps stands in `Flights`; what the GPU does by itself stands in its `Link`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

#: Batches between their launch and their landing: one is computed and one is ready when it ends. A third would wait.
MOST_IN_FLIGHT = 2


class Event(Protocol):
    """Something that a device will have done."""

    def synchronize(self) -> None:
        """Wait until it is done."""


class Link(Protocol):
    """Copies between host and device. What is begun is done in order, and may be done later."""

    def buffer(self, size: int) -> torch.Tensor:
        """Return host memory for copies, (size,) uint8."""

    def send(self, host: torch.Tensor) -> torch.Tensor:
        """Begin a copy to the device, which what is computed next waits for."""

    def fetch(self, result: torch.Tensor, host: torch.Tensor) -> Event:
        """Begin a copy to the host, which waits for what is computed; tell when `host` has it."""


class CudaLink:
    """
    Pinned host memory, without which a copy makes the host wait, and a stream for each direction.

    On one stream for both, the copy to the device would wait behind the results of the batch before it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch gives it no types
        self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def buffer(self, size: int) -> torch.Tensor:
        """Return pinned memory."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def send(self, host: torch.Tensor) -> torch.Tensor:
        """Copy on the stream upwards; the stream that computes waits for it."""
        compute = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._up):
            there = host.to(self._device, non_blocking=True)
        # torch must not give this memory to another tensor before the last kernel that reads it has run.
        there.record_stream(compute)
        compute.wait_stream(self._up)
        return there

    def fetch(self, result: torch.Tensor, host: torch.Tensor) -> Event:
        """Copy on the stream downwards, which waits for what computes."""
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            host.copy_(result, non_blocking=True)
        result.record_stream(self._down)
        # Whoever waits for a blocking event sleeps; for others a core would spin.
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        done.record(self._down)
        return done


class _Buffers:
    """Host memory of one batch, used again by later ones."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._memory = {"values": link.buffer(0), "vectors": link.buffer(0)}

    def view(self, name: str, dtype: torch.dtype, shape: torch.Size) -> torch.Tensor:
        """Return a tensor in the memory of that name, which grows as needed."""
        size = shape.numel() * dtype.itemsize
        if self._memory[name].numel() < size:
            # Pinning takes milliseconds: batches of rising size should not cause it each time.
            self._memory[name] = self._link.buffer(1 << (size - 1).bit_length())
        return self._memory[name][:size].view(dtype).view(shape)


class Flight:
    """One batch, launched."""

    def __init__(self, done: Event, vectors: torch.Tensor, landed: Callable[[Flight], None]) -> None:
        self._done = done
        self._vectors = vectors
        self._tell = landed
        self._landed: npt.NDArray[np.float32] | Exception | None = None

    def land(self) -> None:
        """Wait for the vectors, and let go of the memory that they came in."""
        if self._landed is not None:
            return
        try:
            self._done.synchronize()
            self._landed = self._vectors.numpy().copy()
        except RuntimeError as error:  # whichever batch a kernel failed in, this one cannot be had
            self._landed = error
        self._tell(self)

    def result(self) -> npt.NDArray[np.float32]:
        """
        Return the vectors, (n, dim) float32; waits for them.

        Raises
        ------
        RuntimeError
            What the device says instead.

        """
        self.land()
        if isinstance(self._landed, Exception):
            raise self._landed
        assert self._landed is not None
        return self._landed


class Flights:
    """
    The batches under way on one device; all calls come from one thread.

    Attributes
    ----------
    most
        Batches between their launch and their landing.

    """

    most = MOST_IN_FLIGHT

    def __init__(self, link: Link) -> None:
        self._link = link
        self._free = [_Buffers(link) for _ in range(MOST_IN_FLIGHT)]
        self._open: dict[Flight, _Buffers] = {}

    @torch.inference_mode()
    def launch(self, values: npt.NDArray[np.generic], forward: Callable[[torch.Tensor], torch.Tensor]) -> Flight:
        """
        Begin a batch and return; where the most are under way, the oldest lands first.

        Parameters
        ----------
        values
            What the device needs of the batch, of any shape and type.
        forward
            Takes `values` on the device and gives (n, dim) float32 there. What it raises is raised, and the batch is
            under way no more.

        """
        if not self._free:
            next(iter(self._open)).land()
        buffers = self._free.pop()
        given = torch.from_numpy(values)
        try:
            host = buffers.view("values", given.dtype, given.shape)
            host.copy_(given)
            result = forward(self._link.send(host))
            vectors = buffers.view("vectors", torch.float32, result.shape)
            done = self._link.fetch(result, vectors)
        except BaseException:
            # A copy may still be reading this memory; nobody looks at what it copies.
            self._free.append(buffers)
            raise
        flight = Flight(done, vectors, self._landed)
        self._open[flight] = buffers
        return flight

    def _landed(self, flight: Flight) -> None:
        self._free.append(self._open.pop(flight))
