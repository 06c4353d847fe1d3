"""A learned scorer in rankings: what it moves, for whom, and when it says nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from models.ranking import RankingParameters
from models.scorer import SILENT, Scorer, direction
from models.scorer_file import TrainedScorer, save_scorer
from streams.catalogue.matrix import Catalogue
from streams.errors import ConfigurationError
from streams.experiments.assignment import Experiments
from streams.experiments.definitions import Experiment
from streams.refresh.rank import Ranked, Ranker
from streams.refresh.scoring import Scoring
from streams.roles.worker import Worker, _follow
from streams.settings import Settings
from streams.wire.events import TYPE_CODES
from streams.wire.items import Item
from streams.wire.models import Served
from tests.support.ranking import Asked, users_of
from tests.support.scoring import random_scorer, sigma_of_f

NOW_MS = 1_700_000_000_000
DIM, ITEMS = 8, 40
FINGERPRINT = "00000000feedbeef"
ON = RankingParameters(network=1.5)
NOTHING = np.zeros(DIM, np.float32)


def shop(items: int = ITEMS) -> Catalogue:
    """Return items with random vectors."""
    random = np.random.default_rng(5)
    catalogue = Catalogue()
    catalogue.stage(Served(FINGERPRINT, DIM))
    catalogue.switch()
    for number in range(items):
        vector = random.standard_normal(DIM).astype(np.float32)
        catalogue.upsert_item(Item(f"i{number:02}"))
        catalogue.set_vector(f"i{number:02}", vector / np.linalg.norm(vector))
    return catalogue


CATALOGUE = shop()


def asked(seed: int, parameters: RankingParameters = ON) -> Asked:
    """Return a user with a taste of its own, and an event."""
    short, long = np.random.default_rng(seed).standard_normal((2, DIM)).astype(np.float32)
    recent = [(NOW_MS - 1000, f"i{seed % ITEMS:02}", TYPE_CODES["clicks"])]
    return Asked(short, long, NOTHING, recent, (), parameters, NOW_MS)


def file(folder: Path, scorer: Scorer, fingerprint: str = FINGERPRINT) -> Path:
    """Write a scorer."""
    path = folder / "scorer.safetensors"
    save_scorer(TrainedScorer(scorer, fingerprint), path)
    return path


def lists(path: Path | None, *users: Asked, size: int = ITEMS) -> list[Ranked]:
    """Return the list of each user, ranked together."""
    return Ranker(CATALOGUE, Settings(list_size=size, scorer_file=path)).rank(users_of(users, CATALOGUE))


def ids(ranked: Ranked) -> list[str]:
    """Return what is listed."""
    return list(ranked.item_ids)


def test_what_the_scorer_says_is_added_to_every_score(tmp_path: Path) -> None:
    """By its weight, in 0..1; so the order changes."""
    scorer = random_scorer(3, DIM)
    without, made = lists(None, asked(1))[0], lists(file(tmp_path, scorer), asked(1))[0]
    user = direction(asked(1).short[None], asked(1).long[None])[0]
    before = {item.item_id: item.score for item in without.items}
    for item in made.items:
        said = sigma_of_f(scorer, user.tolist(), CATALOGUE.vectors[CATALOGUE.row(item.item_id)].tolist())
        assert pytest.approx(before[item.item_id] + 1.5 * said, abs=2e-5) == item.score
    assert ids(without) != ids(made)
    assert sorted(ids(without)) == sorted(ids(made))


def test_it_can_lift_an_item_that_was_not_on_the_list(tmp_path: Path) -> None:
    """The pool is larger than the list."""
    path = file(tmp_path, random_scorer(3, DIM))
    without, made = lists(None, asked(1), size=5)[0], lists(path, asked(1), size=5)[0]
    assert set(ids(made)) - set(ids(without))


def test_reasons_and_sources_stay_what_they_were(tmp_path: Path) -> None:
    """The scorer's part is in the score, and in nothing that is told of events."""
    path = file(tmp_path, random_scorer(3, DIM))
    without, made = lists(None, asked(1))[0], lists(path, asked(1))[0]
    assert {item.item_id: (item.because, item.source) for item in without.items} == {
        item.item_id: (item.because, item.source) for item in made.items
    }
    assert any(item.because for item in made.items)


def test_a_list_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    """Alone, among others, with others whose weight is another or 0: the same bytes."""
    path = file(tmp_path, random_scorer(5, DIM))
    weights = (0.0, 0.3, 1.5)
    users = [asked(seed, RankingParameters(network=weights[seed % 3])) for seed in range(30)]
    users[7] = users[7]._replace(short=NOTHING, long=NOTHING)
    together = lists(path, *users)
    assert [lists(path, one)[0] for one in users] == together
    assert list(reversed(lists(path, *reversed(users)))) == together


