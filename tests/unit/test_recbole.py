"""RecBole's models, as far as they can be tried without RecBole."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from models.interactions import Asking, Interactions
from streams.errors import ConfigurationError, DependencyError
from streams.evaluation.recbole import RecBole


def test_a_python_without_recbole_is_named_as_the_reason() -> None:
    """Training fails with what that Python said."""
    column = np.zeros(3, np.int32)
    model = RecBole("GRU4Rec", 1, Path(sys.executable))
    model.learn(Interactions(column, column, column.astype(np.uint8), column.astype(np.int64), column, column))
    with pytest.raises(DependencyError, match=r"training GRU4Rec failed: .*No module named 'recbole'"):
        model.fit()


def test_longer_lists_than_trained_for_are_refused() -> None:
    """Lists are made while the model is there; afterwards no longer ones can be."""
    column = np.zeros(1, np.int32)
    with pytest.raises(ConfigurationError, match="lists of 100 items, not 101"):
        RecBole("SASRec", 1, Path(sys.executable)).recommend(
            Asking(column, column, column.astype(np.int64)), 101, exclude_seen=True
        )
