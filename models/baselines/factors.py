"""
Users and items as short vectors whose product is the score, by the `implicit` library.

ALS: Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008. BPR: Rendle et al.,
"BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009. Both need the extra `evaluation`.
"""

from __future__ import annotations

import numpy as np

from models.baselines.baseline import Baseline, Doubles
from models.interactions import Asking

try:
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.cpu.bpr import BayesianPersonalizedRanking
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits
except ImportError as error:
    raise ImportError(
        "BPR and ALS need the extra `evaluation`: pip install 'freshet[evaluation]'", name=error.name
    ) from error

#: One seed and one thread: the same factors on every run.
_SEED = 2026


class ALS(Baseline):
    """Alternating least squares; a user's factors are solved from the history as it is when the list is made."""

    def __init__(self, users: int, items: int, factors: int, regularisation: float, confidence: float) -> None:
        """Weigh an item met c times 1 + `confidence` x c against 1 for one never met."""
        super().__init__("ALS", users, items)
        with threadpool_limits(1, "blas"):
            self._model = AlternatingLeastSquares(
                factors, regularization=regularisation, alpha=confidence, iterations=15, num_threads=1,
                calculate_training_loss=False, random_state=_SEED,
            )  # fmt: skip

    def fit(self) -> None:
        """Solve for the factors anew."""
        # Its products are of matrices too small for two threads, and it warns of them.
        with threadpool_limits(1, "blas"):
            self._model.fit(_histories(self), show_progress=False)

    def score(self, asking: Asking, scores: Doubles) -> None:
        """Solve for the factors of each who asks, and multiply; without factors or a history, all items are alike."""
        if self._model.item_factors is None:
            return
        for row, user in enumerate(asking.users):
            items, counts = self.events.history(int(user))
            if len(items):
                history = csr_matrix(
                    (counts.astype(np.float32), items, [0, len(items)]), shape=(1, len(self.events.met))
                )
                scores[row] = self._model.item_factors @ self._model.recalculate_user(0, history)


class BPR(Baseline):
    """Factors that rank what a user met above what not; a user who came after the last fit gets popular items."""

    def __init__(self, users: int, items: int, factors: int, regularisation: float, iterations: int) -> None:
        super().__init__("BPR", users, items)
        self._fitted = np.zeros(users, bool)
        self._model = BayesianPersonalizedRanking(
            factors, learning_rate=0.05, regularization=regularisation, iterations=iterations, num_threads=1,
            random_state=_SEED,
        )  # fmt: skip

    def fit(self) -> None:
        """Descend anew from random factors."""
        histories = _histories(self)
        self._fitted = np.diff(histories.indptr) > 0
        self._model.user_factors = self._model.item_factors = None
        self._model.fit(histories, show_progress=False)

    def score(self, asking: Asking, scores: Doubles) -> None:
        """Multiply the factors of users who have them."""
        known = np.flatnonzero(self._fitted[asking.users])
        if len(known):
            scores[known] = self._model.user_factors[asking.users[known]] @ self._model.item_factors.T


def _histories(baseline: Baseline) -> csr_matrix:
    begins, items, counts = baseline.events.histories()
    return csr_matrix((counts.astype(np.float32), items, begins), shape=(len(begins) - 1, len(baseline.events.met)))
