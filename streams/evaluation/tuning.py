"""
Looking for ranking parameters: Optuna proposes, the live path answers a validation cut, NDCG@10 decides.

What is held out for the test is never learned and never asked about (`validation`). The log is learned once; only the
ranking is done again for each proposal.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import optuna

from models.interactions import Interactions
from models.measures import accuracy
from models.ranking import RankingParameters
from streams.evaluation.live import Live
from streams.evaluation.progress import Progress
from streams.evaluation.protocols import Plan, leave_one_out, time_split

#: What is looked for, and up to where. `repeat` counts only in lists that may hold items met before, `network` only
#: where there is a scorer.
SPACE = {
    "short": 1.5, "long": 1.5, "popularity": 1.0, "neighbours": 2.0, "history": 4.0, "followers": 2.0, "repeat": 12.0,
    "half_life_events": 60.0, "trending": 1.0, "segment": 1.0, "category": 1.0, "price": 1.0,
    "interests": 1.5, "network": 2.0,
}  # fmt: skip
_SIZE = 10


class Tuned(NamedTuple):
    """
    The best parameters found.

    Attributes
    ----------
    ndcg_before, ndcg
        NDCG@10 of the parameters it began with, and of these, on the validation cut.

    """

    parameters: RankingParameters
    ndcg_before: float
    ndcg: float


def validation(log: Interactions, test_from_ms: int | None, validate_from_ms: int | None) -> Plan:
    """
    Return a plan over what is not held out for the test.

    The test is everything from `test_from_ms` on, or without it the last event of each user. Of the rest, everything
    from `validate_from_ms` on is asked about, or without it the last event of each user.

    Raises
    ------
    ConfigurationError
        When nothing is left to learn or to ask about.

    """
    if test_from_ms is None:
        # The last events stand in order of time, as the others do.
        left = np.ones(len(log.users), np.bool_)
        left[leave_one_out(log).questions.before] = False
        log = log.at(left)
    else:
        log = log.at(slice(0, int(np.searchsorted(log.ts_ms, test_from_ms))))
    return leave_one_out(log) if validate_from_ms is None else time_split(log, validate_from_ms)


def tune(
    live: Live, plan: Plan, items: int, begin: RankingParameters, *, trials: int, exclude_seen: bool, scorer: bool,
    seed: int, progress: Progress,
) -> Tuned:  # fmt: skip
    """
    Return the best parameters of so many proposals, `begin` being the first.

    Parameters
    ----------
    live
        Has learned what the plan says, and is fitted.
    scorer
        Whether it has one.

    """

    def value(parameters: RankingParameters) -> float:
        live.rank_by(parameters)
        lists = live.recommend(plan.asking, _SIZE, exclude_seen=exclude_seen)
        candidates = np.full(len(lists), items, np.int64)
        measured = accuracy(lists, plan.questions.targets, plan.questions.ends, candidates)
        progress(1)
        return float(measured[f"ndcg@{_SIZE}"].mean())

    without = {"repeat"} if exclude_seen else set()
    without |= set() if scorer else {"network"}
    names = [name for name in SPACE if name not in without]

    def objective(trial: optuna.Trial) -> float:
        proposed: dict[str, Any] = {name: trial.suggest_float(name, 0.0, SPACE[name]) for name in names}
        return value(dataclasses.replace(begin, **proposed))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial({name: min(getattr(begin, name), SPACE[name]) for name in names})
    study.optimize(objective, n_trials=trials)
    best = dataclasses.replace(begin, **study.best_params)
    return Tuned(best, float(study.trials[0].value or 0.0), study.best_value)
