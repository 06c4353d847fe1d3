"""`freshet doctor --encoder` on tiny real models: every figure is told, of images too, and drift is a failure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streams.commands.encoder_check import NAMES, check_encoder, profile_of
from streams.commands.encoder_profile import Profile
from streams.commands.image_check import image_profile_of
from streams.encoding.source import load_encoder
from streams.errors import ConfigurationError
from streams.kafka.deadline import Deadline
from streams.settings import Settings
from tests.support.flights import Landed, forward_by, forward_of
from tests.support.tiny_model import make_tiny_clip, make_tiny_model


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A tiny model on one thread."""
    return Settings(model_path=make_tiny_model(tmp_path / "tiny"), device="cpu", encoder_threads=1)


@pytest.fixture
def clip_settings(tmp_path: Path) -> Settings:
    """A tiny model for texts and images, and an empty folder of images."""
    root = tmp_path / "images"
    root.mkdir()
    model = make_tiny_clip(tmp_path / "clip")
    return Settings(model_path=model, image_root=root, device="cpu", encoder_threads=1, encoder_batch_images=10)


def test_every_figure_is_told(settings: Settings) -> None:
    """Precision with its measurements, drift, share of the forward pass, padding and stages, none of them failing."""
    checks = {check.name: check for check in check_encoder(settings, Deadline(60))}
    assert tuple(checks) == NAMES
    assert "fail" not in {check.status for check in checks.values()}
    assert "bf16" in checks["precision"].message
    assert "tokens/s" in checks["roofline"].message
    assert all(stage in checks["stage"].message for stage in ("decode", "tokenize", "encode", "record"))
    assert checks["images"].message.startswith("none are taken")


def test_every_figure_of_images_is_told(clip_settings: Settings) -> None:
    """Limits, drift, speed and stages follow those of texts; the made pictures need not keep the limits."""
    narrow = clip_settings.model_copy(update={"image_max_bytes": 1_000})
    checks = {check.name: check for check in check_encoder(narrow, Deadline(60))}
    assert tuple(checks) == (*NAMES, "image drift", "image speed", "image stage")
    assert "fail" not in {check.status for check in checks.values()}
    assert "at most 1,000 bytes" in checks["images"].message
    assert "images/s" in checks["image speed"].message
    assert all(stage in checks["image stage"].message for stage in ("decode", "prepare", "encode", "record"))


def test_every_made_picture_is_encoded(clip_settings: Settings) -> None:
    """One full batch of them, by the code that the worker prepares images with."""
    profile = image_profile_of(clip_settings, load_encoder(clip_settings))
    assert profile.units == 10
    assert min(profile.seconds.values()) > 0


def test_a_folder_of_images_that_is_gone_is_told(clip_settings: Settings) -> None:
    """As the worker would end with it."""
    gone = clip_settings.model_copy(update={"image_root": Path("/none")})
    with pytest.raises(ConfigurationError, match="FRESHET_IMAGE_ROOT"):
        list(check_encoder(gone, Deadline(60)))


def test_images_that_moved_are_a_failure(clip_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that computes something else of images must not look healthy, however good its texts are."""
    encoder = load_encoder(clip_settings)
    real = encoder._network.images
    monkeypatch.setattr(encoder._network, "images", lambda pixels: Landed(np.roll(real(pixels).result(), 1, axis=1)))
    monkeypatch.setattr("streams.encoding.source.load_encoder", lambda _settings: encoder)
    statuses = {check.name: check.status for check in check_encoder(clip_settings, Deadline(60))}
    assert (statuses["drift"], statuses["image drift"]) == ("ok", "fail")


def test_vectors_that_moved_are_a_failure(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that computes something else must not look healthy."""
    encoder = load_encoder(settings)
    forward = forward_of(encoder)
    forward_by(monkeypatch, encoder, lambda tokens: np.roll(forward(tokens), 1, axis=1))
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
