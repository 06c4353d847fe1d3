"""Users as ranking reads them, made one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from models.consistency import no_previous
from models.events import Events
from models.ranking import Floats, RankingParameters
from models.users import Excluded, Owned, Users
from streams.catalogue.matrix import Catalogue
from streams.refresh.rank import Ranked, Ranker
from streams.settings import Settings


class Asked(NamedTuple):
    """One user; `recent` holds (time in ms, item id, type code), oldest first."""

    short: Floats
    long: Floats
    negative: Floats
    recent: Sequence[tuple[int, str, int]]
    excluded: Iterable[str]
    parameters: RankingParameters
    now_ms: int
    key: int = 1
    device: int = 0


def users_of(asked: Sequence[Asked], catalogue: Catalogue) -> Users:
    """Return users as one batch; their items get rows, as those of events do."""
    happened = [event for one in asked for event in one.recent]
    excluded = [list(one.excluded) for one in asked]
    events = Events(
        catalogue.rows([item_id for _, item_id, _ in happened]),
        np.array([kind for _, _, kind in happened], np.uint8),
        np.array([ts_ms for ts_ms, _, _ in happened], np.int64),
        np.cumsum([len(one.recent) for one in asked], dtype=np.int64),
    )
    # What was met recently is owned, at no weight here.
    met = [list(dict.fromkeys(item_id for _, item_id, _ in one.recent)) for one in asked]
    items = catalogue.rows([item_id for ids in met for item_id in ids])
    ends = np.cumsum([len(ids) for ids in met], dtype=np.int64)
    owned = Owned(items, np.zeros(len(items)), np.zeros(len(items), np.bool_), ends)
    found = catalogue.find([item_id for ids in excluded for item_id in ids]).astype(np.int32)
    return Users(
        np.stack([np.stack([one.short, one.long, one.negative]) for one in asked], axis=1),
        events,
        owned,
        Excluded(found, np.zeros(len(found), np.int64), np.cumsum([len(ids) for ids in excluded], dtype=np.int64)),
        np.array([one.now_ms for one in asked], np.int64),
        np.array([one.device for one in asked], np.uint8),
        [one.parameters for one in asked],
        no_previous(len(asked)),
        np.array([one.key for one in asked], np.uint64),
    )


def ranked(catalogue: Catalogue, settings: Settings, *asked: Asked) -> list[Ranked]:
    """Return the list of each user."""
    return Ranker(catalogue, settings).rank(users_of(asked, catalogue))
