"""How events change one user's state: what is kept, what leaves, what is refused."""

from __future__ import annotations

from streams.catalogue.matrix import Catalogue
from streams.interests.batch import FoldResult
from streams.interests.columns import RECENT_MAX, RECENT_MIN, TALLIES_AFTER_PRUNE, TALLIES_MAX
from streams.interests.margin import EXCLUDED_MAX, SEEN_MIN, SHOWN_MAX
from streams.interests.slab import Slab
from streams.interests.state import Shown, UserState
from streams.settings import Settings
from streams.wire.events import IMPRESSION, TYPE_CODES, Event
from tests.support.batches import batch_of

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000
VIEW, CLICK, PURCHASE, DISLIKE = (TYPE_CODES[name] for name in ("views", "clicks", "purchases", "dislikes"))


class User:
    """One user under the rules of given settings; events come one by one."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._slab = Slab(settings or Settings(), Catalogue(2))

    @property
    def state(self) -> UserState:
        """The state as it is read."""
        state = self._slab.get("u")
        assert state is not None
        return state

    def do(self, ts_ms: int, event_hash: int, item_id: str = "i", type_code: int = CLICK) -> str:
        """Interact."""
        return self._fold(Event(type_code, "u", item_id, ts_ms, event_hash, ""))

    def look(self, ts_ms: int, event_hash: int, *items: str) -> str:
        """Be shown a list."""
        return self._fold(Event(IMPRESSION, "u", "", ts_ms, event_hash, "", items=items))

    def _fold(self, event: Event) -> str:
        self.result: FoldResult = self._slab.fold(batch_of([event]))
        (outcome,) = [name for name in ("applied", "late", "duplicates") if getattr(self.result, name)]
        return outcome

    def days(self, count: int, type_code: int = CLICK) -> None:
        """Do one thing a day with an item of its own."""
        for day in range(count):
            self.do(START_MS + day * DAY_MS, day + 1, f"i{day}", type_code)


def test_newest_are_kept_whatever_their_age() -> None:
    """The newest 64 interactions stay, the 65th leaves into a tally and raises the floor."""
    user = User()
    user.days(RECENT_MIN)
    assert len(user.state.recent) == RECENT_MIN
    assert user.state.floor == (0, 0)
    user.do(START_MS + 100 * DAY_MS, 999)
    assert len(user.state.recent) == RECENT_MIN
    assert user.state.floor == (START_MS, 1)
    assert list(user.state.items) == ["i0"]


def test_all_within_lateness_are_kept() -> None:
    """More than 64 stay while they lie within lateness of the newest; the bound itself counts as within."""
    user = User(Settings(lateness_s=100))
    for second in range(101):
        user.do(START_MS + second * 1_000, second + 1)
    assert len(user.state.recent) == 101
    user.do(START_MS + 101_000, 500)
    assert len(user.state.recent) == 101
    assert user.state.floor == (START_MS, 1)


def test_a_robot_is_held_at_the_cap() -> None:
    """No more than 256 stay, however quickly a user clicks."""
    user = User()
    for number in range(300):
        user.do(START_MS + number, number + 1)
    assert len(user.state.recent) == RECENT_MAX
    assert sum(user.state.counts) == 300


def test_an_event_at_or_below_the_floor_is_late() -> None:
    """What left cannot enter again, nor can anything older; neither changes the state."""
    user = User()
    user.days(RECENT_MIN + 1)
    before = user.state.recent
    assert user.do(START_MS, 1, "i0") == "late"
    assert user.do(START_MS - 5, 777, "i0") == "late"
    assert user.state.recent == before
    assert user.do(START_MS, 1_000, "x") == "applied"


def test_a_late_dislike_still_excludes() -> None:
    """An exclusion never comes too late, though its event is not counted."""
    user = User()
    user.days(RECENT_MIN + 1)
    counts = list(user.state.counts)
    assert user.do(START_MS - 5, 777, "bad", DISLIKE) == "late"
    assert user.state.excluded == {"bad": START_MS - 5}
    assert counts == user.state.counts


def test_equal_times_are_ordered_by_hash() -> None:
    """Events of one millisecond stand in the order of their hashes."""
    user = User()
    for event_hash in (3, 1, 2):
        user.do(START_MS, event_hash)
    assert [interaction.event_hash for interaction in user.state.recent] == [1, 2, 3]


def test_newest_copy_of_an_event_stands() -> None:
    """The same event told with another time counts once and takes the newer time."""
    for times in ((0, 9), (9, 0)):
        user = User()
        outcomes = [user.do(START_MS + time, 7) for time in times]
        assert outcomes == ["applied", "duplicates"]
        assert [interaction.ts_ms for interaction in user.state.recent] == [START_MS + 9]
        assert user.state.first_ts_ms == START_MS
        assert sum(user.state.counts) == 1


def test_tally_decays_and_adds() -> None:
    """A tally's mass halves with each long half-life and takes the weight of what leaves; dislikes add none."""
    settings = Settings(half_life_long_s=86_400, weights={"views": 0.5, "clicks": 1.0, "dislikes": 5.0})
    user = User(settings)
    user.do(START_MS, 1, "a", CLICK)
    user.do(START_MS + DAY_MS, 2, "a", VIEW)
    user.do(START_MS + 2 * DAY_MS, 3, "a", DISLIKE)
    for number in range(RECENT_MIN):
        user.do(START_MS + 10 * DAY_MS, 10 + number)
    tally = user.state.items["a"]
    assert tally == ((1, 1, 0, 0, 1, 0), START_MS + 2 * DAY_MS, (1.0 / 2 + 0.5) / 2)


