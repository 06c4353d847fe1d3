"""What a scorer is taught on: who is shown what, what was right, and that nothing of the future is in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from models.scorer import direction
from models.scorer_file import load_scorer
from streams.cli import app
from streams.datasets.log import Entry
from streams.errors import ConfigurationError
from streams.evaluation import teaching
from streams.evaluation.live import Live
from streams.evaluation.logs import NOTHING_SHOWN, EvaluationLog, columns
from streams.evaluation.progress import Bars
from streams.evaluation.teaching import pairs_of, shown_or_sampled
from streams.evaluation.vectors import EncodedItems
from streams.settings import Settings
from streams.wire.items import Item
from streams.wire.models import Served
from streams.wire.vectors import encode_vector, vector_key

START_MS = 1_700_000_000_000
MINUTE_MS = 60_000
DIM = 4
SPACE = Served("00000000feedbeef", DIM, "random")


def entry(user: str, item: str, minute: float, topic: str = "clicks") -> Entry:
    """Return an event so long after the start."""
    return Entry(topic, START_MS + round(minute * MINUTE_MS), {"user_id": user, "item_id": item})


def shown(user: str, items: Sequence[str], minute: float) -> Entry:
    """Return an impression so long after the start."""
    return Entry("impressions", START_MS + round(minute * MINUTE_MS), {"user_id": user, "items": list(items)})


def test_right_is_what_was_shown_and_met_soon_after() -> None:
    """Within half an hour; not what was met before, later, by another, or disliked; users and items unknown are out."""
    log = columns(
        "test",
        [
            entry("u", "d", 0),
            shown("u", ["a", "b", "c", "d", "nobody's"], 1),
            shown("stranger", ["a"], 1),
            entry("u", "a", 2),
            entry("u", "c", 3, "dislikes"),
            entry("v", "d", 4),
            entry("u", "b", 32),
            shown("u", ["b", "a"], 32),
            entry("u", "c", 50),
            shown("u", ["c"], 51),
        ],
        [],
    )
    made = shown_or_sampled(log.interactions, log.impressions, len(log.items), seed=1)
    pairs = [(log.items[item], int(before), bool(right)) for _, item, before, right in zip(*made, strict=True)]
    # What follows the last impression is not known, so nothing is learned of it.
    assert [("a", 1, True), ("b", 1, False), ("c", 1, False), ("d", 1, False), ("b", 4, True), ("a", 4, False)] == pairs


def test_a_log_cut_to_some_users_is_cut_in_its_impressions() -> None:
    """Nobody else's are left."""
    log = columns("test", [entry("u", "a", 0), entry("v", "a", 1), shown("v", ["a"], 2), shown("u", ["a"], 3)], [])
    assert [0] == log.first_users(1).impressions.users.tolist()
    assert [1, 0] == log.impressions.users.tolist()


def test_an_impression_needs_items() -> None:
    """The refusal names it."""
    with pytest.raises(ConfigurationError, match="the impression 'e' has no items"):
        columns("test", [Entry("impressions", START_MS, {"user_id": "u", "event_id": "e", "items": "a"})], [])


def walks(users: int = 40, steps: int = 8, items: int = 16) -> EvaluationLog:
    """Return users who each stay among the items of one half, and now and then dislike one."""
    random = np.random.default_rng(2)
    entries = [
        entry(
            f"u{user}", f"i{int(random.integers(items // 2)) * 2 + user % 2}", 5 * step + user / users,
            "dislikes" if random.random() < 0.1 else "clicks",
        )
        for step in range(steps)
        for user in range(users)
    ]  # fmt: skip
    return columns("walks", entries, [Item(f"i{number}") for number in range(items)])


def test_without_impressions_samples_are_labelled() -> None:
    """Right is what was met and not disliked, each once; wrong is at most four for each that its user never met."""
    log = walks()
    events = log.interactions
    made = shown_or_sampled(events, NOTHING_SHOWN, len(log.items), seed=1)
    right = sorted(zip(made.before[made.right].tolist(), made.items[made.right].tolist(), strict=True))
    liked = np.flatnonzero(events.kinds == 1).tolist()
    assert [(place, int(events.items[place])) for place in liked] == right
    met = set(zip(events.users.tolist(), events.items.tolist(), strict=True))
    wrong = list(zip(made.users[~made.right].tolist(), made.items[~made.right].tolist(), strict=True))
    assert not met & set(wrong)
    assert 0 < len(wrong) <= 4 * len(right)
    assert sorted(made.before.tolist()) == made.before.tolist()
    again = shown_or_sampled(events, NOTHING_SHOWN, len(log.items), seed=1)
    assert made.items.tolist() == again.items.tolist()


