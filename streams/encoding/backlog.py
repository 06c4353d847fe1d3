"""
Items read and not encoded yet: the newest version of each, unchanged ones left out.

Nothing here waits or talks to Kafka. `admit` sorts records into work and what is settled already; `take` gives the
batch of the longest-waiting item for encoding, live ones before bulk, and `land` says which of its items are still
wanted afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from models.batching import plan_batches
from models.errors import ImageError
from models.text import canonical_text, content_hash
from streams.encoding.images import FoundImage, Images, Pixels
from streams.encoding.seen import Seen
from streams.encoding.watermark import Position
from streams.wire.dead_letters import DeadLetter
from streams.wire.items import Item, decode_item
from streams.wire.limits import Rejected

_LOG = structlog.get_logger(__name__)

#: Batches of live items in a row while bulk ones wait: however many items are live, bulk goes on at a quarter's pace.
_LIVE_TURNS = 3


class Record(NamedTuple):
    """
    One record of `items` or of `item-sightings` (`shop` tells which), as Kafka gave it.

    `ahead` says that it was read before its turn: the group's reader comes to it again, and settles it then. `counted`
    says that this is that second time: the metrics have it already.
    """

    position: Position
    shop: bool
    key: bytes | None
    value: bytes | None
    ahead: bool = False
    counted: bool = False


@dataclass(slots=True)
class Job:
    """One item to encode, the record that says so, and every record that is settled once it is out."""

    item_id: str
    content_hash: bytes
    text: str
    record: Record
    positions: list[Position]
    #: Whether it waits until no live item does.
    bulk: bool = False
    image: FoundImage | None = None
    #: None until the tokenizer has seen it; empty without a text.
    tokens: list[int] | None = None
    #: What was made of the image where it can be used.
    pixels: Pixels | None = None
    #: Whether the metrics have the record that made it: it was read ahead, and came to nothing then.
    counted: bool = False


@dataclass(slots=True)
class Admission:
    """
    What became of the records of one poll, apart from those now in the backlog.

    Attributes
    ----------
    fresh
        New in the backlog, without tokens yet.
    refused
        For `dead-letters`.
    gone
        Items whose vector is to be deleted.
    settled
        Records that are done once `refused` and `gone` are out.
    unusable
        (item id, reason) of images that are left out.
    outcomes
        Counts for the metrics: one for each record, here or when its job has ended; none for a record `counted` before.

    """

    fresh: list[Job] = field(default_factory=list)
    refused: list[DeadLetter] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    settled: list[Position] = field(default_factory=list)
    unusable: list[tuple[str, ImageError]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)


class Content(NamedTuple):
    """What of an item is encoded; neither a text nor an image when it says nothing."""

    text: str
    image: FoundImage | None
    digest: bytes


class Backlog:
    """
    The items to encode, oldest first, and those that are being encoded: of each item at most one of both.

    `images` is where their images are; None leaves those out.
    """

    def __init__(self, seen: Seen, now_ms: Callable[[], int], images: Images | None = None) -> None:
        self._seen = seen
        self._now_ms = now_ms
        self._images = images
        self._jobs: dict[str, Job] = {}
        self._taken: dict[str, Job] = {}
        # Items with a version that was read ahead, and where: older ones are passed over.
        self._ahead: dict[str, Position] = {}
        self._live_turns = 0

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def live(self) -> int:
        """Live items that wait."""
        return sum(not job.bulk for job in self._jobs.values())

    @property
    def images(self) -> int:
        """Items with an image that wait."""
        return sum(job.image is not None for job in self._jobs.values())

    @property
    def ahead(self) -> int:
        """Items with a version that was read ahead and not met again."""
        return len(self._ahead)

    def admit(self, records: Iterable[Record], is_bulk: Callable[[Position], bool] = lambda _: False) -> Admission:
        """Decode records, let the newest version of an item win, leave out what is encoded."""
        admission = Admission()
        fresh: dict[str, Job] = {}
        for record in records:
            decoded = _decode(record)
            if isinstance(decoded, Rejected):
                if not record.ahead:
                    self._dead_letter(record, decoded, admission)
                _settle(admission, record, "refused")
                continue
            item_id = decoded if isinstance(decoded, str) else decoded.item_id
            if self._is_outrun(item_id, record) or (not record.shop and self._shop_speaks(item_id)):
                _settle(admission, record, "superseded")
            elif isinstance(decoded, str):
                fresh.pop(item_id, None)
                self._delete(item_id, admission, record, "deleted", silent=False)
            elif not (content := self._content_of(decoded, record, admission)):
                fresh.pop(item_id, None)
                self._delete(item_id, admission, record, "no_text", silent=record.shop)
            elif job := self._queue(item_id, content, record, admission):
                job.bulk = not record.ahead and is_bulk(record.position)
                fresh[item_id] = job
        admission.fresh += fresh.values()
        return admission

    def take(
        self,
        budget_tokens: int,
        batch_cost_tokens: int | None = None,
        bulk_tokens: int | None = None,
        budget_images: int | None = None,
        image_tokens: int = 1,
    ) -> list[Job]:
        """
        Return the batch, as `plan_batches` makes them, that holds the oldest item that has its tokens.

        Live items go first, in batches of their own; `bulk_tokens` is a smaller budget for the others, 0 lets them
        wait. At most `budget_images` have an image, which counts as `image_tokens` in `bulk_tokens`. An item whose
        older version is being encoded waits for it, so that its vectors come out in order.
        """
        live: list[Job] = []
        bulk: list[Job] = []
        for job in self._jobs.values():
            if job.tokens is not None and job.item_id not in self._taken:
                (bulk if job.bulk else live).append(job)
        if bulk and bulk_tokens != 0 and (not live or self._live_turns >= _LIVE_TURNS):
            jobs, budget_tokens = bulk, min(budget_tokens, bulk_tokens or budget_tokens)
            if budget_images is not None and bulk_tokens:
                budget_images = max(1, min(budget_images, bulk_tokens // image_tokens))
            self._live_turns = 0
        else:
            jobs = live
            self._live_turns = self._live_turns + 1 if bulk else 0
        for batch in plan_batches([len(job.tokens or ()) for job in jobs], budget_tokens, batch_cost_tokens):
            if 0 in batch:
                taken = _with_images([jobs[place] for place in sorted(batch)], budget_images)
                for job in taken:
                    self._taken[job.item_id] = self._jobs.pop(job.item_id)
                return taken
        return []

    def demote(self) -> None:
        """Let everything that waits be bulk: what comes from now on goes before it."""
        for job in self._jobs.values():
            job.bulk = True

    def forget_passed(self, reached: Mapping[tuple[str, int], int]) -> None:
        """Forget what was read ahead of the group's reader and lies behind it now; Kafka may have compacted it away."""
        self._ahead = {item_id: at for item_id, at in self._ahead.items() if at.offset >= reached.get(at[:2], 0)}

    def land(self, jobs: Iterable[Job]) -> list[Job]:
        """Return which of a batch that was taken are still wanted: not deleted, changed back or another's by now."""
        return [self._taken.pop(job.item_id) for job in jobs if self._taken.get(job.item_id) is job]

    def discard(self, job: Job) -> bool:
        """Remove a job; False when it does not wait any more."""
        waits = self._jobs.get(job.item_id) is job
        if waits:
            del self._jobs[job.item_id]
        return waits

    def put_back(self, jobs: Iterable[Job]) -> None:
        """Return what has landed and was not published to the front; a newer version takes over its records."""
        front = {job.item_id: job for job in jobs}
        for item_id, newer in self._jobs.items():
            if (older := front.pop(item_id, None)) is not None:
                newer.positions[:0] = older.positions
        self._jobs = front | self._jobs

    def drop(self, partitions: set[tuple[str, int]]) -> list[Position]:
        """
        Remove the items whose record came from partitions that were taken away.

        Returns
        -------
        Their other records, which are settled: whoever has the partition now encodes the newer version.

        """
        settled: list[Position] = []
        self._ahead = {item_id: at for item_id, at in self._ahead.items() if at[:2] not in partitions}
        for jobs in (self._jobs, self._taken):
            for job in list(jobs.values()):
                job.positions = [position for position in job.positions if position[:2] not in partitions]
                if job.record.position[:2] in partitions:
                    settled += job.positions
                    del jobs[job.item_id]
        return settled

    def _is_outrun(self, item_id: str, record: Record) -> bool:
        """Whether a newer version of the item was read ahead; takes note of one that is."""
        newest = self._ahead.get(item_id)
        if newest is not None and newest[:2] == record.position[:2] and record.position.offset < newest.offset:
            return True
        if record.ahead:
            self._ahead[item_id] = record.position
        elif newest is not None and newest[:2] == record.position[:2]:
            del self._ahead[item_id]  # its turn has come
        return False

    def _shop_speaks(self, item_id: str) -> bool:
        waiting = (self._jobs.get(item_id), self._taken.get(item_id))
        return self._seen.shop_owns(item_id) or any(job is not None and job.record.shop for job in waiting)

    def _content_of(self, item: Item, record: Record, admission: Admission) -> Content | None:
        """Return what is to be encoded, None where that is nothing; says so where only a bad image is there."""
        text = text_of(item)
        image = problem = None
        if self._images is not None and item.image_url:
            try:
                image = self._images.find(item.image_url)
            except ImageError as error:
                problem = error
                admission.unusable.append((item.item_id, problem))
        if text or image is not None:
            return Content(text, image, content_hash(text, image.identity if image is not None else b""))
        if problem is not None and not record.ahead:
            self._dead_letter(record, bad_image(item.item_id, problem), admission)
        return None

    def _dead_letter(self, record: Record, rejected: Rejected, admission: Admission) -> None:
        letter = DeadLetter.of(rejected, *record.position, self._now_ms(), record.key, record.value)
        admission.refused.append(letter)

    def _delete(self, item_id: str, admission: Admission, record: Record, outcome: str, *, silent: bool) -> None:
        """Let the item have no vector: it is deleted, or has no text."""
        self._cancel(item_id, admission)
        # A tombstone by the shop goes out always: it costs little, and a vector that could not be read back goes too.
        if item_id in self._seen or record.value is None:
            admission.gone.append(item_id)
        self._seen.forget(item_id, silent=silent)
        _settle(admission, record, outcome)

    def _cancel(self, item_id: str, admission: Admission) -> None:
        """Let what waits of an item, and what is being encoded, come to nothing."""
        for jobs in (self._jobs, self._taken):
            if (job := jobs.pop(item_id, None)) is not None:
                admission.settled += job.positions
                _count_replaced(admission, job)

    def _queue(self, item_id: str, content: Content, record: Record, admission: Admission) -> Job | None:
        """Return the job that is new, if any."""
        text, image, digest = content
        pending = self._jobs.get(item_id)
        positions = [] if record.ahead else [record.position]
        if self._seen.current(item_id, digest, shop=record.shop):
            self._cancel(item_id, admission)  # changed and changed back
            _settle(admission, record, "unchanged")
            return None
        if (taken := self._taken.get(item_id)) is not None and taken.content_hash == digest:
            if pending is not None:
                del self._jobs[item_id]
                taken.positions += pending.positions
                _count_replaced(admission, pending)
            _count(admission, record, "coalesced")
            taken.record = record
            taken.positions += positions
            return None
        if pending is not None:
            if pending.content_hash == digest:
                _count(admission, record, "coalesced")
                pending.record = record
                pending.positions += positions
                pending.bulk = pending.bulk and not record.ahead
                return None
            _count_replaced(admission, pending)
            positions[:0] = pending.positions
        job = Job(item_id, digest, text, record, positions, image=image, counted=record.counted)
        self._jobs[item_id] = job
        return job


