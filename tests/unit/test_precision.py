"""The choice of a precision: the fastest that passes, measured in turns, judged against float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.artifact import load_spec
from models.encoder import Encoder
from models.precision import CANARIES, Trial, choose, drift, try_out
from tests.support.tiny_model import make_tiny_model

Vectors = npt.NDArray[np.float32]


def unit(rows: int = 64, dim: int = 24, seed: int = 0) -> Vectors:
    """Random unit vectors."""
    found = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    vectors: Vectors = found / np.linalg.norm(found, axis=1, keepdims=True)
    return vectors


class Clock:
    """Time that passes only when a run says so."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.runs: list[str] = []

    def __call__(self) -> float:
        """Seconds since the start."""
        return self.now_s

    def run(self, name: str, seconds: float, vectors: Vectors) -> Callable[[], Vectors]:
        """Return a run that takes so long."""

        def work() -> Vectors:
            self.now_s += seconds
            self.runs.append(name)
            return vectors

        return work


def test_canaries_are_64_different_texts() -> None:
    """Short and long ones, as items have them."""
    assert len(set(CANARIES)) == 64
    assert min(map(len, CANARIES)) < 30
    assert max(map(len, CANARIES)) > 100


def test_precisions_take_turns() -> None:
    """After a warm-up of each they alternate; texts a second are told."""
    clock, vectors = Clock(), unit()
    trials = try_out([("fp32", clock.run("a", 2.0, vectors)), ("bf16", clock.run("b", 0.5, vectors))], 3, clock)
    assert clock.runs == ["a", "b"] * 4
    assert [trial.texts_per_s for trial in trials] == [32.0, 128.0]
    assert choose(trials) == "bf16"


def test_a_hopeless_candidate_is_not_measured_further() -> None:
    """Emulated instructions must not delay the start by minutes."""
    clock, vectors = Clock(), unit()
    trials = try_out([("fp32", clock.run("a", 1.0, vectors)), ("bf16", clock.run("b", 50.0, vectors))], 3, clock)
    assert clock.runs.count("b") == 1
    assert choose(trials) == "fp32"


def test_a_fast_precision_that_drifts_is_refused() -> None:
    """Vectors of another direction and other neighbours do not stand beside float32's."""
    clock = Clock()
    other = unit(seed=1)
    trials = try_out([("fp32", clock.run("a", 2.0, unit())), ("bf16", clock.run("b", 0.5, other))], 3, clock)
    assert not trials[1].passed
    assert choose(trials) == "fp32"


@pytest.mark.parametrize(
    ("cosine", "recall", "passed"), [(0.9995, 0.5, True), (0.99, 0.985, True), (0.998, 0.97, False), (0.98, 1.0, False)]
)
def test_cosine_or_recall_passes(cosine: float, recall: float, passed: bool) -> None:  # noqa: FBT001  # a parameter
    """A cosine of 0.999 for each text, or 0.98 of the nearest ten and no text far off."""
    assert Trial("bf16", 1.0, cosine, recall).passed == passed


def test_a_small_gain_is_noise() -> None:
    """Less than a tenth faster is not worth another precision."""
    assert choose([Trial("fp32", 100.0, 1.0, 1.0), Trial("bf16", 109.0, 1.0, 1.0)]) == "fp32"


def test_a_vector_that_is_not_finite_never_passes() -> None:
    """NaN counts as the worst cosine there is."""
    broken = unit()
    broken[3] = np.nan
    assert drift(unit(), broken)[0] == -1.0
    broken[:] = np.nan
    assert not Trial("bf16", 1.0, *drift(unit(), broken)).passed


def test_the_encoder_measures_and_keeps_what_it_chose(tmp_path: Path) -> None:
    """On CPU `auto` tries both and runs in the choice; a named precision is taken without a measurement."""
    spec = load_spec(make_tiny_model(tmp_path / "tiny"))
    encoder = Encoder(spec, "cpu", threads=1)
    assert [trial.precision for trial in encoder.trials] == ["fp32", "bf16"]
    assert encoder.precision == choose(encoder.trials)
    expected = {"fp32": torch.float32, "bf16": torch.bfloat16}[encoder.precision]
    assert expected == next(encoder._network.model.parameters()).dtype
    forced = Encoder(spec, "cpu", threads=1, precision="bf16")
    assert (forced.precision, forced.trials) == ("bf16", [])


def test_a_processor_without_bf16_keeps_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal by torch is an answer, not an error."""

    def refuse(*_: object) -> list[Trial]:
        raise RuntimeError("not implemented for 'BFloat16'")

    monkeypatch.setattr("models.encoder.try_out", refuse)
    encoder = Encoder(load_spec(make_tiny_model(tmp_path / "tiny")), "cpu", threads=1)
    assert (encoder.precision, encoder.trials) == ("fp32", [])
    assert np.isfinite(encoder.encode(["a blue mug"])).all()
