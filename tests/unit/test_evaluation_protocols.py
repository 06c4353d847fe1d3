"""Protocols: what is learned, who is asked when, what is right; and that no list knows what it must not."""

from __future__ import annotations

import numpy as np
import pytest

from models.interactions import Asking, Int32, Interactions
from streams.errors import ConfigurationError
from streams.evaluation.driving import answers, delayed
from streams.evaluation.protocols import cold_start, leave_one_out, prequential, time_split

MINUTE_MS = 60_000


def log_of(*events: tuple[int, int, int], sessions: tuple[int, ...] = ()) -> Interactions:
    """Return (user, item, minute) clicks."""
    users, items, minutes = (np.array(column, np.int64) for column in zip(*events, strict=True))
    return Interactions(
        users.astype(np.int32),
        items.astype(np.int32),
        np.ones(len(users), np.uint8),
        minutes * MINUTE_MS,
        np.array(sessions or [-1] * len(users), np.int32),
        np.full(len(users), -1, np.int32),
    )


class Newest:
    """Recommends what happened last, to whomever: its lists tell what it knew."""

    def __init__(self) -> None:
        self.name = "newest"
        self.items: list[int] = []
        self.fits: list[int] = []
        self._seen: set[tuple[int, int]] = set()

    def learn(self, log: Interactions) -> None:
        """Note the items."""
        self.items += log.items.tolist()
        self._seen |= set(zip(log.users.tolist(), log.items.tolist(), strict=True))

    def fit(self) -> None:
        """Note how much was learned."""
        self.fits.append(len(self.items))

    def recommend(self, asking: Asking, size: int, *, exclude_seen: bool) -> Int32:
        """Return the newest items, each once."""
        found = np.full((len(asking.users), size), -1, np.int32)
        for row, user in zip(found, asking.users.tolist(), strict=True):
            items = [
                item for item in dict.fromkeys(self.items[::-1]) if not exclude_seen or (user, item) not in self._seen
            ]
            row[: len(items)] = items[:size]
        return found


def ignored(done: int) -> None:
    """Show no progress."""


def test_leave_one_out_holds_out_the_last_event_of_each_user() -> None:
    """The target is the last in the log, also among events of one moment; all else is learned."""
    plan = leave_one_out(log_of((0, 1, 0), (0, 2, 5), (1, 3, 5), (0, 4, 5)))
    assert [1, 2] == plan.learned.items.tolist()
    assert [1, 0] == plan.questions.users.tolist() == plan.asking.users.tolist()
    assert [3, 4] == plan.questions.targets.tolist()
    assert [2, 3] == plan.questions.before.tolist()
    assert [1, 2] == plan.questions.ends.tolist()
    assert [] == plan.told.tolist()


def test_cold_start_asks_new_users_after_their_first_events() -> None:
    """Every tenth user is unknown until asked, and asked after 0, 1, 2, 3, 5 and 10 events; all others are learned."""
    events = [(user, 20 * user + step, 30 * step + user) for step in range(13) for user in range(12)]
    log = log_of(*sorted(events, key=lambda event: event[2]))
    plan = cold_start(log)
    assert set(range(12)) - {0, 10} == set(plan.learned.users.tolist())
    assert [(20 * user + had) for had in (0, 1, 2, 3, 5, 10) for user in (0, 10)] == plan.questions.targets.tolist()
    lists = answers(Newest(), log, plan, 20, progress=ignored).excluded
    for made, user, target in zip(lists.tolist(), plan.questions.users, plan.questions.targets, strict=True):
        assert target not in made
        assert target % 20 == len([position for position in plan.told if log.users[position] == user][: target % 20])


def test_cold_start_needs_users_to_learn_from() -> None:
    """A log of one user has none."""
    with pytest.raises(ConfigurationError, match="several users"):
        cold_start(log_of((0, 1, 0), (0, 2, 1)))


def test_a_time_split_asks_each_user_once_for_all_that_is_held_out() -> None:
    """Targets are distinct items, and so are the users; nothing from the split on is learned."""
    log = log_of((0, 1, 0), (1, 2, 1), (0, 3, 5), (2, 4, 6), (0, 3, 7), (0, 5, 8))
    plan = time_split(log, 5 * MINUTE_MS)
    assert [1, 2] == plan.learned.items.tolist()
    assert [0, 2] == plan.questions.users.tolist()
    assert [3, 5, 4] == plan.questions.targets.tolist()
    assert [2, 3] == plan.questions.ends.tolist()
    assert [2, 2] == plan.questions.before.tolist()
    assert {5 * MINUTE_MS} == set(plan.asking.ts_ms.tolist())


