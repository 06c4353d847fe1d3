"""One turn of the encoder: poll, sort, encode, publish, commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from models.batching import padding_tokens
from models.errors import ModelError as BrokenModelError
from streams import metrics
from streams.encoding.backlog import Backlog, Job
from streams.encoding.intake import Intake
from streams.encoding.publisher import Publisher
from streams.encoding.seen import SHOP, SIGHTING, SOURCE_HEADER, Seen
from streams.encoding.watermark import Position, Watermark
from streams.errors import ModelError
from streams.kafka.partitioner import partition_of
from streams.settings import Settings
from streams.wire.dead_letters import DeadLetter
from streams.wire.limits import Rejected
from streams.wire.vectors import encode_vector, vector_key

if TYPE_CHECKING:
    from models.encoder import Encoder

_LOG = structlog.get_logger(__name__)

#: Items held in memory, at most 64 KiB each; enough to fill batches of similar length.
_BACKLOG_ITEMS = 2_048
_IDLE_POLL_S = 0.2


def wall_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Pipeline:
    """
    The encoder between two polls.

    Nothing is in flight while partitions may change hands: a batch is acknowledged before the next poll and committed
    after. Otherwise a slow worker could write an old version of an item over the newer one of its successor.
    """

    def __init__(
        self,
        settings: Settings,
        encoder: Encoder,
        seen: Seen,
        publisher: Publisher,
        intake: Intake,
        partitions: int,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._settings = settings
        self._encoder = encoder
        self._seen = seen
        self._publisher = publisher
        self._intake = intake
        self._partitions = partitions
        self._now_ms = now_ms
        self._watermark = Watermark()
        self._backlog = Backlog(seen, self._tokenize, now_ms)
        self._last_commit = time.monotonic()

    def step(self) -> None:
        """
        Read what has come, encode one batch, publish it, commit.

        Raises
        ------
        DependencyError, ModelError
            As `streams.roles.encoder.run`.

        """
        self._read()
        # While the group rebalances, partitions may be another's already: only wait.
        if self._backlog and not self._intake.rebalancing:
            self._encode(self._backlog.take(self._encoder.batch_tokens))
        if time.monotonic() - self._last_commit >= self._settings.commit_interval_s:
            self.commit()
        self._intake.watch(self._watermark.pending)
        self._publisher.serve()

    def commit(self) -> None:
        """Commit the contiguous prefix of each partition that has moved."""
        self._last_commit = time.monotonic()
        offsets = self._watermark.commits()
        with _timed("commit"):
            if self._intake.commit(offsets):
                self._watermark.committed(offsets)

    def _read(self) -> None:
        busy = bool(self._backlog) and not self._intake.rebalancing
        polled = self._intake.poll(0 if busy else _IDLE_POLL_S, full=len(self._backlog) >= _BACKLOG_ITEMS)
        if polled.lost:
            self._watermark.finish(self._backlog.drop(polled.lost))
            self._watermark.drop(polled.lost)
        if polled.gained:
            self._seen.catch_up(self._settings, self._partitions)
            _LOG.info("partitions_assigned", held=len(self._intake.held), encoded=len(self._seen))
        if not polled.records:
            return
        self._watermark.add(record.position for record in polled.records)
        admission = self._backlog.admit(polled.records)
        for item_id in admission.gone:
            self._send(item_id, None)
        for letter in admission.refused:
            self._refuse(letter)
        self._flush()
        self._watermark.finish(admission.settled)
        for outcome, count in admission.outcomes.items():
            metrics.ENCODED.labels(outcome).inc(count)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        before = self._encoder.truncated
        with _timed("tokenize"):
            tokens = self._encoder.tokenize(texts)
        metrics.ENCODER_TRUNCATED.inc(self._encoder.truncated - before)
        return tokens

    def _encode(self, jobs: list[Job]) -> None:
        try:
            with _timed("encode"):
                encoded = self._encoder.encode_tokens([job.tokens for job in jobs])
        except BrokenModelError as error:
            raise ModelError(str(error)) from error
        if not self._still_member():
            self._backlog.put_back(jobs)
            return
        settled: list[Position] = []
        for place, job in enumerate(jobs):
            if (fault := encoded.faults.get(place)) is not None:
                self._refuse(self._fault(job, fault))
            else:
                self._send(
                    job.item_id,
                    encode_vector(job.content_hash, encoded.vectors[place]),
                    SHOP if job.record.shop else SIGHTING,
                )
            settled += job.positions
        self._flush()
        for place, job in enumerate(jobs):
            if place not in encoded.faults:
                self._seen.put(job.item_id, job.content_hash, shop=job.record.shop)
        self._watermark.finish(settled)
        lengths = [len(job.tokens) for job in jobs]
        metrics.ENCODER_TOKENS.labels("text").inc(sum(lengths))
        metrics.ENCODER_TOKENS.labels("padding").inc(padding_tokens(lengths))
        metrics.ENCODED.labels("encoded").inc(len(jobs) - len(encoded.faults))
        metrics.ENCODED.labels("failed").inc(len(encoded.faults))

    def _still_member(self) -> bool:
        """
        Whether the group still counts on us; asked anew where the last certain answer is old.

        A process that was stopped (SIGSTOP, a suspended machine) may have been replaced when it continues, and not
        even a poll tells it at once. Only the broker knows: it refuses the commit of whoever was replaced.
        """
        if time.monotonic() - self._intake.confirmed_s < self._settings.kafka_session_timeout_s / 2:
            return True
        return self._intake.commit(self._watermark.marks())

    def _send(self, item_id: str, value: bytes | None, source: bytes | None = None) -> None:
        self._publisher.send(
            "item-vectors",
            vector_key(self._encoder.fingerprint, item_id),
            value,
            partition_of(item_id.encode(), self._partitions),
            [(SOURCE_HEADER, source)] if source else None,
        )

    def _refuse(self, letter: DeadLetter) -> None:
        metrics.DEAD_LETTERS.labels(letter.topic.removeprefix(self._settings.topic_prefix), letter.reason).inc()
        self._publisher.refuse(letter)

    def _fault(self, job: Job, fault: str) -> DeadLetter:
        record = job.record
        rejected = Rejected("bad_model_output", f"item {job.item_id} has no vector: {fault}")
        return DeadLetter.of(rejected, *record.position, self._now_ms(), record.key, record.value)

    def _flush(self) -> None:
        with _timed("publish"):
            self._publisher.flush()


@contextmanager
def _timed(stage: str) -> Iterator[None]:
    with metrics.ENCODER_SECONDS.labels(stage).time():
        yield