def live(log: EvaluationLog) -> Live:
    """Return Freshet before the log, with random vectors of its items."""
    found = Live(Settings(), log.users, log.items, log.cards)
    vectors = np.random.default_rng(4).normal(size=(len(log.items), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found.serve(
        SPACE,
        (
            (vector_key(SPACE.fingerprint, item), encode_vector(bytes(16), vector))
            for item, vector in zip(log.items, vectors, strict=True)
        ),
    )
    return found


@pytest.mark.parametrize("runs", [8_192, 7])
def test_nothing_of_the_future_is_in_what_is_learned_from(runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A direction is the user's by the events before the run in which the item was shown, and by nothing later."""
    monkeypatch.setattr(teaching, "_RUNS", runs)
    monkeypatch.setattr(teaching, "_USERS_OF_RUN", 1_000)
    log = walks()
    events = log.interactions
    made = shown_or_sampled(events, NOTHING_SHOWN, len(log.items), seed=1)
    pairs = pairs_of(live(log), events, made, len(log.items), seed=1, progress=lambda _done: None)
    length = -(-len(events.users) // runs)
    past, expected = live(log), []
    for start in range(0, len(events.users), length):
        short, long, _ = past.interests(range(len(log.users)))
        known = direction(short, long)
        expected += [
            (known[user].round(5).tolist(), item, right)
            for user, item, before, right in zip(*made, strict=True)
            if before // length == start // length and known[user].any()
        ]
        past.learn(events.at(slice(start, start + length)))
    columns_of = zip(pairs.directions[pairs.users].round(5).tolist(), pairs.items, pairs.labels == 1, strict=True)
    assert len(expected) > 500
    assert expected == list(columns_of)


def test_of_a_long_run_some_users_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory stays what it was, however long the log is."""
    monkeypatch.setattr(teaching, "_RUNS", 7)
    log = walks()
    made = shown_or_sampled(log.interactions, NOTHING_SHOWN, len(log.items), seed=1)
    pairs = pairs_of(live(log), log.interactions, made, len(log.items), seed=1, progress=lambda _done: None)
    assert 6 * 8 >= len(pairs.directions)
    assert {0.0, 1.0} == set(pairs.labels.tolist())


def test_a_log_without_vectors_teaches_nothing() -> None:
    """The refusal says what is missing."""
    log = walks()
    made = shown_or_sampled(log.interactions, NOTHING_SHOWN, len(log.items), seed=1)
    with pytest.raises(ConfigurationError, match="nothing is told of this log's items"):
        pairs_of(Live(Settings(), log.users, log.items), log.interactions, made, 16, 1, lambda _done: None)


def shop(folder: Path, *, cards: bool = True) -> list[str]:
    """Write a log whose users keep to mugs or to lamps; return it as arguments."""
    events = [
        {"user_id": f"u{user}", "item_id": f"i{(3 * user + step * (step + user)) % 12 * 2 + user % 2}", "type": "click",
         "ts": START_MS + step * MINUTE_MS + user}
        for step in range(9)
        for user in range(60)
    ]  # fmt: skip
    (folder / "shop.jsonl").write_bytes(b"\n".join(map(orjson.dumps, events)))
    items = [{"item_id": f"i{number}", "title": ("red mug", "desk lamp")[number % 2]} for number in range(24)]
    (folder / "items.jsonl").write_bytes(b"\n".join(map(orjson.dumps, items)))
    return [str(folder / "shop.jsonl"), *(["--items", str(folder / "items.jsonl")] if cards else [])]


def test_the_command_needs_items(tmp_path: Path) -> None:
    """The sentence says which option tells of them, and nothing is learned before."""
    result = CliRunner().invoke(app, ["train", *shop(tmp_path, cards=False)])
    assert (2, True) == (result.exit_code, "see --items" in result.output)


def test_the_command_needs_a_folder_to_write_to(tmp_path: Path) -> None:
    """It is looked for before anything is learned."""
    result = CliRunner().invoke(app, ["train", *shop(tmp_path), "--out", str(tmp_path / "nowhere" / "s.safetensors")])
    assert (2, True) == (result.exit_code, "there is no folder" in result.output)


def encoded(settings: Settings, items: Sequence[Item], bars: Bars) -> EncodedItems:
    """Return vectors that look one way for mugs, another for lamps, and a little everywhere."""
    del settings, bars
    vectors = 0.3 * np.random.default_rng(4).normal(size=(len(items), DIM)).astype(np.float32)
    for item, vector in zip(items, vectors, strict=True):
        vector[item.title == "red mug"] += 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return EncodedItems(SPACE, [item.item_id for item in items], [bytes(16)] * len(items), vectors)


def test_the_command_writes_what_ranking_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scorer that tells mugs from lamps, with how it was made."""
    monkeypatch.setattr("streams.evaluation.vectors.encode_items", encoded)
    out = tmp_path / "scorer.safetensors"
    result = CliRunner().invoke(app, ["train", *shop(tmp_path), "--out", str(out), "--epochs", "200"])
    assert (0, "") == (result.exit_code, "" if result.exit_code == 0 else result.output)
    read = load_scorer(out)
    assert (8, DIM, SPACE.fingerprint, "shop") == (read.hidden, read.dim, read.fingerprint, read.made["log"])
    assert read.made["auc"] > max(0.8, read.made["auc_untaught"])
