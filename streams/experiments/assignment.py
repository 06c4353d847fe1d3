"""
Which users take part in which experiment: a keyed hash, nothing stored.

A user's place is 64 bits of BLAKE2b keyed by the experiment's salt. Variant i owns the range that starts at the sum
of the weights before it and is coverage x its weight long: more coverage lengthens ranges at their right edge only,
so nobody who takes part is moved.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Self

import structlog

from models.ranking import RankingParameters
from streams.errors import RecordFormatError
from streams.experiments.definitions import Experiment, decode_experiment
from streams.wire.recommendations import Assigned

_LOG = structlog.get_logger(__name__)

_HASH_BITS = 64
BUCKETS = 10_000


def user_hash(salt: bytes, user_id: str) -> int:
    """
    Return 64 bits that place a user in an experiment.

    >>> user_hash(b"exp-1", "u1") * BUCKETS >> 64
    8618
    """
    return int.from_bytes(hashlib.blake2b(user_id.encode(), digest_size=8, key=salt).digest(), "big")


class _Compiled:
    """An experiment made ready: exact integer bounds of each variant's range."""

    __slots__ = ("bounds", "experiment", "salt")

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.salt = (experiment.salt or experiment.key).encode()
        # Fractions, because a float's last bit would move users at the edges of ranges.
        weights = [Fraction(variant.weight) for variant in experiment.variants]
        whole, coverage = sum(weights), Fraction(experiment.coverage)
        self.bounds: list[tuple[int, int, str]] = []
        before = Fraction(0)
        for variant, weight in zip(experiment.variants, weights, strict=True):
            start, end = before / whole, (before + coverage * weight) / whole
            self.bounds.append((int(start * 2**_HASH_BITS), int(end * 2**_HASH_BITS), variant.name))
            before += weight

    def assign(self, user_id: str) -> Assigned | None:
        experiment = self.experiment
        place = user_hash(self.salt, user_id)
        bucket = place * BUCKETS >> _HASH_BITS
        if (forced := experiment.overrides.get(user_id)) is not None:
            return Assigned(forced, bucket, experiment.revision, forced=True)
        for start, end, name in self.bounds:
            if start <= place < end:
                return Assigned(name, bucket, experiment.revision)
        return None


class Experiments:
    """
    A set of experiments; never changes, `updated` makes the next one.

    Parameters
    ----------
    definitions
        The experiments in force; later ones replace earlier ones of the same key.
    base
        Ranking parameters of users whose variants change nothing.

    """

    def __init__(self, definitions: Iterable[Experiment] = (), base: RankingParameters | None = None) -> None:
        self._base = base or RankingParameters()
        # Sorted, so that where two experiments set one parameter the last key wins, everywhere alike.
        named = sorted({experiment.key: experiment for experiment in definitions}.items())
        self.definitions: Mapping[str, Experiment] = dict(named)
        self._compiled = [_Compiled(experiment) for _, experiment in named if experiment.enabled]
        self._ranking = {
            (experiment.key, variant.name): variant.ranking
            for _, experiment in named
            for variant in experiment.variants
        }
        self._parameters: dict[tuple[tuple[str, str], ...], RankingParameters] = {}

    def assign(self, user_id: str) -> dict[str, Assigned]:
        """Return the user's part in each experiment; none where it takes no part."""
        parts = ((compiled.experiment.key, compiled.assign(user_id)) for compiled in self._compiled)
        return {key: assigned for key, assigned in parts if assigned is not None}

    def parameters(self, assigned: Mapping[str, Assigned]) -> RankingParameters:
        """Return the ranking parameters of a user with these parts."""
        if not assigned:
            return self._base
        parts = tuple(sorted((key, part.variant) for key, part in assigned.items()))
        known = self._parameters.get(parts)
        if known is None:
            changes: dict[str, float | bool] = {}
            for part in parts:
                changes.update(self._ranking.get(part, {}))
            known = self._parameters[parts] = dataclasses.replace(self._base, **changes)  # type: ignore[arg-type]  # checked by Variant
        return known

    def rebased(self, base: RankingParameters) -> Self:
        """Return the set over other ranking parameters."""
        return type(self)(self.definitions.values(), base)

    def updated(self, key: str, definition: Experiment | None) -> Self:
        """Return the set with one experiment replaced, or removed for None."""
        definitions = dict(self.definitions)
        definitions.pop(key, None)
        if definition is not None:
            definitions[key] = definition
        return type(self)(definitions.values(), self._base)

    def told(self, key: str, value: bytes | None) -> Self:
        """Return the set after a record of `experiments`; a bad record is refused, logged, and changes nothing."""
        try:
            return self.updated(key, None if value is None else decode_experiment(key, value))
        except RecordFormatError as error:
            _LOG.warning("experiment refused", key=key, reason=str(error))
            return self