def test_a_prequential_list_knows_all_before_its_event_and_nothing_from_it_on() -> None:
    """
    The newest item known is that of the event before, but for events told together.

    Neighbours in the log by other users are told together, so none of them knows the others.
    """
    log = log_of((0, 1, 0), (0, 2, 1), (0, 3, 2), (1, 4, 3), (0, 5, 4), (0, 6, 5))
    system = Newest()
    plan = prequential(log, 2 * MINUTE_MS)
    lists = answers(system, log, plan, 3, progress=ignored)
    assert [3, 4, 5, 6] == plan.questions.targets.tolist()
    assert [[2, 1, -1], [2, 1, -1], [4, 3, 2], [5, 4, 3]] == lists.allowed.tolist()
    assert [[-1, -1, -1], [2, 1, -1], [4, -1, -1], [4, -1, -1]] == lists.excluded.tolist()


def test_prequential_fits_at_the_cut_and_each_time_the_interval_passes() -> None:
    """A fit knows all that was told before the interval's end."""
    log = log_of(*((0, item, 10 * item) for item in range(8)))
    system = Newest()
    answers(system, log, prequential(log, 20 * MINUTE_MS), 3, refit_ms=30 * MINUTE_MS, progress=ignored)
    assert [2, 3, 6] == system.fits


def test_within_sessions_the_first_event_is_told_but_not_asked_about() -> None:
    """A session that began before the test has its first event behind it; without sessions it is refused."""
    events = ((0, 1, 0), (0, 2, 1), (1, 3, 2), (0, 4, 3), (1, 5, 4), (1, 6, 5))
    log = log_of(*events, sessions=(0, 0, 1, 2, 1, -1))
    plan = prequential(log, MINUTE_MS, within_session=True)
    assert [2, 5] == plan.questions.targets.tolist()
    assert [1, 2, 3, 4, 5] == plan.told.tolist()
    with pytest.raises(ConfigurationError, match="session_id"):
        prequential(log_of(*events), MINUTE_MS, within_session=True)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_late_lists_know_only_what_was_told_until_the_last_boundary(exclude_seen: bool) -> None:  # noqa: FBT001
    """But items met since are taken out all the same, so that only the age of the lists differs."""
    log = log_of((0, 1, 0), (1, 2, 1), (0, 3, 10), (0, 2, 11), (1, 3, 12), (0, 4, 20))
    plan = prequential(log, 10 * MINUTE_MS)
    found = delayed(
        Newest(), log, plan, 3, every_ms=10 * MINUTE_MS, exclude_seen=exclude_seen, progress=ignored
    )  # fmt: skip
    expected = {
        True: [[2, -1, -1], [2, -1, -1], [1, -1, -1], [-1, -1, -1]],
        False: [[2, 1, -1], [2, 1, -1], [2, 1, -1], [3, 2, 1]],
    }
    assert expected[exclude_seen] == found.tolist()


def test_a_delay_below_the_gaps_changes_no_list() -> None:
    """Told every minute where events are a minute apart, lists are those of telling each event."""
    log = log_of(*((number % 2, number, number) for number in range(12)))
    plan = prequential(log, 6 * MINUTE_MS)
    at_once = answers(
        Newest(), log_of(*((number % 2, number, number) for number in range(12))), plan, 5, progress=ignored
    )
    late = delayed(Newest(), log, plan, 5, every_ms=MINUTE_MS, exclude_seen=False, progress=ignored)
    # Events of two users that follow each other are told together; a minute's delay tells them apart.
    assert late[::2].tolist() == at_once.allowed[::2].tolist()


def test_a_test_that_would_be_empty_is_refused_with_the_span_of_the_log() -> None:
    """The sentence says where the log begins and ends."""
    log = log_of((0, 1, 1), (0, 2, 2))
    with pytest.raises(ConfigurationError, match=r"nothing before it.*1970-01-01T00:01:00 to 1970-01-01T00:02:00"):
        time_split(log, 0)
    with pytest.raises(ConfigurationError, match="nothing at or after it"):
        prequential(log, 3 * MINUTE_MS)
    with pytest.raises(ConfigurationError, match="no events"):
        leave_one_out(log.at(slice(0, 0)))
