"""Between the backlog and the device: texts become tokens, image files pixels; what has neither is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from models.errors import ImageError
from models.text import content_hash
from streams import metrics
from streams.encoding.backlog import Job, bad_image
from streams.encoding.images import Images, Pixels, report
from streams.wire.limits import Rejected

if TYPE_CHECKING:
    from models.encoder import Encoder
    from models.faults import Tokenized

#: The file may be there, or readable, the next time: these items do not count as encoded with their image.
_PASSING = frozenset({"missing", "unreadable"})


class Prepared(NamedTuple):
    """
    Jobs and what was made of them.

    Attributes
    ----------
    cut
        Texts that were cut at the model's limit.
    images
        Position of a job with an image to its pixels, or to why there are none.

    """

    jobs: list[Job]
    tokenized: Tokenized
    cut: int
    images: dict[int, Pixels | ImageError]


def prepare(encoder: Encoder, images: Images | None, jobs: list[Job]) -> Prepared:
    """Tokenise, and read images; on the tokenizer's thread."""
    with metrics.ENCODER_SECONDS.labels("tokenize").time():
        before = encoder.truncated
        tokenized = encoder.tokenize_texts([job.text for job in jobs])
        cut = encoder.truncated - before
    if images is None:
        return Prepared(jobs, tokenized, cut, {})
    with metrics.ENCODER_SECONDS.labels("images").time():
        return Prepared(jobs, tokenized, cut, images.load([job.image for job in jobs]))


def hand_over(prepared: Prepared) -> list[tuple[Job, Rejected]]:
    """Give the jobs what was made of them, which makes them ready; return those with nothing to encode."""
    tokens, faults = prepared.tokenized
    metrics.ENCODER_TRUNCATED.inc(prepared.cut)
    refused: list[tuple[Job, Rejected]] = []
    problems: list[tuple[str, ImageError]] = []
    for place, job in enumerate(prepared.jobs):
        image = prepared.images.get(place)
        if isinstance(image, ImageError):
            problems.append((job.item_id, image))
            if image.outcome in _PASSING:
                job.content_hash = content_hash(job.text)
            image = None
        if (fault := faults.get(place)) is not None:
            refused.append((job, no_vector(job, fault)))
        elif job.text or image is not None:
            job.pixels = image
            job.tokens = tokens[place] if job.text else []
        else:
            refused.append((job, bad_image(job.item_id, problems[-1][1])))
    report(problems)
    return refused


def no_vector(job: Job, fault: str) -> Rejected:
    """Refuse an item that the model or its tokenizer does not take."""
    return Rejected("bad_model_output", f"item {job.item_id} has no vector: {fault}")
