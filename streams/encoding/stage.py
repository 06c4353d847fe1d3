"""One stage of the encoder: a thread that does one kind of work, in order, with little waiting before it."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from streams.errors import ModelError

T = TypeVar("T")

#: Where the result goes, and work in two steps.
_Entry = tuple[Future[T], Callable[[], Callable[[], T]]]


class Stage(Generic[T]):
    """
    A daemon thread with a bounded queue; its results are taken in the order of the work.

    An executor would do but for one thing: Python waits at exit for the threads of executors, so that a call that is
    stuck in a driver would keep the process alive.

    Parameters
    ----------
    name
        Of the thread, and in errors.
    depth
        Most work accepted and not taken, the one in progress included.
    stuck_s
        One piece of work longer than this counts as stuck.
    in_flight
        Most work begun and not finished: where a device works by itself, the next is begun before it is waited for.

    Attributes
    ----------
    depth
        As given.

    >>> with Stage[int]("double", depth=2, stuck_s=10) as stage:
    ...     stage.submit(lambda: 2 * 21)
    ...     stage.wait(1.0)
    ...     stage.take()
    True
    42
    """

    def __init__(self, name: str, depth: int, stuck_s: float, in_flight: int = 1) -> None:
        self.name = name
        self.depth = depth
        self._stuck_s = stuck_s
        self._in_flight = in_flight
        self._work: queue.SimpleQueue[_Entry[T] | None] = queue.SimpleQueue()
        self._results: list[Future[T]] = []
        self._since_s = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> Stage[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Work accepted and not taken."""
        return len(self._results)

    @property
    def full(self) -> bool:
        """Whether nothing more is accepted now."""
        return len(self._results) >= self.depth

    def submit(self, work: Callable[[], T]) -> None:
        """Accept work; the caller has looked at `full`."""
        self.submit_two_steps(lambda: work)

    def submit_two_steps(self, begin: Callable[[], Callable[[], T]]) -> None:
        """Accept work that `begin` begins; what it returns waits for the end, and gives the result."""
        assert not self.full, f"{self.name} was given more than it takes"
        if not self._results:
            self._since_s = time.monotonic()
        result: Future[T] = Future()
        self._results.append(result)
        self._work.put((result, begin))

    def wait(self, timeout_s: float) -> bool:
        """
        Wait until the oldest work is done; False when there is none or it takes longer.

        Raises
        ------
        ModelError
            When the stage is stuck or its thread has died: waiting on would be waiting for ever.

        """
        if not self._results:
            return False
        deadline = time.monotonic() + timeout_s
        while not self._results[0].done():
            if not self._thread.is_alive():
                raise ModelError(f"the thread `{self.name}` of the encoder has died")
            now = time.monotonic()
            if now - self._since_s > self._stuck_s:
                raise ModelError(f"the thread `{self.name}` of the encoder is stuck for {self._stuck_s:g} s")
            if now >= deadline:
                return False
            # A future has no wait that returns instead of raising, and a short nap lets signals be handled.
            try:
                self._results[0].exception(min(deadline - now, 0.25))
            except TimeoutError:
                continue
        return True

    def take(self) -> T:
        """Return the oldest result, which is done; what its work raised is raised here."""
        result = self._results.pop(0)
        self._since_s = time.monotonic()
        return result.result(0)

    def close(self) -> None:
        """Accept nothing more; what is in progress ends with the process at the latest."""
        self._work.put(None)

    def _run(self) -> None:
        begun: deque[tuple[Future[T], Callable[[], T]]] = deque()
        while (entry := self._next(begun)) is not None:
            result, begin = entry
            try:
                begun.append((result, begin()))
            except BaseException as error:  # noqa: BLE001 -- handed to whoever takes the result
                result.set_exception(error)
            if len(begun) == self._in_flight:
                _finish(*begun.popleft())

    def _next(self, begun: deque[tuple[Future[T], Callable[[], T]]]) -> _Entry[T] | None:
        """Wait for work; where there is none yet, what has begun is finished first."""
        while begun:
            try:
                return self._work.get_nowait()
            except queue.Empty:
                _finish(*begun.popleft())
        return self._work.get()


def _finish(result: Future[T], finish: Callable[[], T]) -> None:
    value: Any
    try:
        value = finish()
    except BaseException as error:  # noqa: BLE001 -- handed to whoever takes the result
        result.set_exception(error)
    else:
        result.set_result(value)
