"""Experiments: what definitions are refused, overrides, live changes, what a variant does to the ranking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from models.ranking import RankingParameters
from streams.errors import ConfigurationError, RecordFormatError
from streams.experiments.assignment import Experiments
from streams.experiments.definitions import Experiment, decode_experiment, load_file

PLAIN: dict[str, Any] = {
    "key": "long-or-short",
    "revision": 3,
    "variants": [{"name": "control"}, {"name": "long", "ranking": {"long": 0.9, "exclude_seen": False}}],
}


def made(**changes: Any) -> Experiment:
    """Return an experiment as a record would define it."""
    return decode_experiment("long-or-short", orjson.dumps({**PLAIN, **changes}))


def test_a_file_is_read(tmp_path: Path) -> None:
    """The file format is one object with a list of experiments."""
    path = tmp_path / "experiments.json"
    path.write_bytes(orjson.dumps({"experiments": [PLAIN]}))
    assert load_file(path) == [made()]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "Invalid JSON"),
        ('{"experiments": [{}]}', "experiments.0.key: Field required"),
        (orjson.dumps({"experiments": [PLAIN, PLAIN]}).decode(), "defined twice"),
    ],
)
def test_a_bad_file_is_refused_with_a_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    """The operator reads which file and what is wrong with it."""
    path = tmp_path / "experiments.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        load_file(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A file that is not there is a configuration error, not an empty set of experiments."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_file(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"variants": []}, "at least 1"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, "same name"),
        ({"variants": [{"name": "a", "weight": 0}]}, "sum to 0"),
        ({"variants": [{"name": "a", "weight": -1}]}, "greater than or equal to 0"),
        ({"variants": [{"name": "a", "ranking": {"popularty": 1}}]}, "unknown ranking parameter 'popularty'"),
        ({"variants": [{"name": "a", "ranking": {"popularity": True}}]}, "must be a number"),
        ({"variants": [{"name": "a", "ranking": {"exclude_seen": 1}}]}, "must be true or false"),
        ({"variants": [{"name": "a", "ranking": {"popularity": -1}}]}, "must lie in"),
        ({"coverage": 1.1}, "less than or equal to 1"),
        ({"overrides": {"u": "nobody"}}, "unknown variant 'nobody'"),
        ({"unit": "session"}, "Input should be 'user'"),
        ({"key": "_version"}, "should match pattern"),
        ({"key": "another"}, "the record's key is"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_bad_definitions_are_refused(changes: dict[str, Any], sentence: str) -> None:
    """Whatever cannot be is refused when it is defined, not when a list is made."""
    with pytest.raises(RecordFormatError, match=sentence):
        made(**changes)


def test_overrides_force_whoever_they_name() -> None:
    """An override holds outside the coverage too, and is marked."""
    experiments = Experiments([made(coverage=0, overrides={"qa": "long"})])
    assert experiments.assign("u") == {}
    forced = experiments.assign("qa")["long-or-short"]
    assert (forced.variant, forced.revision, forced.forced) == ("long", 3, True)


def test_a_disabled_experiment_assigns_nobody() -> None:
    """Not even by override."""
    assert Experiments([made(enabled=False, overrides={"qa": "long"})]).assign("qa") == {}


def test_a_variant_changes_the_ranking() -> None:
    """Its parameters replace the policy's, the others stay; without a part the policy's hold."""
    base = RankingParameters(short=0.3, long=0.2)
    experiments = Experiments([made(overrides={"a": "control", "b": "long"})], base)
    assert experiments.parameters({}) == base
    assert experiments.parameters(experiments.assign("a")) == base
    expected = RankingParameters(short=0.3, long=0.9, exclude_seen=False)
    assert expected == experiments.parameters(experiments.assign("b"))


def test_definitions_change_live() -> None:
    """A record replaces or removes one experiment; the set it came from stays as it was."""
    before = Experiments([made(coverage=0)])
    after = before.told("long-or-short", orjson.dumps({**PLAIN, "revision": 4}))
    assert before.assign("u") == {}
    assert after.assign("u")["long-or-short"].revision == 4
    assert after.told("long-or-short", None).definitions == {}
    assert after.told("never met", None).definitions == after.definitions


def test_a_bad_record_changes_nothing() -> None:
    """The old definition stays in force."""
    before = Experiments([made()])
    assert before.told("long-or-short", b"{}").definitions == before.definitions
