"""Items encoded by the worker's own steps without Kafka, for measurements and evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import structlog

from streams.encoding.backlog import Backlog, Job, Record
from streams.encoding.images import Images, report
from streams.encoding.preparing import hand_over, prepare
from streams.encoding.seen import Seen
from streams.encoding.watermark import Position
from streams.wire.items import Item

if TYPE_CHECKING:
    from models.encoder import Encoder
    from models.faults import Encoded

_LOG = structlog.get_logger(__name__)


def records_of(items: Iterable[Item]) -> list[Record]:
    """Return items as the shop's records, as if from one partition."""
    return [
        Record(Position("items", 0, offset), shop=True, key=item.item_id.encode(), value=item.encode())
        for offset, item in enumerate(items)
    ]


def jobs_of(items: Iterable[Item], images: Images | None) -> list[Job]:
    """Return what the worker would have to encode if it knew nothing; images that cannot be found are told."""
    admission = Backlog(Seen(""), lambda: 0, images).admit(records_of(items))
    report(admission.unusable)
    _tell([letter.error for letter in admission.refused])
    return admission.fresh


def encode_jobs(encoder: Encoder, images: Images | None, jobs: list[Job]) -> tuple[list[Job], Encoded]:
    """
    Prepare and encode jobs; what has neither a text nor an image that can be used is left out and told.

    Returns
    -------
    (The jobs that are left, their vectors). An image that may be there the next time is left out of its job's hash.

    Raises
    ------
    ModelError
        As `Encoder.encode_items`.

    """
    refused = hand_over(prepare(encoder, images, jobs))
    _tell([rejected.error for _, rejected in refused])
    ready = [job for job in jobs if job.tokens is not None]
    encoded = encoder.encode_items([job.tokens or [] for job in ready], [job.pixels for job in ready])
    _tell(list(encoded.faults.values()))
    return ready, encoded


def _tell(reasons: Sequence[str]) -> None:
    if reasons:
        _LOG.warning("items_without_vector", items=len(reasons), reason=reasons[0])
