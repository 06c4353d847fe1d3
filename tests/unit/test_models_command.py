"""The rules of a model upgrade without a broker: gates, overlap, refusals, help."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from models.overlap import neighbour_overlap
from models.ranking import unit
from streams.cli import app
from streams.commands.models import DEFAULT_MIN_OVERLAP
from streams.commands.spaces import Named, Space, Survey
from streams.wire.models import Served

OLD, NEW = "0" * 16, "1" * 16
#: A port nobody listens on.
_NOWHERE = {"FRESHET_KAFKA_BOOTSTRAP": "127.0.0.1:1", "FRESHET_KAFKA_TIMEOUT_S": "0.2"}


def refusal(
    *, covered: int, outdated: int = 0, items: int = 1_000, overlap: float | None = 0.5, served: bool = True
) -> str | None:
    """Judge a new space of a catalogue."""
    space = Space(NEW, "new", 2, covered, outdated, covered, "other", overlap)
    named = Named(Served(OLD, 2) if served else None, {})
    return Survey(named, items, {NEW: space}).refusal(space, 0.2)


@pytest.mark.parametrize(("covered", "may"), [(1_000, True), (999, True), (998, False), (0, False)])
def test_coverage_gate(*, covered: int, may: bool) -> None:
    """One item in a thousand may be without a vector, not two."""
    assert may == (refusal(covered=covered) is None)


def test_vectors_of_older_texts_are_told() -> None:
    """They look like coverage, and are none: an encoder is behind."""
    assert "covers 900 of 1000 items with a text (90.00%), 99 more by an older text;" in str(
        refusal(covered=900, outdated=99)
    )


def test_an_empty_catalogue_covers_nothing() -> None:
    """Without items there is nothing that a gate could go by."""
    assert "covers 0 of 0 items" in str(refusal(covered=0, items=0))


@pytest.mark.parametrize(("overlap", "sentence"), [(0.2, "None"), (0.19, "agree on 19.0%"), (None, "in common with")])
def test_overlap_gate(overlap: float | None, sentence: str) -> None:
    """Two spaces agree enough, too little, or cannot be compared."""
    assert sentence in str(refusal(covered=1_000, overlap=overlap))


def test_the_first_model_needs_no_overlap() -> None:
    """Where nothing is served there is nothing to agree with; coverage still counts."""
    assert refusal(covered=1_000, overlap=None, served=False) is None
    assert refusal(covered=1, overlap=None, served=False) is not None


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 60))
def test_overlap_is_the_mean_recall_of_neighbours(seed: int, rows: int, queries: int) -> None:
    """It is what sorting all neighbours of each query gives, and the same the other way round."""
    random = np.random.default_rng(seed)
    old, new = (unit(random.normal(size=(rows, dim)).astype(np.float32)) for dim in (4, 6))
    wanted = min(10, rows - 1)

    def nearest(space: np.ndarray[tuple[int, ...], np.dtype[np.float32]], row: int) -> set[int]:
        scores = space[row] @ space.T
        return set([other for other in np.argsort(-scores).tolist() if other != row][:wanted])

    asked = range(min(queries, rows))
    expected = np.mean([len(nearest(old, row) & nearest(new, row)) / wanted for row in asked])
    assert neighbour_overlap(old, new, queries) == pytest.approx(expected)
    assert neighbour_overlap(new, old, queries) == pytest.approx(expected)


def test_spaces_by_chance_do_not_pass() -> None:
    """Vectors that have nothing to do with each other stay far below the gate, turned ones agree wholly."""
    random = np.random.default_rng(1)
    space = unit(random.normal(size=(500, 16)).astype(np.float32))
    turned = np.ascontiguousarray(space[:, ::-1])
    by_chance = neighbour_overlap(space, space[random.permutation(500)], 300)
    assert neighbour_overlap(space, turned, 300) == pytest.approx(1.0, abs=0.01)
    assert by_chance is not None
    assert by_chance < DEFAULT_MIN_OVERLAP / 2


@pytest.mark.parametrize("command", ["status", "promote", "rollback", "retire"])
def test_help_has_examples(command: str) -> None:
    """Each command explains itself with an example that begins with its own name."""
    result = CliRunner().invoke(app, ["models", command, "--help"])
    assert 0 == result.exit_code
    assert f"freshet models {command}" in result.stdout


@pytest.mark.parametrize("command", ["promote", "retire"])
def test_a_fingerprint_is_checked_first(command: str) -> None:
    """What cannot be a fingerprint is told in a sentence, before Kafka is asked."""
    result = CliRunner().invoke(app, ["models", command, "all-MiniLM"], env=_NOWHERE)
    assert (1, "") == (result.exit_code, result.stdout)
    assert "FINGERPRINT has 16 hexadecimal digits" in result.stderr


@pytest.mark.parametrize("arguments", [["status"], ["promote", NEW], ["rollback"], ["retire", NEW]])
def test_kafka_away_is_exit_code_4(arguments: list[str]) -> None:
    """Without Kafka a command ends at its deadline with the exit code of a missing dependency."""
    result = CliRunner().invoke(app, ["models", *arguments], env=_NOWHERE)
    assert 4 == result.exit_code
    assert "Kafka at 127.0.0.1:1 did not answer" in " ".join(result.stderr.split())
