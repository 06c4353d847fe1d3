"""What `freshet doctor --encoder` tells of images: limits, drift, speed and the slowest stage, on made pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streams.commands.checks import Check
from streams.commands.encoder_profile import Profile, check_drift, timed
from streams.settings import Settings

if TYPE_CHECKING:
    from models.encoder import Encoder

#: Of a vector's ten nearest among them recall is told, so more than ten; each takes tenths of a second of a small
#: model on a CPU.
_CANARIES = 16
#: Different picture files, each that of many items, as shops have them: width and height.
_FILES = 8
_FILE_SIZE = (1_000, 750)
#: Bytes and pixels that such a file stays below; limits that are lower are told, not measured with.
_FILE_LIMIT = 1_000_000


def check_images(settings: Settings, encoder: Encoder, exact: Encoder) -> Iterator[Check]:
    """Measure images where the encoder takes them; `exact` is its twin in float32 on the CPU."""
    from models.artifact import preprocessing_of
    from models.images import FORMATS, canary_images
    from streams.encoding.source import images_of

    images = images_of(settings, encoder.folder)
    if images is None:
        yield Check("images", "ok", "none are taken: the model or the settings are for texts alone")
        return
    images.close()
    size = preprocessing_of(encoder.folder).size
    yield Check(
        "images",
        "ok",
        f"{', '.join(FORMATS)} below {settings.image_root}, at most {settings.image_max_bytes:,} bytes and "
        f"{settings.image_max_pixels:,} pixels each, made {size} x {size}, at most {encoder.batch_images:,} a batch",
    )
    pixels = list(canary_images(_CANARIES, size))
    vectors = [one.encode_items([[]] * len(pixels), pixels).vectors for one in (exact, encoder)]
    yield check_drift("image drift", "canary images", encoder.precision, *vectors)
    profile = image_profile_of(settings, encoder)
    yield profile.check_share("image speed", "images", apart=encoder.device.type == "cuda")
    yield profile.check_stage("image stage")


def image_profile_of(settings: Settings, encoder: Encoder) -> Profile:
    """Take a full batch of picture files, as items without a text, through every stage of the encoder."""
    from streams.encoding.backlog import Backlog
    from streams.encoding.direct import records_of
    from streams.encoding.preparing import hand_over, prepare
    from streams.encoding.seen import Seen
    from streams.encoding.source import images_of
    from streams.wire.items import Item
    from streams.wire.vectors import encode_vector

    seconds = {}
    limits = {
        "image_max_bytes": max(settings.image_max_bytes, _FILE_LIMIT),
        "image_max_pixels": max(settings.image_max_pixels, _FILE_LIMIT),
    }
    with tempfile.TemporaryDirectory(prefix="freshet-images-") as folder:
        names = _write_pictures(Path(folder))
        images = images_of(settings.model_copy(update={"image_root": Path(folder), **limits}), encoder.folder)
        assert images is not None
        count = encoder.batch_images
        records = records_of(Item(str(number), image_url=names[number % len(names)]) for number in range(count))
        backlog = Backlog(Seen(encoder.fingerprint), lambda: 0, images)
        admission, seconds["decode"] = timed(lambda: backlog.admit(records))
        jobs = admission.fresh
        prepared, seconds["prepare"] = timed(lambda: prepare(encoder, images, jobs))
        images.close()
    hand_over(prepared)
    pixels = [job.pixels for job in jobs]
    encoded, seconds["encode"] = timed(lambda: encoder.encode_items([[]] * len(jobs), pixels))
    _, seconds["record"] = timed(
        lambda: [encode_vector(job.content_hash, row) for job, row in zip(jobs, encoded.vectors, strict=True)]
    )
    return Profile(seconds, len(jobs))


def _write_pictures(folder: Path) -> list[str]:
    """Write soft shapes with some grain, which compress as photographs do; return the names."""
    from PIL import Image

    random = np.random.default_rng(0)
    width, height = _FILE_SIZE
    names = [f"{number}.jpg" for number in range(_FILES)]
    for name in names:
        shapes = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).resize(_FILE_SIZE)
        grain = random.normal(0, 6, (height, width, 3))
        picture = np.clip(np.asarray(shapes) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / name, "JPEG", quality=88)
    return names
