"""A stage: work in order, bounded, and neither a failure nor a stuck call ever hangs the encoder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from streams.encoding.stage import Stage
from streams.errors import ModelError


@pytest.fixture
def stage() -> Iterator[Stage[int]]:
    """A stage that takes two."""
    with Stage[int]("test", depth=2, stuck_s=0.2) as made:
        yield made


def test_results_come_in_the_order_of_the_work(stage: Stage[int]) -> None:
    """Two are accepted, then it is full until one is taken."""
    assert not stage.wait(0)
    stage.submit(lambda: 1)
    stage.submit(lambda: 2)
    assert stage.full
    assert stage.wait(5)
    assert [stage.take(), stage.wait(5) and stage.take()] == [1, 2]
    assert not len(stage)


def test_a_wait_ends_in_time(stage: Stage[int]) -> None:
    """Kafka has to be polled while the device works."""
    release = threading.Event()
    stage.submit(lambda: int(release.wait(5)))
    began = time.monotonic()
    assert not stage.wait(0.05)
    assert time.monotonic() - began < 0.2
    release.set()
    assert stage.wait(5)


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit("out")])
def test_what_the_work_raises_is_raised_by_take(stage: Stage[int], error: BaseException) -> None:
    """The reason reaches the role's thread, which ends the process with it; the stage itself lives on."""

    def fail() -> int:
        raise error

    stage.submit(fail)
    stage.submit(lambda: 2)
    assert stage.wait(5)
    with pytest.raises(type(error), match=str(error)):
        stage.take()
    assert stage.wait(5)
    assert stage.take() == 2


def test_the_next_begins_before_the_last_is_waited_for() -> None:
    """With two in flight the third begins when the first has ended; results keep their order, faults their place."""
    log: list[str] = []

    def begin(number: int, error: Exception | None = None) -> Callable[[], int]:
        log.append(f"begin {number}")

        def finish() -> int:
            log.append(f"finish {number}")
            if error is not None:
                raise error
            return number

        return finish

    def refuse() -> Callable[[], int]:
        raise RuntimeError("refused")

    with Stage[int]("test", depth=4, stuck_s=5, in_flight=2) as stage:
        release = threading.Event()
        stage.submit_two_steps(lambda: begin(0, ValueError("late")) if release.wait(5) else refuse())
        stage.submit_two_steps(refuse)
        for number in (1, 2):
            stage.submit_two_steps(partial(begin, number))
        release.set()
        for error in (ValueError, RuntimeError):
            assert stage.wait(5)
            with pytest.raises(error):
                stage.take()
        assert [stage.wait(5) and stage.take() for _ in range(2)] == [1, 2]
    assert log == ["begin 0", "begin 1", "finish 0", "begin 2", "finish 1", "finish 2"]


def test_what_has_begun_is_finished_without_more_work() -> None:
    """A lone batch is not kept until another comes."""
    with Stage[int]("test", depth=3, stuck_s=5, in_flight=2) as stage:
        stage.submit_two_steps(lambda: lambda: 7)
        assert stage.wait(5)
        assert stage.take() == 7


def test_stuck_work_is_an_error(stage: Stage[int]) -> None:
    """A call into a driver that never returns ends the process instead of hanging it."""
    release = threading.Event()
    stage.submit(lambda: int(release.wait(30)))
    with pytest.raises(ModelError, match="`test` of the encoder is stuck"):
        stage.wait(10)
    release.set()


def test_a_dead_thread_is_an_error(stage: Stage[int]) -> None:
    """Waiting for it would be waiting for ever."""
    stage.close()
    stage._thread.join(5)
    stage.submit(lambda: 1)
    with pytest.raises(ModelError, match="has died"):
        stage.wait(10)
