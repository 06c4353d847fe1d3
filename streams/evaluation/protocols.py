"""
Protocols: what of a log is learned, who is asked for lists when, and which items are right.

Every system is driven alike (`streams.evaluation.driving`). Nothing is sampled: lists are chosen from all items.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.interactions import Asking, Int64, Interactions
from models.measures import distinct
from streams.errors import ConfigurationError
from streams.evaluation.results import Questions


class Plan(NamedTuple):
    """
    A protocol laid out over a log.

    Attributes
    ----------
    learned
        The events every system knows before it is asked the first time.
    told
        (k,) int64: positions in the log of the events that are told one after the other while lists are asked for;
        none where all is asked at once.
    questions, asking
        What is asked, in order of time where events are told meanwhile; and who asks, when.

    """

    learned: Interactions
    told: Int64
    questions: Questions
    asking: Asking


def leave_one_out(log: Interactions) -> Plan:
    """
    Hold out the last event of each user; all other events are learned first, then each user is asked once.

    Raises
    ------
    ConfigurationError
        When the log is empty.

    """
    if not len(log.users):
        raise ConfigurationError("the log has no events")
    last = _last_of_each(log.users)
    is_target = np.zeros(len(log.users), np.bool_)
    is_target[last] = True
    targets = log.at(last)
    questions = Questions(targets.users, last, targets.items, np.arange(1, len(last) + 1))
    return Plan(log.at(~is_target), _NOTHING, questions, Asking(targets.users, targets.sessions, targets.ts_ms))


def time_split(log: Interactions, test_from_ms: int) -> Plan:
    """
    Hold out everything from a time on; each user who did anything then is asked once, at that time.

    The targets of a user are all items met from then on.

    Raises
    ------
    ConfigurationError
        When nothing happened before that time, or nothing from then on.

    """
    cut = _cut(log, test_from_ms)
    held_out = log.at(slice(cut, None))
    order = np.argsort(held_out.users, kind="stable")
    users, counts = np.unique(held_out.users, return_counts=True)
    targets, ends = distinct(held_out.items[order], np.cumsum(counts))
    count = len(users)
    asking = Asking(users, np.full(count, -1, np.int32), np.full(count, test_from_ms, np.int64))
    questions = Questions(users, np.full(count, cut, np.int64), targets, ends)
    return Plan(log.at(slice(0, cut)), _NOTHING, questions, asking)


def prequential(log: Interactions, test_from_ms: int, *, within_session: bool = False) -> Plan:
    """
    Ask before every event from a time on for a list with that event's item as target; then the event is told.

    Parameters
    ----------
    within_session
        Ask only before events that are not the first of their session. All are told.

    Raises
    ------
    ConfigurationError
        When nothing happened before that time, or nothing to ask about from then on.

    """
    cut = _cut(log, test_from_ms)
    told = np.arange(cut, len(log.users))
    positions = told
    if within_session:
        if not (log.sessions >= 0).any():
            raise ConfigurationError("--within-session needs a log whose events have a session_id")
        positions = told[_is_later_in_session(log)[cut:]]
        if not len(positions):
            raise ConfigurationError("--test-from leaves no session with a second event to ask about")
    asked = log.at(positions)
    questions = Questions(asked.users, positions, asked.items, np.arange(1, len(positions) + 1))
    return Plan(log.at(slice(0, cut)), told, questions, Asking(asked.users, asked.sessions, asked.ts_ms))


def cold_start(log: Interactions) -> Plan:
    """
    Ask for lists of every tenth user after 0, 1, 2, 3, 5 and 10 events, with the item of the next event as target.

    All events of all other users are learned first; these users' own are told one after the other.

    Raises
    ------
    ConfigurationError
        When the log has no second user.

    """
    is_new = log.users % _ONE_IN == 0
    if is_new.all():
        raise ConfigurationError("cold-start needs a log with several users: some are learned, others come new")
    positions = np.flatnonzero(is_new)
    had = _events_before(log.users[positions])
    told = positions[had <= _HAD[-1]]
    asked_at = positions[np.isin(had, _HAD)]
    asked = log.at(asked_at)
    questions = Questions(asked.users, asked_at, asked.items, np.arange(1, len(asked_at) + 1))
    return Plan(log.at(~is_new), told, questions, Asking(asked.users, asked.sessions, asked.ts_ms))


#: Of how many users one is new in `cold_start`, and after how many events lists are asked for.
_ONE_IN = 10
_HAD = (0, 1, 2, 3, 5, 10)
_NOTHING: Int64 = np.empty(0, np.int64)


def _last_of_each(users: npt.NDArray[np.int32]) -> Int64:
    """Return the position of the last event of each user, ascending."""
    last = np.full(int(users.max()) + 1, -1, np.int64)
    np.maximum.at(last, users, np.arange(len(users)))
    return np.sort(last[last >= 0])


def _events_before(users: npt.NDArray[np.int32]) -> Int64:
    """
    Return how many events before each (n,) are of its user.

    >>> _events_before(np.array([4, 7, 4, 4], np.int32)).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(users, kind="stable")
    _, first, counts = np.unique(users[order], return_index=True, return_counts=True)
    before = np.empty(len(users), np.int64)
    before[order] = np.arange(len(users)) - np.repeat(first, counts)
    return before


def _is_later_in_session(log: Interactions) -> npt.NDArray[np.bool_]:
    """Return which events (n,) have one before them in their session; users of one session are told apart."""
    pairs = np.stack((log.users.astype(np.int64), log.sessions.astype(np.int64)), axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    later = log.sessions >= 0
    later[first] = False
    return later


def _cut(log: Interactions, test_from_ms: int) -> int:
    cut = int(np.searchsorted(log.ts_ms, test_from_ms))
    if not len(log.users):
        raise ConfigurationError("the log has no events")
    if cut in {0, len(log.users)}:
        side = "before" if cut == 0 else "at or after"
        raise ConfigurationError(
            f"--test-from {_iso(test_from_ms)} leaves nothing {side} it: "
            f"the log goes from {_iso(int(log.ts_ms[0]))} to {_iso(int(log.ts_ms[-1]))}"
        )
    return cut


def _iso(ts_ms: int) -> str:
    return str(np.datetime64(ts_ms, "ms").astype("datetime64[s]"))
