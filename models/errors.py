"""What can go wrong with a model or an image, as the person who configured it sees it."""

from __future__ import annotations


class ModelError(Exception):
    """A model folder is incomplete, altered or refused, or the model gave vectors that cannot be used."""


class ImageError(Exception):
    """
    An image that cannot be used; the text says why, after "the image".

    Attributes
    ----------
    outcome
        One of a closed set, safe as a metric label.

    """

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome
