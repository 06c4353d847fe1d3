"""What can go wrong with a model, as the person who configured it sees it."""

from __future__ import annotations


class ModelError(Exception):
    """A model folder is incomplete, altered or refused, or the model gave vectors that cannot be used."""
