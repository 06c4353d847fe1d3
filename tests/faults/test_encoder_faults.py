"""The encoder when Kafka goes away and comes back, and when the encoder itself is frozen and replaced."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.errors import DependencyError
from streams.kafka.admin import create_topics
from streams.settings import Settings
from streams.wire.items import Item
from tests.support.encoders import RunningEncoder, put, vectors, wait_for, with_text
from tests.support.roles import RoleProcess
from tests.support.services import running_kafka
from tests.support.tiny_model import make_tiny_model

pytestmark = pytest.mark.faults


def test_kafka_comes_back_or_the_worker_ends(tmp_path: Path) -> None:
    """A broker that is away for some seconds costs nothing; one that stays away ends the worker with a sentence."""
    model = make_tiny_model(tmp_path / "tiny")
    with running_kafka(tmp_path / "kafka") as kafka:
        settings = Settings(
            kafka_bootstrap=kafka.bootstrap,
            kafka_timeout_s=20,
            partitions=2,
            model_path=model,
            device="cpu",
            encoder_threads=1,
        )
        create_topics(settings)
        # As a process: kafka-python leaves sockets of refused connections to the garbage collector, which warns.
        with RoleProcess("encoder", settings, tmp_path) as encoder:
            encoder.ready()
            put(settings, Item("a", title="red mug"))
            wait_for(lambda: with_text(settings, "red mug") == {"a"})
            kafka.kill()
            time.sleep(4)  # long enough for a client's reconnect backoff to have grown
            kafka.start()
            put(settings, Item("a", title="blue mug"))
            wait_for(lambda: with_text(settings, "blue mug") == {"a"}, 20)
            kafka.kill()
            assert encoder.wait(60) == DependencyError.exit_code
            # The reader's sentence ("did not answer"), or the publisher's ("did not acknowledge"): a vector can be read
            # before its acknowledgement has reached the encoder, which then waits for it.
            assert f"freshet: Kafka at {settings.kafka_bootstrap} did not a" in encoder.tail()


def test_a_frozen_worker_does_not_undo_its_successor(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """Stopped in the middle, replaced, then continued: every item keeps the vector of its newest text."""
    settings = settings_for(
        partitions=4,
        model_path=make_tiny_model(tmp_path / "tiny", layers=60),  # slow enough to be met in the middle of a batch
        device="cpu",
        encoder_threads=1,
        encoder_batch_tokens=300,
        kafka_session_timeout_s=8,
        commit_timeout_s=5,
    )
    names = {f"i{number}" for number in range(1_500)}
    with RoleProcess("encoder", settings, tmp_path) as frozen:
        frozen.ready()
        put(settings, *(Item(name, title=f"old {name}") for name in names))
        wait_for(lambda: frozen.metric("freshet_encoder_items_total", outcome="encoded") > 0)
        frozen.signal(signal.SIGSTOP)
        assert len(vectors(settings)) < len(names)
        put(settings, *(Item(name, title="new") for name in names))
        with RunningEncoder(settings):
            wait_for(lambda: with_text(settings, "new") == names, 60)
            frozen.signal(signal.SIGCONT)
            frozen.ready()
            time.sleep(2)  # what it had in hand would be out by now
            assert with_text(settings, "new") == names
        put(settings, Item("late", title="new"))
        wait_for(lambda: with_text(settings, "new") == {*names, "late"})
