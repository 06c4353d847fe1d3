"""The compiled JSON of lists says what `RankedItem` says."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.exploration import CERTAIN
from models.listing import INTEREST, POPULAR, ROOM, STEPS
from models.reasons import SHARE_STEPS
from streams.catalogue.ids import ItemIds
from streams.settings import EVENT_TYPES
from streams.wire.limits import MAX_ID_BYTES
from streams.wire.ranked_items import PROPENSITY_PLACES, SCORE_PLACES, SHARE_PLACES, SOURCES, ItemsWriter, Places
from streams.wire.recommendations import Because, RankedItem

IDS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=6),
        st.sampled_from(['"', "\\", '\\"' * (MAX_ID_BYTES // 2), "\u00e9" * (MAX_ID_BYTES // 2)]),
    ),
    min_size=1, max_size=5, unique=True,
)  # fmt: skip
SHARES = st.integers(1, SHARE_STEPS)
SCORES = st.one_of(st.integers(-(10**6), 10**6), st.sampled_from([0, 1, -1, 10, 100_000, -100_000, 2**30]))


@st.composite
def lists(draw: st.DrawFn) -> tuple[ItemIds, list[list[RankedItem]]]:
    """Return ids, and lists of at most six places over them."""
    names = ItemIds()
    ids = draw(IDS)
    names.rows(ids)
    item_ids = st.sampled_from(ids)
    because = st.builds(
        Because,
        item_ids,
        st.sampled_from(EVENT_TYPES),
        SHARES.map(lambda share: share / SHARE_STEPS),
    )
    places = st.builds(
        RankedItem, item_ids, st.just(0), SCORES.map(lambda step: step / STEPS), st.sampled_from(SOURCES),
        st.lists(because, max_size=3).map(tuple), st.integers(0, CERTAIN).map(lambda steps: steps / CERTAIN),
    )  # fmt: skip
    made = draw(st.lists(st.lists(places, max_size=6), max_size=4))
    return names, [[msgspec.structs.replace(one, rank=at) for at, one in enumerate(of, 1)] for of in made]


def places_of(names: ItemIds, made: list[list[RankedItem]]) -> Places:
    """Return the columns of lists."""
    shape = len(made), 6
    columns = Places(
        np.full(shape, -1, np.int32), np.zeros(shape, np.int64), np.zeros(shape, np.uint8), np.zeros(shape, np.int64),
        np.zeros((*shape, 3), np.int32), np.zeros((*shape, 3), np.uint8), np.zeros((*shape, 3), np.int64),
    )  # fmt: skip
    for user, items in enumerate(made):
        for rank, item in enumerate(items):
            columns.items[user, rank] = names.row(item.item_id)
            columns.scores[user, rank] = round(item.score * STEPS)
            columns.sources[user, rank] = SOURCES.index(item.source)
            columns.propensities[user, rank] = round(item.propensity * CERTAIN)
            for at, event in enumerate(item.because):
                columns.event_items[user, rank, at] = names.row(event.item_id)
                columns.event_kinds[user, rank, at] = EVENT_TYPES.index(event.type)
                columns.event_shares[user, rank, at] = round(event.share * SHARE_STEPS)
    return columns


@given(lists())
def test_the_json_reads_back_as_the_items(made: tuple[ItemIds, list[list[RankedItem]]]) -> None:
    """Ids of any kind, scores of either sign and shares are read as the very values that were written."""
    names, expected = made
    written = ItemsWriter().write(places_of(names, expected), names.names.pool, names.names.at, 20)
    assert expected == [msgspec.json.decode(one, type=list[RankedItem]) for one in written]


def test_more_lists_than_the_buffer_holds() -> None:
    """Lists that do not fit at once are written in parts, one that is larger than the buffer too."""
    names = ItemIds()
    names.rows(["x" * MAX_ID_BYTES])
    place = RankedItem("x" * MAX_ID_BYTES, 1, 0.5, "interest", (Because("x" * MAX_ID_BYTES, "clicks", 1.0),) * 3)
    columns = places_of(names, [[place]] * 100)
    wide = Places._make(np.repeat(column, 20, axis=1) for column in columns)
    written = ItemsWriter().write(wide, names.names.pool, names.names.at, 20)
    assert [20] * 100 == [len(msgspec.json.decode(one)) for one in written]


def test_the_units_are_those_of_ranking() -> None:
    """Places behind the point and names of sources are those that ranking counts in."""
    assert (STEPS, SHARE_STEPS, CERTAIN) == (10**SCORE_PLACES, 10**SHARE_PLACES, 10**PROPENSITY_PLACES)
    assert ("interest", "popular", "catalogue") == tuple(SOURCES[code] for code in (INTEREST, POPULAR, ROOM))
