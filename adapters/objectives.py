"""Computes values and standard errors of objectives from the agent's answers to the frames of a suggestion."""

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Literal

import numpy as np

from ..agent.decide import Observed

Objective = str | Callable[[Mapping[str, float]], float]
"""Name of a quantity, or a function of all quantities by name."""
Errors = Literal["none", "frame", "all"]

_SAME = ("", "_mean", "_lo", "_hi")
"""Suffixes of quantities that move together with a descriptor."""


class OutcomeError(RuntimeError):
    """A suggestion has no outcome; the message states which one, and why."""


class Quantities(dict[str, float]):
    """Quantities by name; a missing one raises an OutcomeError that lists similar names."""

    def __missing__(self, name: str) -> float:
        similar = ", ".join(get_close_matches(name, self, n=3) or [*self][:5])
        raise OutcomeError(f"found quantity {name!r}, which the frames do not have; similar: {similar}")


def value_of(objective: Objective, values: Quantities) -> float:
    """Return the value of an objective."""
    return float(values[objective] if isinstance(objective, str) else objective(values))


def error_of(objective: Objective, values: Quantities, found: Mapping[str, tuple[float, float]]) -> float:
    """Return the standard error of an objective: its RMS change if each quantity changes by ± its error."""
    value, squares = value_of(objective, values), 0.0
    for name, (_, sd) in found.items():
        for moved in (sd, -sd) if sd else ():
            others = {name + end: values[name + end] + moved for end in _SAME if name + end in values}
            squares += (value_of(objective, Quantities({**values, **others})) - value) ** 2 / 2
    return math.sqrt(squares)


def averaged(frames: Sequence[Observed], errors: Errors) -> dict[str, tuple[float, float]]:
    """Return the means of the quantities that all frames have, with their standard errors."""
    found: dict[str, tuple[float, float]] = {}
    for name in frames[0].names():
        points = [point for observed in frames if (point := observed.point(name)) is not None]
        if len(points) < len(frames):
            continue
        scatter = np.array([p.sigma for observed in frames if (p := observed.point(name, "frame")) is not None])
        common = np.sqrt(np.maximum(np.square([p.sigma for p in points]) - scatter**2, 0.0)).mean()
        sd = math.hypot(np.linalg.norm(scatter) / len(frames), common if errors == "all" else 0.0)
        found[name] = float(np.mean([p.value for p in points])), sd
    return found