def test_lightest_tallies_leave_together() -> None:
    """With one tally too many the lightest go, ties by the smaller item id."""
    user = User()
    heavy = TALLIES_AFTER_PRUNE - 24
    for number in range(TALLIES_MAX + 1):
        user.do(START_MS, number + 1, f"i{number:03}", PURCHASE if number < heavy else CLICK)
    for number in range(RECENT_MIN):
        user.do(START_MS + DAY_MS, 1_000 + number, "z")
    kept = {f"i{number:03}" for number in (*range(heavy), *range(TALLIES_MAX + 1 - 24, TALLIES_MAX + 1))}
    assert kept == set(user.state.items)


def test_oldest_exclusions_leave() -> None:
    """The newest 1,024 excluded items stay, by time, then item id."""
    user = User()
    for number in range(EXCLUDED_MAX + 2):
        user.do(START_MS + number, number + 1, f"i{number}", PURCHASE)
    assert len(user.state.excluded) == EXCLUDED_MAX
    assert not {"i0", "i1"} & set(user.state.excluded)
    assert user.do(START_MS, 10**6, "old", PURCHASE) == "late"
    assert "old" not in user.state.excluded


def test_impressions_count_apart() -> None:
    """An impression counts what it showed, each item once, and never enters `recent`."""
    user = User()
    assert user.look(START_MS + 5, 1, "a", "b", "a") == "applied"
    assert user.look(START_MS, 2, "b") == "applied"
    assert user.look(START_MS, 2, "b") == "duplicates"
    assert user.state.impressions == {"a": Shown(1, START_MS + 5), "b": Shown(2, START_MS + 5)}
    assert user.state.recent == []
    assert user.state.events_applied == {"impressions": 2}


def test_newest_copy_of_an_impression_stands() -> None:
    """An impression told with two times counts once, at the newer time, in either order."""
    for times in ((0, 9), (9, 0)):
        user = User()
        assert [user.look(START_MS + time, 1, "a") for time in times] == ["applied", "duplicates"]
        assert user.state.impressions == {"a": Shown(1, START_MS + 9)}
        assert user.state.seen == [(START_MS + 9, 1)]


def test_old_impressions_are_late() -> None:
    """Only the newest impressions are remembered; what their floor has passed is not counted again."""
    user = User()
    for day in range(SEEN_MIN + 1):
        user.look(START_MS + day * DAY_MS, day + 1, "a")
    assert user.look(START_MS, 1, "a") == "late"
    assert user.state.impressions["a"].times == SEEN_MIN + 1


def test_newest_shown_items_stay() -> None:
    """Of the shown items the newest 64 stay."""
    user = User()
    for number in range(SHOWN_MAX + 6):
        user.look(START_MS + number, number + 1, f"i{number}")
    assert {f"i{number}" for number in range(6, SHOWN_MAX + 6)} == set(user.state.impressions)
