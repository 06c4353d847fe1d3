"""What few events change: the items a user excluded, and the lists a user was shown. One object a user."""

from __future__ import annotations

from bisect import insort
from typing import Final, Literal, final

from streams.interests import codec
from streams.interests.state import Shown, UserState

EXCLUDED_MAX: Final = 1_024
SHOWN_MAX: Final = 64
#: Impressions remembered whatever their age; older ones are held off by `seen_floor`.
SEEN_MIN: Final = 16
SEEN_MAX: Final = 256

Impressed = Literal["applied", "duplicate", "late"]


@final
class Margin:
    """
    The margin of one user; `streams.interests.state.UserState` describes the fields.

    >>> margin = Margin()
    >>> margin.exclude("a", 5), margin.exclude("a", 4), margin.excluded
    (True, False, {'a': 5})
    """

    __slots__ = ("_encoded", "_folded", "_impressions", "_seen", "_seen_floor", "excluded")

    def __init__(self) -> None:
        self.excluded: dict[str, int] = {}
        self._impressions: dict[str, Shown] = {}
        self._seen: list[tuple[int, int]] = []
        self._seen_floor: tuple[int, int] = (0, 0)
        self._encoded: bytes | None = None
        #: What the impressions are still to be made of.
        self._folded: bytes | None = None

    @classmethod
    def of(cls, state: UserState) -> Margin | None:
        """Return the margin of a state that was read, None where there is nothing in it."""
        if not (state.excluded or state.seen or state.impressions):
            return None
        margin = cls()
        margin.excluded, margin._impressions = state.excluded, state.impressions
        margin._seen, margin._seen_floor = state.seen, state.seen_floor
        return margin

    @classmethod
    def read(cls, encoded: bytes) -> Margin | None:
        """
        Return the margin that bytes stand for, None where there is nothing in it; raises as `codec.decode_margin`.

        The impressions are made when they are asked for: until then they are no objects, of which there would be many.
        """
        columns = codec.decode_margin(encoded)
        if not (columns.excluded or columns.seen_ts or columns.shown):
            return None
        margin = cls()
        margin.excluded = columns.excluded_items()
        margin._folded = margin._encoded = encoded
        return margin

    @property
    def impressions(self) -> dict[str, Shown]:
        """How often and when last items were rendered."""
        self._unfold()
        return self._impressions

    @property
    def seen(self) -> list[tuple[int, int]]:
        """Time and hash of the newest impressions, in order."""
        self._unfold()
        return self._seen

    @property
    def seen_floor(self) -> tuple[int, int]:
        """Greatest time and hash that left `seen`."""
        self._unfold()
        return self._seen_floor

    def _unfold(self) -> None:
        if self._folded is not None:
            columns, self._folded = codec.decode_margin(self._folded), None
            self._impressions, self._seen = columns.impressions(), columns.seen()
            self._seen_floor = columns.seen_floor

    def exclude(self, item_id: str, ts_ms: int) -> bool:
        """Exclude an item, however late the event comes; return whether that changed anything."""
        excluded = self.excluded
        if ts_ms <= excluded.get(item_id, -1):
            return False
        excluded[item_id] = ts_ms
        if len(excluded) > EXCLUDED_MAX:
            _, oldest = min((ts, item) for item, ts in excluded.items())
            del excluded[oldest]
            if oldest == item_id:
                return False
        self._encoded = None
        return True

    def impress(self, ts_ms: int, event_hash: int, items: tuple[str, ...], lateness_ms: int) -> tuple[Impressed, bool]:
        """Join one rendered list; return what became of it and whether anything changed."""
        mark = (ts_ms, event_hash)
        seen = self.seen
        known = next((old for old in seen if old[1] == event_hash), None)
        if known is not None and mark <= known:
            return "duplicate", False
        if known is None and mark <= self.seen_floor:
            return "late", False
        if known is not None:
            seen.remove(known)
        insort(seen, mark)
        if leaving := _leaving(seen, lateness_ms):
            self._seen_floor = seen[leaving - 1]
            del seen[:leaving]
        self._show(items, ts_ms, 1 if known is None else 0)
        self._encoded = None
        return ("applied" if known is None else "duplicate"), True

    def _show(self, items: tuple[str, ...], ts_ms: int, times: int) -> None:
        shown = self.impressions
        for item_id in dict.fromkeys(items):
            before = shown.get(item_id, Shown(0, 0))
            shown[item_id] = Shown(before.times + times, max(before.last_ts_ms, ts_ms))
        if len(shown) > SHOWN_MAX:
            newest = sorted(shown.items(), key=lambda pair: (pair[1].last_ts_ms, pair[0]), reverse=True)
            self._impressions = dict(newest[:SHOWN_MAX])

    def encode(self) -> bytes:
        """Return the margin's bytes; made once for each change."""
        if self._encoded is None:
            self._encoded = codec.encode_margin(self.excluded, self.seen_floor, self.seen, self.impressions)
        return self._encoded


def _leaving(seen: list[tuple[int, int]], lateness_ms: int) -> int:
    """Return how many of the oldest leave: all but the newest and those within lateness, `SEEN_MAX` in all."""
    excess = len(seen) - SEEN_MIN
    oldest_kept_ms = seen[-1][0] - lateness_ms
    leaving = 0
    while leaving < excess and (seen[leaving][0] < oldest_kept_ms or len(seen) - leaving > SEEN_MAX):
        leaving += 1
    return leaving
