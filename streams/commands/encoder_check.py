"""
What `freshet doctor --encoder` measures: precision, drift, padding, the slowest stage, and what it costs.

`streams.commands.image_check` measures images, where the encoder takes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from streams.commands.checks import Check
from streams.commands.encoder_profile import Profile, check_drift, timed
from streams.kafka.deadline import Deadline
from streams.settings import Settings

if TYPE_CHECKING:
    from models.encoder import Encoder

#: Answers that always come; where images count, those of `check_images` follow.
NAMES = ("precision", "drift", "roofline", "padding", "stage", "images")

#: The canary texts so many times, as different items: about a second of work on two cores.
_COPIES = 8


def check_encoder(settings: Settings, _: Deadline) -> Iterator[Check]:
    """Load the encoder as the role does and measure it."""
    from models.encoder import Encoder as Plain
    from models.precision import CANARIES
    from streams.commands.image_check import check_images
    from streams.encoding.source import load_encoder

    encoder = load_encoder(settings)
    yield _precision(encoder)
    exact = Plain(
        encoder.folder,
        "cpu",
        encoder.max_tokens,
        settings.encoder_threads,
        precision="fp32",
        image_weight=encoder.image_weight,
    )
    texts = (exact.encode(CANARIES), encoder.encode(CANARIES))
    yield check_drift("drift", "canary texts", encoder.precision, *texts)
    profile = profile_of(encoder)
    yield profile.check_share("roofline", "tokens", apart=encoder.device.type == "cuda")
    yield Check(
        "padding", "ok", f"{profile.padding:.1%} of the tokens, in batches of at most {encoder.batch_tokens:,} tokens"
    )
    yield profile.check_stage("stage")
    yield from check_images(settings, encoder, exact)


def profile_of(encoder: Encoder) -> Profile:
    """Take the canary texts, as items, through every stage of the encoder."""
    from models.batching import padding_tokens, plan_batches
    from models.precision import CANARIES
    from streams.encoding.backlog import Backlog
    from streams.encoding.direct import records_of
    from streams.encoding.seen import Seen
    from streams.wire.items import Item
    from streams.wire.vectors import encode_vector

    records = records_of(Item(str(number), title=text) for number, text in enumerate(CANARIES * _COPIES))
    backlog = Backlog(Seen(encoder.fingerprint), lambda: 0)
    seconds = {}
    admission, seconds["decode"] = timed(lambda: backlog.admit(records))
    jobs = admission.fresh
    tokens, seconds["tokenize"] = timed(lambda: encoder.tokenize([job.text for job in jobs]))
    encoder.encode_tokens(tokens[: len(CANARIES)])
    encoded, seconds["encode"] = timed(lambda: encoder.encode_tokens(tokens))
    _, seconds["record"] = timed(
        lambda: [encode_vector(job.content_hash, row) for job, row in zip(jobs, encoded.vectors, strict=True)]
    )
    lengths = [len(ids) for ids in tokens]
    plan = plan_batches(lengths, encoder.batch_tokens, encoder.batch_cost_tokens)
    added = sum(padding_tokens([lengths[row] for row in batch]) for batch in plan)
    return Profile(seconds, sum(lengths), added / (sum(lengths) + added))


def _precision(encoder: Encoder) -> Check:
    told = "; ".join(
        f"{trial.precision} {trial.texts_per_s:,.0f} texts/s, worst cosine {trial.worst_cosine:.5f}, "
        f"recall@10 {trial.recall_at_10:.3f}"
        for trial in encoder.trials
    )
    return Check(
        "precision", "ok", f"{encoder.precision} on {encoder.device}{f': {told}' if told else ', not measured'}"
    )
