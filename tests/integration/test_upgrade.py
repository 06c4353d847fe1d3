"""A model upgrade from end to end: two real encoders side by side, a worker that ranks, and `freshet models`."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack

import orjson
import pytest

from streams.encoding.source import load_encoder
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.items import Item
from streams.wire.recommendations import Recommendation, decode_recommendation
from streams.wire.vectors import split_vector_key
from tests.support.encoders import RunningEncoder, put, wait_for
from tests.support.shop import producer
from tests.support.tiny_model import WORDS, make_tiny_model
from tests.support.upgrades import answer, refused
from tests.support.verifier import read_topic

pytestmark = pytest.mark.integration

ITEMS, USERS = 200, 10
#: A Matryoshka cut of the same weights: a space of its own that agrees with the whole one, as a better model would.
SHORT_DIM = 12


@pytest.fixture(scope="module")
def settings(settings_for: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """One namespace for the module, with the old model."""
    return settings_for(
        partitions=2,
        model_path=make_tiny_model(tmp_path_factory.mktemp("model") / "tiny"),
        device="cpu",
        encoder_threads=1,
        encoder_precision="fp32",  # the choice takes a second
    )


def item(number: int, text: str = "") -> Item:
    """One item of some words."""
    words = [WORDS[(number * step + step) % len(WORDS)] for step in (1, 3, 5)]
    return Item(f"i{number}", title=text or f"{' '.join(words)} {number}")


def click(settings: Settings, turn: int) -> None:
    """Let every user click an item that depends on the turn."""
    out = producer(settings)
    for user in range(USERS):
        event = {
            "event_id": f"e{user}-{turn}",
            "user_id": f"u{user}",
            "item_id": f"i{(7 * user + turn) % ITEMS}",
            "ts": round(time.time() * 1000),
        }
        out.produce(full_name(settings, "clicks"), orjson.dumps(event), f"u{user}".encode())
    assert out.flush(30) == 0


def lists(settings: Settings) -> list[Recommendation]:
    """Return the users' lists, each user's in the order they were made."""
    found = [decode_recommendation(record.value) for record in read_topic(settings, "recommendations") if record.value]
    return [one for one in found if one.user_id]


def covered(settings: Settings, fingerprint: str) -> set[str]:
    """Return the items that have a vector in a space, for a reader of the compacted topic."""
    found = {record.key: record.value for record in read_topic(settings, "item-vectors")}
    keys = [split_vector_key(key or b"") for key, value in found.items() if value is not None]
    return {item_id for name, item_id in keys if name == fingerprint}


def click_until_ranked_by(settings: Settings, fingerprint: str, turns: itertools.count[int]) -> None:
    """Go on clicking until every user's newest list is of that space."""

    def ranked() -> bool:
        click(settings, next(turns))
        newest = {one.user_id: one.model for one in lists(settings)}
        return len(newest) == USERS and set(newest.values()) == {fingerprint}

    wait_for(ranked, 60)


def models_seen(settings: Settings) -> dict[int, list[str]]:
    """Return, by partition, which models made its lists, in the order of their versions, each run of them once."""
    made: defaultdict[int, list[Recommendation]] = defaultdict(list)
    for record in read_topic(settings, "recommendations"):
        # Lists of the time before the first model are nobody's.
        if record.value is not None and (found := decode_recommendation(record.value)).model:
            made[record.partition].append(found)
    return {
        partition: [
            name for name, _ in itertools.groupby(one.model for one in sorted(lists_of, key=lambda x: x.version))
        ]
        for partition, lists_of in made.items()
    }


def space(settings: Settings, fingerprint: str) -> tuple[float, int, str]:
    """Return the coverage of a space, its outdated items and its state, as `status` tells."""
    (found,) = [one for one in answer(settings, "status")["spaces"] if one["fingerprint"] == fingerprint]
    return found["coverage"], found["outdated"], found["state"]


@pytest.mark.usefixtures("worker")
def test_from_one_encoder_to_the_next_and_back(settings: Settings) -> None:
    """
    The new encoder fills its space beside the old, is promoted by the gates, rolled back, promoted; the old is retired.

    While both run, what changes is encoded in both spaces, so that neither way leaves an item without its vector.
    """
    other = settings.model_copy(update={"encoder_dim": SHORT_DIM})
    old, new = (load_encoder(one).fingerprint for one in (settings, other))
    turns = itertools.count()
    with ExitStack() as stack:
        stack.enter_context(RunningEncoder(settings))
        put(settings, *map(item, range(ITEMS)))
        wait_for(lambda: len(covered(settings, old)) == ITEMS)
        click_until_ranked_by(settings, old, turns)
        with RunningEncoder(other):
            put(settings, *(item(number, f"another mug {number}") for number in range(10)))
            wait_for(lambda: space(settings, new) == (1.0, 0, "other"))
            served = answer(settings, "promote", new)
            click_until_ranked_by(settings, new, turns)

            put(settings, item(3, "the film of the gift"), item(ITEMS))
            wait_for(lambda: [space(settings, one)[:2] for one in (old, new)] == [(1.0, 0)] * 2)
            back = answer(settings, "rollback")
            click_until_ranked_by(settings, old, turns)

            assert served == answer(settings, "promote", new)
            click_until_ranked_by(settings, new, turns)
            assert f"an encoder of {old} is running" in refused(settings, "retire", old, "--yes")
            stack.close()
            retired = answer(settings, "retire", old, "--yes")
            put(settings, item(ITEMS + 1))
            wait_for(lambda: len(covered(settings, new)) == ITEMS + 2)
            assert space(settings, new) == (1.0, 0, "served")

    assert (served["fingerprint"], served["dim"], back["fingerprint"]) == (new, SHORT_DIM, old)
    assert retired == {"retired": old, "vectors": ITEMS + 1}
    assert covered(settings, old) == set()
    assert set(map(tuple, models_seen(settings).values())) == {(old, new, old, new)}
