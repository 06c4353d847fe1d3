"""
Factors by alternating least squares, as the `implicit` library solves for them; it comes with the extra `evaluation`.

Hu, Koren and Volinsky: "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008.
"""

from __future__ import annotations

import numpy as np

from models.baselines.baseline import Baseline, Doubles
from models.interactions import Asking

try:
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits
except ImportError as error:
    raise ImportError("ALS needs the extra `evaluation`: pip install 'freshet[evaluation]'", name=error.name) from error

#: One seed, and one thread below: the same factors on every run.
_SEED = 2026


class ALS(Baseline):
    """Alternating least squares; a user's factors are solved from the history as it is when the list is made."""

    def __init__(self, users: int, items: int, factors: int, regularisation: float, confidence: float) -> None:
        """Weigh an item met c times `confidence` x c, against 1 for one never met."""
        super().__init__("ALS", users, items)
        with threadpool_limits(1, "blas"):
            self._model = AlternatingLeastSquares(
                factors, regularization=regularisation, alpha=confidence, iterations=15, num_threads=1,
                calculate_training_loss=False, random_state=_SEED,
            )  # fmt: skip

    def fit(self) -> None:
        """Solve for the factors anew."""
        begins, items, counts = self.events.histories()
        shape = (len(begins) - 1, len(self.events.met))
        histories = csr_matrix((counts.astype(np.float32), items, begins), shape=shape)
        # Its products are of matrices too small for two threads, and it warns of them.
        with threadpool_limits(1, "blas"):
            self._model.fit(histories, show_progress=False)

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
