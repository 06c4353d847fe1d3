"""
`freshet encoder`: `items` and `item-sightings` in, `item-vectors` of one model out.

One thread polls, publishes and commits, two more tokenise and encode; kafka-python's own thread keeps the group
membership alive. Delivery is at least once, and repeating a record writes the same key with the same vector.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import Message

from streams.encoding.intake import POLL_RECORDS, SOURCES, Intake
from streams.encoding.pipeline import Pipeline
from streams.encoding.publisher import Publisher
from streams.encoding.seen import Seen
from streams.encoding.source import images_of, load_encoder, model_name
from streams.errors import TopicMismatchError
from streams.health import HealthServer
from streams.kafka.admin import topic_partitions
from streams.kafka.bulk_read import read_to_end
from streams.kafka.deadline import Deadline
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.models import SERVED_KEY, Served

if TYPE_CHECKING:
    from models.encoder import Encoder

_LOG = structlog.get_logger(__name__)

_TOPICS = (*SOURCES, "item-vectors", "models", "dead-letters")

#: Records of one poll where each may bring an image, which takes some ten milliseconds to read: a live one waits for
#: those of the polls before it.
_POLL_IMAGES = 64

#: The longest batch takes seconds; a thread silent for this long is stuck.
_LIVE_S = 300.0


def run(settings: Settings) -> None:
    """
    Encode until SIGTERM or SIGINT; then finish the batch, commit, leave the group and return.

    Raises
    ------
    ModelError
        The model is refused, cannot be loaded, or stopped working.
    TopicMismatchError
        A topic is missing.
    DependencyError
        Kafka is away for longer than `kafka_timeout_s`, or the default model cannot be fetched.

    """
    worker = EncoderWorker(settings)
    health = HealthServer(settings, live=worker.live, ready=worker.ready)
    health.start()
    try:
        with _signals(worker):
            worker.run()
    finally:
        health.stop()


class _StoppedEarly(BaseException):  # libraries that are being imported or connected may catch Exception
    """A signal came while the worker was starting: there is nothing to finish."""


@contextmanager
def _signals(worker: EncoderWorker) -> Iterator[None]:
    def handle(number: int, _frame: object) -> None:
        _LOG.info("stopping", signal=signal.Signals(number).name)
        worker.stop()
        if worker.starting:
            raise _StoppedEarly

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except _StoppedEarly:
        _LOG.info("stopped_while_starting")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class EncoderWorker:
    """One encoder; `run` blocks until `stop` is called from another thread or a signal handler."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._last_step = time.monotonic()
        self._loaded = self._restored = False
        self._intake: Intake | None = None
        self.starting = True

    def stop(self) -> None:
        """Ask `run` to finish its batch and return."""
        self._stop.set()

    def live(self) -> tuple[bool, dict[str, Any]]:
        """Whether the thread is moving; a start that takes long is not a failure."""
        silent_s = time.monotonic() - self._last_step
        return self.starting or silent_s < _LIVE_S, {"silent_s": round(silent_s, 1)}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether the model is loaded, what is encoded already is known, and partitions are assigned."""
        intake = self._intake
        assigned = intake is not None and not intake.rebalancing
        details = {"model": self._loaded, "restored": self._restored, "assigned": assigned}
        return assigned and not self._stop.is_set(), details

    def run(self) -> None:
        """Load, restore, then encode until stopped; raises as `streams.roles.encoder.run`."""
        settings = self._settings
        encoder = load_encoder(settings)
        images = images_of(settings, encoder.folder)
        self._loaded = True
        _LOG.info(
            "model_loaded", model=model_name(settings), fingerprint=encoder.fingerprint, dim=encoder.dim,
            device=str(encoder.device), precision=encoder.precision, max_tokens=encoder.max_tokens,
            image_weight=encoder.image_weight,
        )  # fmt: skip
        for trial in encoder.trials:
            _LOG.info("precision_tried", passed=trial.passed, **trial._asdict())
        partitions = _partitions(settings)
        seen = Seen(encoder.fingerprint)
        seen.catch_up(settings, partitions["item-vectors"])
        self._restored = True
        _LOG.info("restored", items=len(seen))
        publisher = Publisher(settings, self._stop)
        try:
            _name_model(settings, publisher, encoder, partitions["models"])
            # A group of its own for each fingerprint: a new model reads the whole catalogue beside the old one.
            group = f"{settings.group('encoder')}-{encoder.fingerprint}"
            intake = Intake(settings, group, POLL_RECORDS if images is None else _POLL_IMAGES)
            self._intake = intake
            pipeline = Pipeline(settings, encoder, seen, publisher, intake, partitions["item-vectors"], images=images)
            try:
                self._loop(pipeline)
            finally:
                pipeline.close()
                intake.close()
        finally:
            publisher.close()

    def _loop(self, pipeline: Pipeline) -> None:
        self.starting = False
        while not self._stop.is_set():
            self._last_step = time.monotonic()
            pipeline.step()
        pipeline.finish()
        _LOG.info("stopped")


def _partitions(settings: Settings) -> dict[str, int]:
    """Return the partition counts of the topics needed here, by name without namespace."""
    counts = topic_partitions(settings)
    names = {name: full_name(settings, name) for name in _TOPICS}
    if missing := [name for name in names.values() if name not in counts]:
        raise TopicMismatchError(f"the topic {missing[0]} is missing; `freshet topics create` makes it")
    return {name: counts[topic] for name, topic in names.items()}


def _name_model(settings: Settings, publisher: Publisher, encoder: Encoder, partitions: int) -> None:
    """
    Say on `models` which model the fingerprint is, and let it be served where no other is.

    Beside a served model this one only encodes: `freshet models promote` switches to it.
    """
    found: dict[bytes, bytes | None] = {}

    def take(messages: Sequence[Message]) -> None:
        found.update((message.key() or b"", message.value()) for message in messages)

    topic = full_name(settings, "models")
    read_to_end(settings, topic, range(partitions), take, Deadline(settings.kafka_timeout_s))
    own = Served(encoder.fingerprint, encoder.dim, model_name(settings))
    if found.get(encoder.fingerprint.encode()) != own.encode():
        publisher.send("models", encoder.fingerprint.encode(), own.encode())
    if first := found.get(SERVED_KEY) is None:
        publisher.send("models", SERVED_KEY, own.encode())
    publisher.flush()
    _LOG.info("model_named", fingerprint=own.fingerprint, model=own.model, dim=own.dim, first=first)
