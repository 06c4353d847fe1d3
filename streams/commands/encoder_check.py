"""What `freshet doctor --encoder` measures: precision, drift, padding, the slowest stage, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from streams.commands.checks import Check
from streams.kafka.deadline import Deadline
from streams.settings import Settings

if TYPE_CHECKING:
    from models.encoder import Encoder

NAMES = ("precision", "drift", "roofline", "padding", "stage")

#: The canary texts so many times, as different items: about a second of work on two cores.
_COPIES = 8
#: The worker keeps a device at least this busy; below, something beside it costs too much.
_GOOD_SHARE = 0.85

T = TypeVar("T")


class Profile(NamedTuple):
    """
    One pass of items through the stages, one stage after the other and without Kafka.

    Attributes
    ----------
    seconds
        Stage to seconds.
    padding
        Share of the tokens that the device works on and nobody needs.

    """

    seconds: dict[str, float]
    tokens: int
    padding: float

    @property
    def limiting(self) -> str:
        """The slowest stage."""
        return max(self.seconds, key=lambda stage: self.seconds[stage])

    def share(self, *, apart: bool) -> float:
        """
        Return how much of the bare forward pass is left when the other stages run beside it.

        On a GPU (`apart`) they cost nothing until one is slower than the device; a CPU's cores are shared.

        >>> Profile({"decode": 1.0, "encode": 4.0}, 100, 0.0).share(apart=False)
        0.8
        """
        encode_s = self.seconds["encode"]
        return encode_s / (max(self.seconds.values()) if apart else sum(self.seconds.values()))


def check_encoder(settings: Settings, _: Deadline) -> Iterator[Check]:
    """Load the encoder as the role does and measure it."""
    from streams.encoding.source import load_encoder

    encoder = load_encoder(settings)
    yield _precision(encoder)
    yield _drift(settings, encoder)
    profile = profile_of(encoder)
    share = profile.share(apart=encoder.device.type == "cuda")
    rate = profile.tokens / profile.seconds["encode"]
    yield Check(
        "roofline",
        "ok" if share >= _GOOD_SHARE else "warn",
        f"{share:.0%} of the bare forward pass, which runs at {rate:,.0f} tokens/s",
    )
    yield Check(
        "padding", "ok", f"{profile.padding:.1%} of the tokens, in batches of at most {encoder.batch_tokens:,} tokens"
    )
    told = ", ".join(f"{stage} {seconds * 1000:.0f} ms" for stage, seconds in profile.seconds.items())
    yield Check("stage", "ok", f"{profile.limiting} limits: {told}")


def profile_of(encoder: Encoder) -> Profile:
    """Take the canary texts, as items, through every stage of the encoder."""
    from models.batching import padding_tokens, plan_batches
    from models.precision import CANARIES
    from streams.encoding.backlog import Backlog, Record
    from streams.encoding.seen import Seen
    from streams.encoding.watermark import Position
    from streams.wire.items import Item
    from streams.wire.vectors import encode_vector

    items = [Item(str(number), title=text) for number, text in enumerate(CANARIES * _COPIES)]
    records = [
        Record(Position("items", 0, offset), shop=True, key=item.item_id.encode(), value=item.encode())
        for offset, item in enumerate(items)
    ]
    backlog = Backlog(Seen(encoder.fingerprint), lambda: 0)
    seconds = {}
    admission, seconds["decode"] = _timed(lambda: backlog.admit(records))
    jobs = admission.fresh
    tokens, seconds["tokenize"] = _timed(lambda: encoder.tokenize([job.text for job in jobs]))
    encoder.encode_tokens(tokens[: len(CANARIES)])
    encoded, seconds["encode"] = _timed(lambda: encoder.encode_tokens(tokens))
    _, seconds["record"] = _timed(
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


def _drift(settings: Settings, encoder: Encoder) -> Check:
    """Compare with float32 on the CPU, however the precision was chosen."""
    from models.encoder import Encoder as Plain
    from models.precision import CANARIES, Trial, drift

    plain = Plain(encoder.folder, "cpu", encoder.max_tokens, settings.encoder_threads, precision="fp32")
    cosine, recall = drift(plain.encode(CANARIES), encoder.encode(CANARIES))
    passed = Trial(encoder.precision, 0.0, cosine, recall).passed
    return Check(
        "drift",
        "ok" if passed else "fail",
        f"{len(CANARIES)} canary texts against fp32: worst cosine {cosine:.5f}, recall@10 {recall:.3f}",
    )


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began