def test_a_variant_turns_it_on(tmp_path: Path) -> None:
    """Of two users alike, the one in the variant with `network` gets another list; the other's is as without."""
    experiment = Experiment.model_validate(
        {
            "key": "scorer",
            "variants": [{"name": "off"}, {"name": "on", "ranking": {"network": 1.5}}],
            "overrides": {"a": "off", "b": "on"},
        }
    )
    experiments = Experiments([experiment])
    users = [asked(1, experiments.parameters(experiments.assign(user_id))) for user_id in ("a", "b")]
    off, on = lists(file(tmp_path, random_scorer(3, DIM)), *users)
    plain = lists(None, asked(1, RankingParameters()))[0]
    assert plain == off
    assert plain != on


def test_users_without_a_direction_are_listed_as_without(tmp_path: Path) -> None:
    """Whose vectors are zeros, or cancel each other out, has nothing that the scorer could read."""
    path = file(tmp_path, random_scorer(3, DIM))
    nobody = asked(1)._replace(short=NOTHING, long=NOTHING)
    torn = asked(1)._replace(short=asked(1).short, long=-asked(1).short)
    assert lists(None, nobody, torn) == lists(path, nobody, torn)


def said(name: str) -> float | None:
    """Return the value of a metric."""
    return REGISTRY.get_sample_value(name)


def test_it_is_silent_in_another_vector_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of vectors it was not taught on it says nothing, and that is told: by a metric, and once in the log."""
    path = file(tmp_path, random_scorer(3, DIM), fingerprint="f" * 16)
    ranker = Ranker(CATALOGUE, Settings(scorer_file=path))
    users = users_of([asked(1)], CATALOGUE)
    for _ in range(3):
        assert lists(None, asked(1), size=20) == ranker.rank(users)
    assert (0.0, 1) == (said("freshet_scorer_speaks"), capsys.readouterr().out.count("scorer_silent"))
    lists(file(tmp_path, random_scorer(3, DIM)), asked(1))
    assert said("freshet_scorer_speaks") == 1.0


def test_it_is_silent_where_vectors_have_another_dimension(tmp_path: Path) -> None:
    """Whatever its fingerprint says."""
    path = file(tmp_path, random_scorer(3, DIM + 1))
    assert Scoring(path).of(FINGERPRINT, DIM) is SILENT
    assert Scoring(None).of(FINGERPRINT, DIM) is SILENT


def test_a_file_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    """The sentence names the setting."""
    with pytest.raises(ConfigurationError, match="FRESHET_SCORER_FILE is not usable"):
        Worker(Settings(scorer_file=tmp_path / "nothing.safetensors"))


def test_a_worker_takes_the_file_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next list is scored by what the file holds now; one that cannot be used changes nothing."""
    path = file(tmp_path, random_scorer(1, DIM))
    monkeypatch.setattr("streams.roles.worker._RANKING_WATCH_S", 0.01)
    role = Worker(Settings(scorer_file=path))
    scoring: Scoring = role._publisher.scoring

    def hidden() -> int:
        return len(scoring.of(FINGERPRINT, DIM).outer)

    async def edited() -> list[int]:
        following = asyncio.create_task(_follow(path, scoring.read))
        found = [hidden()]
        for number, content in enumerate((random_scorer(2, DIM), None)):
            if content is None:
                path.write_bytes(b"damaged")
            else:
                save_scorer(TrainedScorer(content, FINGERPRINT), path)
            os.utime(path, ns=(number + 1, number + 1))
            await asyncio.sleep(0.2)
            found.append(hidden())
        following.cancel()
        return found

    assert [1, 2, 2] == asyncio.run(edited())


@pytest.mark.parametrize("steadiness", [0.0, 0.5])
def test_what_is_made_of_the_ranking_goes_on_over_it(tmp_path: Path, steadiness: float) -> None:
    """Re-ranking takes the scores with what the scorer said."""
    path = file(tmp_path, random_scorer(3, DIM))
    parameters: Any = {"mmr": 0.3, "steadiness": steadiness}
    users = [asked(1, dataclasses.replace(one, **parameters)) for one in (ON, RankingParameters())]
    on, off = lists(path, *users, size=10)
    assert lists(None, users[1], size=10) == [off]
    assert ids(on) != ids(off)
