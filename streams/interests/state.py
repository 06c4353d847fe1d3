"""What is remembered of one user, as it is read: a copy out of the columns, or a decoded record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

from streams.settings import EVENT_TYPES
from streams.wire.events import TYPE_CODES

#: Types that say what a user does not want; they never add to what the user wants.
NEGATIVE_TYPES = frozenset({TYPE_CODES["dislikes"]})
#: Types whose items are not offered again.
EXCLUDING_TYPES = frozenset({TYPE_CODES["purchases"], TYPE_CODES["dislikes"]})


class Interaction(NamedTuple):
    """
    One event of a user with an item; tuple order is the order of events: time, then hash.

    >>> Interaction(5, 1, "b", 0) < Interaction(5, 2, "a", 0)
    True
    """

    ts_ms: int
    event_hash: int
    item_id: str
    type_code: int


class Tally(NamedTuple):
    """
    What stays of a user's older interactions with one item.

    Attributes
    ----------
    counts
        Events by type code, `len(EVENT_TYPES)` of them.
    last_ts_ms
        Time of the newest one.
    mass
        Sum of the weights of the positive ones, decayed by the long half-life to `last_ts_ms`.

    """

    counts: tuple[int, ...]
    last_ts_ms: int
    mass: float


class Shown(NamedTuple):
    """How often an item was rendered for a user, and when last."""

    times: int
    last_ts_ms: int


class LastList(NamedTuple):
    """
    The list a user was served last; no event decides it, so it stands in the head.

    Attributes
    ----------
    items
        (item id, time of the user's newest event when it came on the list, where it has been since), by rank; ms.
    newest_ms
        Time of the user's newest event as the list was made.
    events
        Interactions applied until then: more of them, and the list is to follow.
    price_marks
        Of each item, see `streams.catalogue.attributes`; empty where no price was known.
    explored
        Rank of the exploration slot and propensity of what stands there, see `models.consistency.Previous`.

    """

    version: int
    generated_at_ms: int
    items: tuple[tuple[str, int], ...]
    newest_ms: int
    events: int
    price_marks: tuple[int, ...]
    explored: tuple[int, int] = (0, 0)


@final
class UserState:
    """
    One user, read. Changing it changes nothing anywhere else; `streams.interests.slab` holds what is folded.

    Attributes
    ----------
    recent
        The newest interactions in order, oldest first.
    floor
        Greatest (ts_ms, event_hash) that ever left `recent`; nothing at or below it enters again.
    items
        Tallies of the interactions that left `recent`, by item id, in the order in which items first left.
    excluded
        Purchased and disliked items with the newest time of it, ms.
    counts
        Distinct events applied, by type code.
    impressions
        How often and when last the newest 64 items were rendered.
    seen, seen_floor
        (ts_ms, event_hash) of the newest impressions in order, and the greatest that left.
    first_ts_ms
        Time of the oldest event applied; 0 before the first.
    device
        Code of the device that the newest interaction came from, see `models.segments.device_code`.
    erased_at_ms
        Records appended up to then are not the user's any more; 0 for a user who was never erased.
    pending
        Head: a list is owed.
    last_list
        Head: the list served last.

    """

    __slots__ = (
        "counts",
        "device",
        "erased_at_ms",
        "excluded",
        "first_ts_ms",
        "floor",
        "impressions",
        "items",
        "last_list",
        "pending",
        "recent",
        "seen",
        "seen_floor",
    )

    def __init__(self) -> None:
        self.recent: list[Interaction] = []
        self.floor: tuple[int, int] = (0, 0)
        self.items: dict[str, Tally] = {}
        self.excluded: dict[str, int] = {}
        self.counts: list[int] = [0] * len(EVENT_TYPES)
        self.impressions: dict[str, Shown] = {}
        self.seen: list[tuple[int, int]] = []
        self.seen_floor: tuple[int, int] = (0, 0)
        self.first_ts_ms = 0
        self.device = 0
        self.erased_at_ms = 0
        self.pending = False
        self.last_list: LastList | None = None

    @property
    def newest_ts_ms(self) -> int:
        """Time of the newest interaction, 0 for a user without one: the time at which scores are taken."""
        return self.recent[-1].ts_ms if self.recent else 0

    @property
    def events_applied(self) -> dict[str, int]:
        """
        Distinct events applied by type name, types without any left out.

        >>> UserState().events_applied
        {}
        """
        return by_type_name(self.counts)


def by_type_name(counts: Sequence[int]) -> dict[str, int]:
    """
    Return counts by type code under the types' names, types without any left out.

    >>> by_type_name([0, 2, 0, 0, 0, 1])
    {'clicks': 2, 'impressions': 1}
    """
    return {name: count for name, count in zip(EVENT_TYPES, counts, strict=True) if count}
