"""The settings of a search among samples, the outcomes of points, and the search's state in a file."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ..types import ConfigError, Settings, as_numbers, validate_settings

Outcome = dict[str, list[float]]
"""Value and standard error of each quantity, by name."""


class SampleSettings(Settings):
    """The settings of a search among samples."""

    quantity: str
    """Outcome to optimise, for example ``OS``."""
    aim: Annotated[float, Field(allow_inf_nan=False)] | Literal["largest", "smallest"]
    """Value to find, or whether to find the sample with the largest or the smallest value."""
    features: tuple[str, ...] = Field(min_length=1)
    """Known numbers of each sample, such as composition or temperature, on which the quantity may depend smoothly."""
    parameters: tuple[str, ...] = Field(min_length=1)
    """Entries of each sample that a suggestion contains, such as its place: the names of the actuators."""
    limits: dict[str, tuple[float | None, float | None]] = Field(default_factory=dict)
    """Lowest and highest permitted value of other outcomes; null: no limit."""
    tolerance: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Distance from the wanted value at which the search ends, in its unit; 0: never. A sample must be within it with
    a probability of 0.9, given the standard error of its value."""
    min_gain: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Expected gain of the best sample below which the search ends, in the unit of the quantity. This needs twice as
    many measured samples as ``first``, whose values either differ or lie close together."""
    first: int = Field(default=3, ge=2)
    """Number of samples spread over the features that are measured before the search learns from them."""
    unit: str = ""
    """Unit of the quantity, for the texts of the reasons."""

    @model_validator(mode="after")
    def _tolerates_a_value(self) -> Self:
        if self.tolerance and isinstance(self.aim, str):
            raise ValueError(f"found tolerance {self.tolerance:g} with aim {self.aim}, expected a value as aim")
        return self

    @model_validator(mode="after")
    def _limits_leave_room(self) -> Self:
        for name, (low, high) in self.limits.items():
            if not (-math.inf if low is None else low) < (math.inf if high is None else high):
                raise ValueError(f"found limits of {name} from {low} to {high}, expected a lowest and a higher one")
        return self


class SearchState(Settings):
    """The state of a search as JSON values."""

    features: list[str]
    """Names of the features."""
    outcomes: list[str]
    """Names of the outcomes that the search learns."""
    candidates: list[dict[str, Any]]
    """Features and parameters of each candidate."""
    found: list[tuple[int, list[dict[str, tuple[float, float]]]]]
    """Number and outcomes of each measured candidate."""
    others: list[tuple[list[float], dict[str, tuple[float, float]]]]
    """Features and outcomes of measured points that are not candidates."""
    failures: list[tuple[int, int]]
    """Number of each failed candidate, and its number of failures."""

    @property
    def numbers(self) -> set[int]:
        """Numbers of the candidates that were tried."""
        return {k for k, _ in [*self.found, *self.failures]}

    @model_validator(mode="after")
    def _has_the_outcomes(self) -> Self:
        learnt = [outcome for _, outcomes in self.found for outcome in outcomes] + [o for _, o in self.others]
        if wrong := [outcome for outcome in learnt if {*outcome} != {*self.outcomes}]:
            raise ValueError(f"found outcomes {', '.join(wrong[0])}, expected {', '.join(self.outcomes)}")
        return self


def read_state(file: Path) -> SearchState:
    """Read the state of a search from its checkpoint.

    Raises
    ------
    ConfigError
            The file does not hold a state.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: found no JSON ({error}), expected the checkpoint of a search") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: found {type(content).__name__}, expected the checkpoint of a search")
    return validate_settings(content, SearchState, str(file))


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as it reads after a round trip through JSON."""
    return json.loads(json.dumps(row, default=lambda v: v.item() if isinstance(v, np.generic) else str(v)))


def read_outcome(point: Mapping[str, Any], names: Iterable[str]) -> Outcome:
    """Return the named outcomes of a point; NaN if a value or its error is not finite.

    Raises
    ------
    ValueError
        An outcome is missing, or is neither a number nor a pair (mean, standard error).
    """
    wanted = sorted(names)
    if missing := [name for name in wanted if name not in point]:
        raise ValueError(f"found outcomes {', '.join(map(str, point))}, expected {', '.join(missing)} too")
    return {name: _pair(name, point[name]) for name in wanted}


def read_number(id: Any) -> int | None:
    """Return the number of a candidate from its id, an integer or its digits; None for any other id.

    Raises
    ------
    ValueError
        The id is a boolean.
    """
    if isinstance(id, bool | np.bool):
        raise ValueError(f"found _id {id}, expected that of a suggestion")
    if isinstance(id, int | np.integer) or (isinstance(id, str) and id.isdecimal()):
        return int(id)
    return None


def _pair(name: str, value: Any) -> list[float]:
    if value is None:
        return [math.nan, 0.0]
    numbers = as_numbers(value)
    if numbers is None or numbers.size not in (1, 2):
        raise ValueError(f"found {name} = {value!r}, expected a number or a pair (mean, standard error)")
    mean, error = (float(numbers.flat[0]), float(numbers.flat[1]) if numbers.size == 2 else 0.0)
    if error < 0:
        raise ValueError(f"found {name} = {value!r}, expected a standard error of 0 or more")
    if math.isinf(error) or not math.isfinite(mean):
        return [math.nan, 0.0]
    return [mean, 0.0 if math.isnan(error) else error]
