"""The numbers of an evaluation and the files they are written to."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from models import measures
from models.interactions import Int32, Interactions
from streams.evaluation.guardrails import Violations
from streams.evaluation.report import report
from streams.evaluation.results import Evaluated, Lists, Questions
from streams.evaluation.scores import OURS, scored
from streams.evaluation.sections import sections

USERS, ITEMS, SIZE = 40, 30, 12


def answers(random: np.random.Generator, targets: Int32, skill: float) -> Int32:
    """Return random lists that begin with the target in a share of all questions."""
    lists = np.stack([random.permutation(ITEMS)[:SIZE] for _ in targets]).astype(np.int32)
    for row, target in enumerate(targets):
        if random.random() < skill:
            rest = lists[row][lists[row] != target]
            lists[row] = [target, *rest[: SIZE - 1]]
    return lists


def run_of(*, freshness: bool = True) -> Evaluated:
    """Return a leave-one-out run in which Freshet is better than luck."""
    random = np.random.default_rng(5)
    users = np.concatenate([np.repeat(np.arange(USERS), 5), np.arange(USERS)]).astype(np.int32)
    items = random.integers(0, ITEMS, len(users)).astype(np.int32)
    none = np.full(len(users), -1, np.int32)
    log = Interactions(users, items, np.zeros(len(users), np.uint8), np.arange(len(users)) * 1000, none, none)
    asked = np.arange(5 * USERS, 6 * USERS)
    targets = items[asked]
    questions = Questions(users[asked], asked, targets, np.arange(1, USERS + 1))
    ours, theirs = answers(random, targets, 0.9), answers(random, targets, 0.0)
    return Evaluated(
        protocol="leave-one-out",
        log_name="a <log> & more",
        exclude_seen=False,
        log=log,
        learned=log.at(slice(None, 5 * USERS)),
        told=np.empty(0, np.int64),
        items=ITEMS,
        questions=questions,
        systems={OURS: Lists(ours, ours), "luck": Lists(theirs, theirs)},
        freshness={"event": ours, "day": theirs} if freshness else {},
        violations={"excluded": Violations(seen=7), "allowed": Violations()} if freshness else {},
        categories=(np.arange(ITEMS) % 4).astype(np.int32),
        vectors=np.eye(ITEMS, dtype=np.float32),
        events_per_s=1234.5,
        seconds={OURS: 1.5, "luck": 0.5},
    )


def test_numbers_are_means_with_intervals_and_paired_differences() -> None:
    """Means are those of the measures; a clear difference is above 0, the other way round it is not."""
    result = run_of()
    found = scored(result).allowed.overall
    asked = result.questions
    expected = measures.accuracy(
        result.systems[OURS].allowed, asked.targets, asked.ends, np.full(USERS, ITEMS, np.int64)
    )
    for name, values in expected.items():
        assert float(values.mean()) == pytest.approx(found.metrics[OURS][name], abs=1e-6)
        low, high = found.intervals[OURS][name]
        assert low <= found.metrics[OURS][name] <= high
    ndcg = found.paired["luck"]["ndcg@10"]
    assert ndcg.above
    assert found.metrics[OURS]["ndcg@10"] - found.metrics["luck"]["ndcg@10"] == pytest.approx(ndcg.mean)
    assert 1.0 == pytest.approx(found.metrics[OURS]["ild@10"])


def test_parts_hold_every_question_once() -> None:
    """New and met targets, and slices by history, add up to all questions of one target each."""
    result = run_of()
    mode = scored(result).excluded
    assert mode.explore is not None
    assert mode.repeat is not None
    assert USERS == mode.explore.questions + mode.repeat.questions
    assert {"4-5": USERS} == {name: part.questions for name, part in mode.by_history.items()}
    met = [
        int(target) in result.learned.items[result.learned.users == user].tolist()
        for user, target in zip(result.questions.users, result.questions.targets, strict=True)
    ]
    assert sum(met) == mode.repeat.questions


def test_items_that_nobody_had_met_are_reported_apart() -> None:
    """Targets that no learned event and none told before the question is of, and only these."""
    result = run_of()
    log = result.log
    log.items[-2:] = ITEMS - 1
    log.items[:-2] %= ITEMS - 1
    asked = result.questions._replace(targets=log.items[5 * USERS :])
    mode = scored(replace(result, learned=log.at(slice(None, 5 * USERS)), questions=asked)).allowed
    assert mode.new_items is not None
    assert 2 == mode.new_items.questions
    told = replace(result, learned=log.at(slice(None, 5 * USERS)), questions=asked, told=asked.before)
    mode = scored(told).allowed
    assert mode.new_items is not None
    assert 1 == mode.new_items.questions, "the second had been told of the first"


def test_without_items_met_before_fewer_could_have_been_listed() -> None:
    """AUC counts as pairs only what a list could hold."""
    result = run_of()
    scores = scored(result)
    assert scores.excluded.overall.metrics["luck"]["auc"] < scores.allowed.overall.metrics["luck"]["auc"]


def test_a_report_is_json_pictures_and_one_page(tmp_path: Path) -> None:
    """The JSON has the promised fields; the page holds its pictures, escapes names and points nowhere else."""
    numbers = report(run_of(), json_out=tmp_path / "deep" / "out.json", folder=tmp_path / "report")
    written = orjson.loads((tmp_path / "deep" / "out.json").read_bytes())
    assert orjson.loads(orjson.dumps(numbers)) == written
    assert {"protocol", "log", "metrics", "intervals", "events_per_s"} <= set(written)
    assert written["allowed"]["overall"]["metrics"] == written["metrics"]
    assert {"hr@10", "ndcg@10", "mrr@20"} <= set(written["metrics"][OURS])
    assert 7 == written["violations"]["excluded"]["seen"]
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    pictures = sorted(path.stem for path in (tmp_path / "report").glob("*.png"))
    assert ["accuracy", "explore", "exposure", "freshness", "history", "lengths"] == pictures
    assert len(pictures) == page.count('src="data:image/png;base64,')
    assert "a &lt;log&gt; &amp; more" in page
    assert [] == re.findall(r'(?:src|href)="(?!data:)', page)
    assert "above each of the 1 other systems" in page


def test_the_page_of_results_has_means_intervals_and_differences() -> None:
    """The headline's mask comes first; whom Freshet is surely above is told in words; broken rules are counted."""
    numbers = report(run_of())
    made = sections(numbers)
    assert made[0].startswith(f"Lists with items the user met before: {USERS} lists.")
    low, high = numbers["intervals"][OURS]["hr@10"]
    assert f"| {OURS} | {numbers['metrics'][OURS]['hr@10']:.4f} ({low:.4f}\u2013{high:.4f}) |" in made[0]
    assert 2 == made[0].count(" above |")
    assert "under both masks: 7." in made[-2]
    assert "| day |" in made[-3]


def test_a_run_without_ablation_or_vectors_is_reported_too(tmp_path: Path) -> None:
    """What was not run is left out."""
    numbers = report(run_of(freshness=False), folder=tmp_path)
    assert numbers["freshness"] is None
    assert not (tmp_path / "freshness.png").exists()
