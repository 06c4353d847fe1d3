"""The learned scorer of a ranker: read from its file, silent while other vectors are served than it was taught on."""

from __future__ import annotations

from pathlib import Path

import structlog

from models.errors import ModelError
from models.scorer import SILENT, Scorer
from models.scorer_file import TrainedScorer, load_scorer
from streams import metrics
from streams.errors import ConfigurationError

_LOG = structlog.get_logger(__name__)


class Scoring:
    """
    What ranking asks for a scorer.

    Parameters
    ----------
    path
        Its file; None for no scorer.

    Raises
    ------
    ConfigurationError
        When the file cannot be used.

    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._trained: TrainedScorer | None = None
        #: Of the space that was asked for last, and whether the scorer speaks of it.
        self._told: tuple[str, bool] | None = None
        self.read()

    def read(self) -> None:
        """
        Take the file as it is now, from the next ranking on.

        Raises
        ------
        ConfigurationError
            When it cannot be used; the scorer stays as it was.

        """
        if self._path is None:
            return
        try:
            self._trained = load_scorer(self._path)
        except ModelError as error:
            raise ConfigurationError(f"FRESHET_SCORER_FILE is not usable: {error}") from error
        self._told = None

    def of(self, fingerprint: str, dim: int) -> Scorer:
        """Return the scorer for vectors of an encoder; a silent one for those it was not taught on."""
        trained = self._trained
        if trained is None:
            return SILENT
        speaks = (trained.fingerprint, trained.dim) == (fingerprint, dim)
        if self._told != (fingerprint, speaks):
            self._told = fingerprint, speaks
            metrics.SCORER_SPEAKS.set(speaks)
            if speaks:
                _LOG.info("scorer_speaks", model=fingerprint, hidden=trained.hidden)
            else:
                _LOG.warning("scorer_silent", model=fingerprint, taught_on=trained.fingerprint)
        return trained.scorer if speaks else SILENT
