"""
The encoder's stages: poll, tokenise, encode, publish, commit.

The role's thread does all that has to do with Kafka. Tokenising and the forward pass have a thread each, so that the
device works while records are read, decoded, published and acknowledged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import structlog

from models.batching import padding_tokens
from models.errors import ImageError
from models.errors import ModelError as BrokenModelError
from streams import metrics
from streams.encoding.backlog import Backlog, Job, Record
from streams.encoding.images import Images, report
from streams.encoding.intake import Intake
from streams.encoding.lane import LiveLane
from streams.encoding.preparing import Prepared, hand_over, no_vector, prepare
from streams.encoding.publisher import Publisher
from streams.encoding.seen import SHOP, SIGHTING, SOURCE_HEADER, Seen
from streams.encoding.stage import Stage
from streams.encoding.watermark import Position, Watermark
from streams.errors import ModelError
from streams.kafka.partitioner import partition_of
from streams.settings import Settings
from streams.wire.dead_letters import DeadLetter
from streams.wire.limits import Rejected
from streams.wire.vectors import encode_vector, vector_key

if TYPE_CHECKING:
    from models.encoder import Encoder
    from models.faults import Encoded

_LOG = structlog.get_logger(__name__)

#: Items held in memory, at most 64 KiB each; enough to fill batches of similar length.
_BACKLOG_ITEMS = 2_048
#: With live ones that became a backlog themselves; beyond this nothing is read ahead.
_MOST_ITEMS = 2 * _BACKLOG_ITEMS
_IDLE_POLL_S = 0.2
#: Longest wait for a stage before Kafka is polled again; what comes meanwhile is late by as much.
_STAGE_WAIT_S = 0.02
#: Batches that wait behind those on the device, so that it goes from one to the next; more would delay live items.
_WAITING_BATCHES = 1
#: Pixels that wait for the device, and those of a poll more; live items may bring as many again.
_IMAGE_BYTES = 128 << 20
#: A poll's records each; the last place is kept for live ones.
_TOKENIZER_DEPTH = 3
#: Records that wait beyond this are a backlog that live ones need not wait for: a poll of them takes about a second.
#: It has ended where fewer than the second number wait.
_LONG_RECORDS = (500, 250)
#: So many live items at once are another backlog: what comes after them is live.
_MOST_LIVE = 512
#: Items whose newest version was read before its turn, 150 bytes each.
_MOST_AHEAD = 200_000
#: A live item waits for the batches that the device has: beside live ones, those of bulk items take so long together.
_BULK_S = 0.3
#: A batch's tokens before the device's pace is known, and the least.
_BULK_TOKENS = (512, 64)
#: The longest batch takes seconds.
_STUCK_S = 300.0
#: An orderly stop gives batches in progress so long; what is left is encoded again by whoever comes next.
_FINISH_S = 5.0


def wall_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class _Batch(NamedTuple):
    jobs: list[Job]
    lengths: list[int]
    encoded: Encoded
    seconds: float


class Pipeline:
    """
    The encoder between two polls.

    Nothing is on its way to Kafka while partitions may change hands: a batch is acknowledged before the next poll and
    committed after, and one that was being encoded meanwhile loses the items of partitions that went. Otherwise a slow
    worker could write an old version of an item over the newer one of its successor.
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
        images: Images | None = None,
    ) -> None:
        self._settings = settings
        self._encoder = encoder
        self._seen = seen
        self._publisher = publisher
        self._intake = intake
        self._partitions = partitions
        self._now_ms = now_ms
        self._watermark = Watermark()
        self._images = images
        # On a device with large batches the next ones must fit beside the one that runs.
        self._most_images = max(_IMAGE_BYTES // images.image_bytes, 3 * encoder.batch_images) if images else 0
        self._backlog = Backlog(seen, now_ms, images)
        self._lane = LiveLane(settings)
        self._noted: dict[tuple[str, int], int] = {}
        self._tokens_per_s = 0.0
        self._tokenizer: Stage[Prepared] = Stage("tokenizer", _TOKENIZER_DEPTH, _STUCK_S)
        in_flight = encoder.in_flight
        self._device: Stage[_Batch] = Stage("device", in_flight + _WAITING_BATCHES, _STUCK_S, in_flight)
        # Batches begun and not ended; only the device's thread looks at it.
        self._begun = 0
        self._last_commit = time.monotonic()

    def step(self) -> None:
        """
        Read what has come, keep the stages busy, publish a batch that is done, commit.

        Raises
        ------
        DependencyError, ModelError
            As `streams.roles.encoder.run`.

        """
        self._read()
        # While the group rebalances, partitions may be another's already: only wait.
        if not self._intake.rebalancing:
            self._take_tokens()
            self._feed()
            if self._device.wait(_STAGE_WAIT_S):
                self._publish(self._device.take())
                self._feed()
        if time.monotonic() - self._last_commit >= self._settings.commit_interval_s:
            self.commit()
        self._intake.watch(self._watermark.pending)
        self._publisher.serve()

    def finish(self) -> None:
        """Publish the batches that are being encoded, and commit: an orderly stop."""
        deadline = time.monotonic() + _FINISH_S
        while not self._intake.rebalancing and self._device.wait(max(0.0, deadline - time.monotonic())):
            self._publish(self._device.take())
        self.commit()

    def close(self) -> None:
        """End the threads."""
        self._lane.close()
        self._tokenizer.close()
        self._device.close()
        if self._images is not None:
            self._images.close()

    def commit(self) -> None:
        """Commit the contiguous prefix of each partition that has moved."""
        self._last_commit = time.monotonic()
        starts = self._live_starts()
        moved = self._watermark.commits()
        offsets = moved | self._to_note(starts)
        with _timed("commit"):
            if self._intake.commit(offsets, starts):
                self._watermark.committed(moved)
                self._noted = starts

    def _live_starts(self) -> dict[tuple[str, int], int]:
        held = self._intake.held
        return {at: start for at, start in self._lane.starts.items() if at in held}

    def _to_note(self, starts: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        """Return the next offsets of partitions whose first live record is new; their turn may be far off."""
        new = [at for at, start in starts.items() if self._noted.get(at) != start]
        marks = self._watermark.marks() if new else {}
        places = {at: marks[at] if at in marks else self._intake.position(at) for at in new}
        return {at: offset for at, offset in places.items() if offset is not None}

    def _read(self) -> None:
        if self._intake.rebalancing:
            wait_s = _IDLE_POLL_S
        elif self._backlog or self._device:
            wait_s = 0.0
        else:
            wait_s = _STAGE_WAIT_S if self._lane.open else _IDLE_POLL_S
        full = self._crowded(_BACKLOG_ITEMS) or len(self._tokenizer) >= _TOKENIZER_DEPTH - 1
        polled = self._intake.poll(wait_s, full=full)
        if polled.lost:
            self._watermark.finish(self._backlog.drop(polled.lost))
            self._watermark.drop(polled.lost)
            self._lane.forget(polled.lost)
        if polled.gained:
            self._seen.catch_up(self._settings, self._partitions)
            self._resume_ahead()
            _LOG.info("partitions_assigned", held=len(self._intake.held), encoded=len(self._seen))
        self._watermark.add(record.position for record in polled.records)
        self._admit([one._replace(counted=self._lane.has_read(one.position)) for one in polled.records])
        # While the group rebalances, partitions may be another's already.
        if not self._intake.rebalancing:
            self._read_ahead(full=full)

    def _crowded(self, most_items: int) -> bool:
        """Whether so many items wait, or images in proportion."""
        most_images = self._most_images * most_items // _BACKLOG_ITEMS
        return len(self._backlog) >= most_items or (bool(most_images) and self._backlog.images >= most_images)

    def _resume_ahead(self) -> None:
        """Go on where another member read ahead: otherwise older versions would replace what it made of newer ones."""
        intake = self._intake
        if not self._lane.open and (known := intake.live_starts()):
            self._lane.follow(intake.shop_partitions, known)

    def _read_ahead(self, *, full: bool) -> None:
        """Read live items before their turn while a long backlog lies before them."""
        lane, intake = self._lane, self._intake
        long, short = _LONG_RECORDS
        if not lane.open:
            if intake.behind() <= long:
                return
            self._backlog.demote()
        elif not full and lane.caught_up and lane.passed(intake.reached) and intake.behind() < short:
            lane.close()
            self._backlog.forget_passed(intake.reached)
            return
        if not lane.follows(intake.shop_partitions):
            lane.follow(intake.shop_partitions, intake.live_starts())
        if self._backlog.live >= _MOST_LIVE:
            self._backlog.demote()
            lane.jump()
        if not self._tokenizer.full and not self._crowded(_MOST_ITEMS) and self._backlog.ahead < _MOST_AHEAD:
            # What the group's reader has read has had its turn.
            reached = intake.reached
            records = lane.poll()
            self._admit([one for one in records if one.position.offset >= reached.get(one.position[:2], 0)])

    def _admit(self, records: list[Record]) -> None:
        if not records:
            return
        admission = self._backlog.admit(records, self._lane.is_bulk)
        if admission.fresh:
            self._tokenizer.submit(partial(prepare, self._encoder, self._images, admission.fresh))
        report(admission.unusable)
        for item_id in admission.gone:
            self._send(item_id, None)
        for letter in admission.refused:
            self._refuse(letter)
        self._flush()
        self._watermark.finish(admission.settled)
        for outcome, count in admission.outcomes.items():
            metrics.ENCODED.labels(outcome).inc(count)

    def _take_tokens(self) -> None:
        """Take what is tokenised; wait for it only where the device has nothing else to do."""
        while self._tokenizer.wait(0 if self._device else _STAGE_WAIT_S):
            if refused := hand_over(self._tokenizer.take()):
                self._set_aside(refused)

    def _set_aside(self, refused: list[tuple[Job, Rejected]]) -> None:
        """Refuse jobs that have nothing to encode, and still wait."""
        settled: list[Position] = []
        for job, rejected in refused:
            if self._backlog.discard(job):
                self._refuse_job(job, rejected)
                settled += job.positions
                metrics.ENCODED.labels("failed").inc(not job.counted)
        self._flush()
        self._watermark.finish(settled)

    def _feed(self) -> None:
        """Keep the device busy: a batch goes at once when it is idle, however small."""
        encoder = self._encoder
        bulk = self._bulk_tokens()
        images = encoder.batch_images if self._images else None
        while not self._device.full and (
            jobs := self._backlog.take(
                encoder.batch_tokens, encoder.batch_cost_tokens, bulk, images, encoder.image_tokens
            )
        ):
            tokens = [job.tokens or [] for job in jobs]
            self._device.submit_two_steps(partial(self._begin, jobs, tokens))

    def _bulk_tokens(self) -> int | None:
        """Return the budget of bulk batches beside live ones, None where nothing is live."""
        if not self._lane.caught_up:
            return 0
        if not self._lane.starts:
            return None
        first, least = _BULK_TOKENS
        return max(least, int(self._tokens_per_s * _BULK_S / self._device.depth)) if self._tokens_per_s else first

    def _begin(self, jobs: list[Job], tokens: list[list[int]]) -> Callable[[], _Batch]:
        """On the device's thread."""
        began_s = time.perf_counter()
        encoding = self._encoder.begin_items(tokens, [job.pixels for job in jobs])
        self._begun += 1
        return partial(self._land, jobs, [len(ids) for ids in tokens], began_s, encoding)

    def _land(self, jobs: list[Job], lengths: list[int], began_s: float, encoding: Callable[[], Encoded]) -> _Batch:
        """On the device's thread; of the time of batches side by side each takes a part, by Little's law."""
        under_way = self._begun
        self._begun -= 1
        try:
            encoded = encoding()
        except BrokenModelError as error:
            raise ModelError(str(error)) from error
        took_s = (time.perf_counter() - began_s) / under_way
        metrics.ENCODER_SECONDS.labels("encode").observe(took_s)
        return _Batch(jobs, lengths, encoded, took_s)

    def _publish(self, batch: _Batch) -> None:
        wanted = set(map(id, self._backlog.land(batch.jobs)))
        jobs = [(place, job) for place, job in enumerate(batch.jobs) if id(job) in wanted]
        faults = batch.encoded.faults
        if not self._still_member():
            self._backlog.put_back(job for _, job in jobs)
            return
        settled: list[Position] = []
        for place, job in jobs:
            if (fault := faults.get(place)) is not None:
                self._refuse_job(job, no_vector(job, fault))
            else:
                vector = encode_vector(job.content_hash, batch.encoded.vectors[place])
                self._send(job.item_id, vector, SHOP if job.record.shop else SIGHTING)
            settled += job.positions
        self._flush()
        for place, job in jobs:
            if place not in faults:
                self._seen.put(job.item_id, job.content_hash, shop=job.record.shop)
        self._watermark.finish(settled)
        images = sum(job.pixels is not None for job in batch.jobs)
        if batch.jobs[0].bulk:
            self._keep_pace(sum(batch.lengths) + images * self._encoder.image_tokens, batch.seconds)
        bad = faults.keys() | batch.encoded.left_out.keys()
        used = sum(job.pixels is not None and place not in bad for place, job in enumerate(batch.jobs))
        metrics.IMAGES.labels("encoded").inc(used)
        report([(batch.jobs[place].item_id, ImageError("model", why)) for place, why in batch.encoded.left_out.items()])
        metrics.ENCODER_TOKENS.labels("text").inc(sum(batch.lengths))
        metrics.ENCODER_TOKENS.labels("padding").inc(padding_tokens(batch.lengths))
        metrics.ENCODED.labels("encoded").inc(sum(place not in faults for place, _ in jobs))
        metrics.ENCODED.labels("failed").inc(sum(place in faults and not job.counted for place, job in jobs))

    def _keep_pace(self, tokens: int, seconds: float) -> None:
        """Take note of the device's pace in bulk batches; what a small one takes is its start."""
        if tokens >= _BULK_TOKENS[1]:
            pace = tokens / max(seconds, 1e-6)
            self._tokens_per_s = (self._tokens_per_s + pace) / 2 if self._tokens_per_s else pace

    def _still_member(self) -> bool:
        """
        Whether the group still counts on us; asked anew where the last certain answer is old.

        A process that was stopped (SIGSTOP, a suspended machine) may have been replaced when it continues, and not
        even a poll tells it at once. Only the broker knows: it refuses the commit of whoever was replaced.
        """
        if time.monotonic() - self._intake.confirmed_s < self._settings.kafka_session_timeout_s / 2:
            return True
        return self._intake.commit(self._watermark.marks(), self._live_starts())

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

    def _refuse_job(self, job: Job, rejected: Rejected) -> None:
        """Send an item without a vector to `dead-letters`; one that was read ahead is met again, and goes then."""
        record = job.record
        if not record.ahead:
            self._refuse(DeadLetter.of(rejected, *record.position, self._now_ms(), record.key, record.value))

    def _flush(self) -> None:
        with _timed("publish"):
            self._publisher.flush()


@contextmanager
def _timed(stage: str) -> Iterator[None]:
    with metrics.ENCODER_SECONDS.labels(stage).time():
        yield
