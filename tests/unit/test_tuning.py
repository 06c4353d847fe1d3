"""Looking for ranking parameters: what is never looked at, and what a file of them may say."""

from __future__ import annotations

import asyncio
import math
import os
from pathlib import Path

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from models.interactions import Interactions
from models.ranking import RankingParameters
from streams.cli import app
from streams.errors import ConfigurationError
from streams.evaluation.tuning import validation
from streams.experiments.assignment import Experiments
from streams.experiments.definitions import load_ranking
from streams.roles.worker import Worker, _follow
from streams.settings import Settings


def log(*events: tuple[int, int, int]) -> Interactions:
    """Return events (user, item, time) as columns."""
    users, items, times = (np.array(column) for column in zip(*events, strict=True))
    count = len(events)
    return Interactions(
        users.astype(np.int32), items.astype(np.int32), np.zeros(count, np.uint8), times.astype(np.int64),
        np.full(count, -1, np.int32), np.full(count, -1, np.int32),
    )  # fmt: skip


EVENTS = log((0, 1, 10), (1, 2, 11), (0, 3, 12), (1, 4, 13), (0, 5, 14), (1, 6, 15))


def test_the_last_events_are_left_out_altogether() -> None:
    """Without times the test is each user's last event, and the one before it is asked about."""
    plan = validation(EVENTS, None, None)
    assert [1, 2] == plan.learned.items.tolist()
    assert [3, 4] == plan.questions.targets.tolist()


def test_nothing_of_the_test_is_learned_or_asked_about() -> None:
    """Everything from the test on is gone; the validation cut lies before it."""
    plan = validation(EVENTS, 14, 12)
    assert [1, 2] == plan.learned.items.tolist()
    assert [3, 4] == sorted(plan.questions.targets.tolist())


def test_a_cut_that_leaves_nothing_is_refused() -> None:
    """There must be something to learn before the validation cut."""
    with pytest.raises(ConfigurationError, match="leaves nothing before it"):
        validation(EVENTS, 14, 5)


def shop(path: Path) -> Path:
    """Write a log in which everybody goes round the items, so that what follows an item tells the next one."""
    lines = [
        {"event_id": f"e{user}-{turn}", "user_id": f"u{user}", "item_id": f"i{(user + turn) % 12}", "type": "click",
         "ts": 1_700_000_000_000 + turn * 60_000 + user}
        for turn in range(6)
        for user in range(40)
    ]  # fmt: skip
    path.write_bytes(b"\n".join(orjson.dumps(line) for line in lines))
    return path


def test_tuning_writes_what_the_worker_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file holds parameters no worse on the validation cut than the ones it began with, and is taken as it is."""
    monkeypatch.setenv("FRESHET_CACHE_DIR", str(tmp_path / "cache"))
    out = tmp_path / "ranking.json"
    arguments = ["tune", str(shop(tmp_path / "shop.jsonl")), "--trials", "5", "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert (0, "") == (result.exit_code, "" if result.exit_code == 0 else result.output)
    made = orjson.loads(out.read_bytes())["made"]
    assert made["before"] <= made["ndcg@10"]
    written = orjson.loads(out.read_bytes())["ranking"]
    assert math.isclose(written["neighbours"], load_ranking(out).neighbours)
    assert load_ranking(out) == Experiments(base=load_ranking(out)).parameters({})


def test_without_a_file_the_parameters_are_freshets_own() -> None:
    """No file, no change."""
    assert RankingParameters() == load_ranking(None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "is not usable"),
        (b'{"ranking": {"shrt": 1}}', "unknown ranking parameter 'shrt'"),
        (b'{"ranking": {"short": -1}}', "short must lie in"),
        (b'{"ranking": {"exclude_seen": 1}}', "exclude_seen must be true or false"),
    ],
)
def test_a_file_that_cannot_be_is_refused(tmp_path: Path, text: bytes, reason: str) -> None:
    """The sentence names the setting and what is wrong."""
    path = tmp_path / "ranking.json"
    path.write_bytes(text)
    with pytest.raises(ConfigurationError, match=reason) as raised:
        load_ranking(path)
    assert "FRESHET_RANKING_FILE" in str(raised.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The sentence says which."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_ranking(tmp_path / "nothing.json")


def test_experiments_go_on_over_other_parameters() -> None:
    """Another base keeps the experiments."""
    base = RankingParameters(short=0.1)
    assert base == Experiments().rebased(base).parameters({})


def test_a_worker_takes_the_file_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next list is made by what the file says now; a file that cannot be used changes nothing."""
    path = tmp_path / "ranking.json"
    path.write_bytes(b'{"ranking": {"short": 0.25}}')
    monkeypatch.setattr("streams.roles.worker._RANKING_WATCH_S", 0.01)
    role = Worker(Settings(ranking_file=path))

    def short() -> float:
        return role._publisher.experiments.parameters({}).short

    async def edited() -> list[float]:
        following = asyncio.create_task(_follow(path, role._read_ranking))
        found = [short()]
        for number, text in enumerate((b'{"ranking": {"short": 0.5}}', b'{"ranking": {"short": "much"}}')):
            path.write_bytes(text)
            os.utime(path, ns=(number + 1, number + 1))
            await asyncio.sleep(0.2)
            found.append(short())
        following.cancel()
        return found

    assert [0.25, 0.5, 0.5] == asyncio.run(edited())
