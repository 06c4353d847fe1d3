"""The whole seam, events to list: reasons explain the score that the interest vectors made, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ranking import RankingParameters
from streams.catalogue.matrix import Catalogue
from streams.interests.slab import Slab
from streams.interests.vectors import InterestVectors
from streams.refresh.rank import Ranked, Ranker
from streams.settings import Settings
from streams.wire.events import TYPE_CODES, Event
from streams.wire.items import Item
from streams.wire.models import Served
from tests.support.batches import batch_of

SETTINGS = Settings(list_size=30)
NOW_MS = 1_700_000_000_000
LIKED = [TYPE_CODES[name] for name in ("views", "clicks", "carts", "purchases")]
# (item, type, age): at most three, so that all of them can be named behind an item.
EVENTS = st.lists(
    st.tuples(st.integers(0, 29), st.sampled_from(LIKED), st.integers(0, 40 * 86_400_000)), min_size=1, max_size=3
)


def shop() -> Catalogue:
    """Return 30 items whose vectors all look the same way more or less, so that no event speaks against any."""
    catalogue = Catalogue()
    catalogue.stage(Served("f" * 16, 6))
    catalogue.switch()
    random = np.random.default_rng(11)
    for number in range(30):
        vector = random.random(6).astype(np.float32)
        catalogue.upsert_item(Item(f"i{number:02}"))
        catalogue.set_vector(f"i{number:02}", vector / np.linalg.norm(vector))
    return catalogue


CATALOGUE = shop()


def ranked(events: list[tuple[int, int, int]]) -> Ranked:
    """Fold the events of one user and rank it."""
    slab = Slab(SETTINGS, CATALOGUE)
    slab.fold(
        batch_of(
            [
                Event(type_code, "u", f"i{item:02}", NOW_MS - age_ms, number, f"e{number}")
                for number, (item, type_code, age_ms) in enumerate(events)
            ]
        )
    )
    row = slab.row("u")
    assert row is not None
    rows = np.array([row], np.int64)
    users = InterestVectors(slab).users(rows, [RankingParameters(exclude_seen=False)])
    return Ranker(CATALOGUE, SETTINGS).rank(users)[0]


# Compiled code is loaded by its first call, which takes longer than hypothesis allows an example.
ranked([(0, LIKED[0], 0)])


@given(EVENTS)
def test_the_events_explain_the_whole_score(events: list[tuple[int, int, int]]) -> None:
    """Without older history the shares of all events sum to one behind every item."""
    for item in ranked(events).items:
        # Without neighbours only likeness and having met the item speak for it.
        assert item.source in {"interest", "repeat"}
        assert sum(because.share for because in item.because) == pytest.approx(1.0, abs=2e-4)
