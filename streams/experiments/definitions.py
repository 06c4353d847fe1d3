"""Experiment definitions: what a file or a record of `experiments` may say, checked before anything uses it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError, model_validator

from models.ranking import RankingParameters
from streams.errors import ConfigurationError, RecordFormatError

#: Ranking parameters a variant may set, with their types.
PARAMETERS = {field.name: type(field.default) for field in dataclasses.fields(RankingParameters)}
_MAX_WEIGHT = 100.0
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _checked_ranking(value: object) -> object:
    if not isinstance(value, dict):
        return value
    for name, setting in value.items():
        if name not in PARAMETERS:
            raise ValueError(f"unknown ranking parameter {name!r}; known are {', '.join(sorted(PARAMETERS))}")
        if isinstance(setting, bool) != (PARAMETERS[name] is bool):
            raise ValueError(f"{name} must be {'true or false' if PARAMETERS[name] is bool else 'a number'}")
        if isinstance(setting, int | float) and not 0 <= setting <= _MAX_WEIGHT:
            raise ValueError(f"{name} must lie in 0..{_MAX_WEIGHT:g}")
    # Some may not lie so far.
    RankingParameters(**value)
    return value


#: Ranking parameters that differ from others.
Ranking = Annotated[dict[str, float | StrictBool], BeforeValidator(_checked_ranking)]


class Variant(_Strict):
    """
    One arm.

    Attributes
    ----------
    weight
        Its part of the covered users, relative to the other variants' weights.
    ranking
        Ranking parameters that differ from the policy's.

    """

    name: str = Field(pattern=_NAME)
    weight: float = Field(1.0, ge=0, le=1e6)
    ranking: Ranking = Field(default_factory=dict)


class Policy(_Strict):
    """
    Ranking parameters from a file, as `freshet tune` writes it.

    Attributes
    ----------
    ranking
        Those that differ from Freshet's own.
    made
        How they were found, for the reader.

    """

    ranking: Ranking
    made: dict[str, Any] = Field(default_factory=dict)


class Experiment(_Strict):
    """
    One experiment.

    Attributes
    ----------
    salt
        Keys the hash that places users; the key when empty. Experiments of the same salt place users alike.
    revision
        Grows with each edit; stands on every list.
    coverage
        Part of the users, 0..1, that takes part. Raising it never moves a user who already does.
    overrides
        Users put into a variant by name, whatever their bucket; marked as forced.

    """

    key: str = Field(pattern=_NAME)
    salt: str = Field("", max_length=64)
    revision: int = Field(1, ge=0, le=2**53)
    unit: Literal["user"] = "user"
    coverage: float = Field(1.0, ge=0, le=1)
    variants: tuple[Variant, ...] = Field(min_length=1, max_length=100)
    overrides: dict[str, str] = Field(default_factory=dict)
    enabled: bool = True

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise ValueError(f"experiment {self.key}: two variants have the same name")
        if not sum(variant.weight for variant in self.variants) > 0:
            raise ValueError(f"experiment {self.key}: the weights sum to 0")
        if strange := sorted(set(self.overrides.values()) - set(names)):
            raise ValueError(f"experiment {self.key}: an override names the unknown variant {strange[0]!r}")
        if len(self.salt.encode()) > 64:
            raise ValueError(f"experiment {self.key}: the salt is longer than 64 bytes")
        return self


class _File(_Strict):
    experiments: tuple[Experiment, ...]

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        keys = [experiment.key for experiment in self.experiments]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"experiment {twice[0]} is defined twice")
        return self


def load_file(path: Path) -> list[Experiment]:
    """
    Read a file `{"experiments": [...]}`.

    Raises
    ------
    ConfigurationError
        When it cannot be read or says something that cannot be.

    """
    try:
        return list(_File.model_validate_json(path.read_bytes()).experiments)
    except OSError as error:
        raise ConfigurationError(f"the experiments file {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigurationError(f"the experiments file {path} is not usable: {_sentence(error)}") from None


def load_ranking(path: Path | None) -> RankingParameters:
    """
    Read a file `{"ranking": {...}}`; Freshet's own parameters without one.

    Raises
    ------
    ConfigurationError
        When it cannot be read or says something that cannot be.

    """
    if path is None:
        return RankingParameters()
    try:
        changes: dict[str, Any] = dict(Policy.model_validate_json(path.read_bytes()).ranking)
    except OSError as error:
        raise ConfigurationError(f"FRESHET_RANKING_FILE {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigurationError(f"FRESHET_RANKING_FILE {path} is not usable: {_sentence(error)}") from None
    return RankingParameters(**changes)


def decode_experiment(key: str, value: bytes) -> Experiment:
    """
    Read a record of `experiments`.

    Raises
    ------
    RecordFormatError
        When it is not an experiment, or not the one its key names.

    """
    try:
        experiment = Experiment.model_validate_json(value)
    except ValidationError as error:
        raise RecordFormatError(f"the experiment is not usable: {_sentence(error)}") from None
    if experiment.key != key:
        raise RecordFormatError(f"the record's key is {key!r}, the experiment's {experiment.key!r}")
    return experiment


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
