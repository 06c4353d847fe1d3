"""What an encoder's stages took, how far its vectors are from exact ones, and what `freshet doctor` says of both."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from streams.commands.checks import Check

if TYPE_CHECKING:
    from models.precision import Precision

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
    units
        Tokens of texts, or images.
    padding
        Share of the tokens that the device works on and nobody needs.

    """

    seconds: dict[str, float]
    units: int
    padding: float = 0.0

    @property
    def limiting(self) -> str:
        """The slowest stage."""
        return max(self.seconds, key=lambda stage: self.seconds[stage])

    def share(self, *, apart: bool) -> float:
        """
        Return how much of the bare forward pass is left when the other stages run beside it.

        On a GPU (`apart`) they cost nothing until one is slower than the device; a CPU's cores are shared.

        >>> Profile({"decode": 1.0, "encode": 4.0}, 100).share(apart=False)
        0.8
        """
        encode_s = self.seconds["encode"]
        return encode_s / (max(self.seconds.values()) if apart else sum(self.seconds.values()))

    def check_share(self, name: str, unit: str, *, apart: bool) -> Check:
        """Tell that share, and how many units a second the bare forward pass makes."""
        share = self.share(apart=apart)
        rate = self.units / self.seconds["encode"]
        return Check(
            name,
            "ok" if share >= _GOOD_SHARE else "warn",
            f"{share:.0%} of the bare forward pass, which runs at {rate:,.0f} {unit}/s",
        )

    def check_stage(self, name: str) -> Check:
        """Tell which stage limits, and what each takes."""
        told = ", ".join(f"{stage} {seconds * 1000:.0f} ms" for stage, seconds in self.seconds.items())
        return Check(name, "ok", f"{self.limiting} limits: {told}")


def check_drift(
    name: str, what: str, precision: Precision, exact: npt.NDArray[np.float32], found: npt.NDArray[np.float32]
) -> Check:
    """Tell how far canary vectors (n, d), float32 unit rows, are from float32's of the CPU; too far is a failure."""
    from models.precision import Trial, drift

    cosine, recall = drift(exact, found)
    passed = Trial(precision, 0.0, cosine, recall).passed
    return Check(
        name,
        "ok" if passed else "fail",
        f"{len(exact)} {what} against fp32: worst cosine {cosine:.5f}, recall@10 {recall:.3f}",
    )


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what the work gives, and its seconds."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began
