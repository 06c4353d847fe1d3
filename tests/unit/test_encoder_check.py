"""`freshet doctor --encoder` on a tiny real model: every figure is told, and drift is a failure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from streams.commands.encoder_check import NAMES, Profile, check_encoder, profile_of
from streams.encoding.source import load_encoder
from streams.kafka.deadline import Deadline
from streams.settings import Settings
from tests.support.tiny_model import make_tiny_model


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A tiny model on one thread."""
    return Settings(model_path=make_tiny_model(tmp_path / "tiny"), device="cpu", encoder_threads=1)


def test_every_figure_is_told(settings: Settings) -> None:
    """Precision with its measurements, drift, share of the forward pass, padding and stages, none of them failing."""
    checks = {check.name: check for check in check_encoder(settings, Deadline(60))}
    assert tuple(checks) == NAMES
    assert "fail" not in {check.status for check in checks.values()}
    assert "bf16" in checks["precision"].message
    assert "tokens/s" in checks["roofline"].message
    assert all(stage in checks["stage"].message for stage in ("decode", "tokenize", "encode", "record"))


def test_vectors_that_moved_are_a_failure(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that computes something else must not look healthy."""
    encoder = load_encoder(settings)
    forward = encoder._forward

    def turned(tokens: list[list[int]]) -> npt.NDArray[np.float32]:
        return np.roll(forward(tokens), 1, axis=1)

    monkeypatch.setattr(encoder, "_forward", turned)
    monkeypatch.setattr("streams.encoding.source.load_encoder", lambda _settings: encoder)
    statuses = {check.name: check.status for check in check_encoder(settings, Deadline(60))}
    assert statuses["drift"] == "fail"


def test_the_limiting_stage_is_the_slowest(settings: Settings) -> None:
    """Stages beside a GPU cost nothing until one is slower than it."""
    profile = Profile({"decode": 1.0, "encode": 4.0, "record": 5.0}, 100, 0.0)
    assert (profile.limiting, profile.share(apart=True), profile.share(apart=False)) == ("record", 0.8, 0.4)
    measured = profile_of(load_encoder(settings))
    assert 0 <= measured.padding < 0.5
    assert min(measured.seconds.values()) > 0