def _decode(record: Record) -> Item | str | Rejected:
    try:
        return decode_item(record.key, record.value)
    except Exception as error:  # noqa: BLE001 -- our own bug must not stop the partition; the record is kept
        _LOG.exception("decode_failed", position=record.position)
        return Rejected("bug", f"{type(error).__name__} while decoding")


def _settle(admission: Admission, record: Record, outcome: str) -> None:
    if not record.ahead:
        admission.settled.append(record.position)
    _count(admission, record, outcome)


def _count(admission: Admission, record: Record, outcome: str) -> None:
    if not record.counted:
        admission.outcomes[outcome] += 1


def _count_replaced(admission: Admission, job: Job) -> None:
    """Count the record of a job that comes to nothing because of a newer version."""
    if not job.counted:
        admission.outcomes["coalesced"] += 1


def bad_image(item_id: str, problem: ImageError) -> Rejected:
    """Refuse an item that has nothing but an image that cannot be used."""
    return Rejected("bad_image", f"item {item_id} has no text, and its image cannot be used: {problem}")


def _with_images(jobs: list[Job], most: int | None) -> list[Job]:
    """Return the jobs without those whose image would be one too many."""
    if most is None:
        return jobs
    kept, images = [], 0
    for job in jobs:
        images += job.pixels is not None
        if job.pixels is None or images <= most:
            kept.append(job)
    return kept


def text_of(item: Item) -> str:
    """Return the canonical text of an item."""
    return canonical_text(
        title=item.title,
        category=item.category,
        brand=item.brand,
        description=item.description,
        attributes=item.attributes,
        tags=item.tags,
        reviews=item.reviews,
    )
