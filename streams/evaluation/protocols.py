"""
Protocols: what of a log is learned, who is asked for lists when, and which items are right.

Every system is driven alike. Nothing is sampled: each list is chosen from all items.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.interactions import Asking, Interactions, Recommender
from streams.errors import ConfigurationError
from streams.evaluation.progress import Progress
from streams.evaluation.results import Lists, Questions

#: Events learned, and users asked, between two steps of a progress bar.
_STEP = 16_384
_ASKED = 1_024


class Plan(NamedTuple):
    """
    A protocol laid out over a log.

    Attributes
    ----------
    learned
        The events every system knows before it is asked the first time.
    questions
        What is asked, in the order of `asking`.
    asking
        Who asks, and when.
    """

    learned: Interactions
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
        raise ConfigurationError("the log is empty")
    last = np.full(int(log.users.max()) + 1, -1, np.int64)
    # The last assignment of an index stands.
    last[log.users] = np.arange(len(log.users))
    last = np.sort(last[last >= 0])
    is_target = np.zeros(len(log.users), np.bool_)
    is_target[last] = True
    targets = log.at(last)
    questions = Questions(targets.users, last, targets.items, np.arange(1, len(last) + 1))
    asking = Asking(targets.users, targets.sessions, targets.ts_ms)
    return Plan(log.at(~is_target), questions, asking)


def answer(recommender: Recommender, plan: Plan, size: int, progress: Progress = lambda _: None) -> Lists:
    """
    Return the lists of a system for the questions of leave-one-out or a time split.

    It learns, fits once, and is asked.
    """
    learn(recommender, plan.learned, progress)
    recommender.fit()
    count = len(plan.asking.users)
    excluded, allowed = (np.full((count, size), -1, np.int32) for _ in range(2))
    for start in range(0, count, _ASKED):
        part = slice(start, start + _ASKED)
        asking = Asking(plan.asking.users[part], plan.asking.sessions[part], plan.asking.ts_ms[part])
        excluded[part] = recommender.recommend(asking, size, exclude_seen=True)
        allowed[part] = recommender.recommend(asking, size, exclude_seen=False)
        progress(len(asking.users))
    return Lists(excluded, allowed)


def learn(recommender: Recommender, log: Interactions, progress: Progress = lambda _: None) -> None:
    """Let a system learn a log, step by step."""
    for start in range(0, len(log.users), _STEP):
        part = log.at(slice(start, start + _STEP))
        recommender.learn(part)
        progress(len(part.users))
