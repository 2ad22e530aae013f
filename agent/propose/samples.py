"""Proposes which sample to measure next, by what the measured ones tell of the others."""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ..types import Array, Settings
from .smooth import SmoothFunction, gain_above, gain_nearer, probability_between

_ID = "_id"
_REASON = "reason"
_MAX_FAILURES = 2
"""How often the measurement of a sample may fail before it is given up."""


class SampleSettings(Settings):
    """A search among samples."""

    quantity: str
    """Outcome that is searched for, such as ``OS``."""
    aim: float | Literal["largest", "smallest"]
    """Its wanted value, or which one of the samples is wanted."""
    features: tuple[str, ...] = Field(min_length=1)
    """Known numbers of each sample on which the quantity may depend smoothly, such as composition or temperature."""
    parameters: tuple[str, ...] = Field(min_length=1)
    """What a suggestion contains of a sample, such as its place: the names of the actuators."""
    limits: dict[str, tuple[float | None, float | None]] = Field(default_factory=dict)
    """Lowest and highest permitted value of other outcomes; null is no limit."""
    tolerance: float = Field(default=0.0, ge=0)
    """Distance from the wanted value at which the search ends, in its unit; 0: it goes on."""
    min_gain: float = Field(default=0.0, ge=0)
    """Expected gain of the best sample below which the search ends, in the unit of the quantity."""
    first: int = Field(default=3, ge=2)
    """Number of samples that are spread over the features before anything is learnt from them."""
    unit: str = ""
    """Unit of the quantity, for the reasons in words."""

    @model_validator(mode="after")
    def _tolerates_a_value(self) -> Self:
        if self.tolerance and isinstance(self.aim, str):
            raise ValueError(f"found tolerance {self.tolerance:g} with aim {self.aim}, expected a value as aim")
        return self


@dataclass(frozen=True, slots=True)
class Proposal:
    """Why a sample is suggested."""

    gain: float
    """Expected gain, in the unit of the quantity: how much nearer to the aim than the best one; NaN if there is none
    to compare with."""
    expected: float
    """Expected value of the quantity; NaN before anything is learnt."""
    sd: float
    """Its standard deviation."""
    reason: str


class SampleProposer:
    """Suggests samples to measure, learns their outcomes, and says when to stop.

    A Gaussian process gives the quantity as a smooth function of the features. The sample with the largest expected
    improvement is suggested, times the probability that it keeps the limits. It is an ``Optimizer`` of
    bluesky-adaptive and blop, by form; it also registers points that a person suggests, knows failures, says when to
    stop, and writes checkpoints.

    Parameters
    ----------
    candidates : sequence of mappings
        The samples, each with its features (finite numbers) and its parameters.
    settings : SampleSettings
    checkpoint : path, optional
        File for :meth:`checkpoint`, JSON. What it holds from an earlier process is taken over.

    Raises
    ------
    ValueError
        There is no candidate, one lacks a feature or a parameter, or the checkpoint is of other candidates.
    """

    def __init__(
        self, candidates: Sequence[Mapping[str, Any]], settings: SampleSettings, checkpoint: str | Path | None = None
    ) -> None:
        self.settings, self._candidates = settings, [dict(row) for row in candidates]
        if not candidates:
            raise ValueError("found no candidates, expected at least one sample")
        for number, row in enumerate(self._candidates):
            if missing := {*settings.features, *settings.parameters} - {*row}:
                raise ValueError(f"candidate {number}: found {row}, expected {', '.join(sorted(missing))} too")
        features = np.array([self._features_of(row) for row in self._candidates])
        self._low = features.min(0)
        self._range = np.where(np.ptp(features, axis=0) > 0, np.ptp(features, axis=0), 1.0)
        self._features = (features - self._low) / self._range
        self._found: dict[int, list[dict[str, list[float]]]] = {}
        """Outcomes, as [value, standard error], of each measured candidate."""
        self._others: list[tuple[list[float], dict[str, list[float]]]] = []
        """Features and outcomes of measured points that are no candidates."""
        self._failures: Counter[int] = Counter()
        self._pending: dict[int, None] = {}
        self.proposals: dict[int, Proposal] = {}
        """Why each candidate was suggested last."""
        self._file = Path(checkpoint) if checkpoint is not None else None
        if self._file is not None and self._file.exists():
            self.restore(json.loads(self._file.read_text(encoding="utf-8")))

    def suggest(self, num_points: int | None = None) -> list[dict[str, Any]]:
        """Return up to ``num_points`` (1) samples to measure next, each with ``_id``, parameters and ``reason``.

        Raises
        ------
        ValueError
            All samples are tried; :meth:`should_stop` says so before.
        """
        if not (left := self._left()):
            raise ValueError(f"found no sample to suggest: all {len(self._candidates)} are tried")
        free = [k for k in left if k not in self._pending] or left
        chosen = self._first(free, num_points or 1) or self._most_promising(free, num_points or 1)
        self.proposals |= chosen
        self._pending |= dict.fromkeys(chosen)
        return [{_ID: k, **self._parameters(k), _REASON: proposal.reason} for k, proposal in chosen.items()]

    def ingest(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Learn outcomes: numbers or pairs ``(mean, standard error)`` by name.

        A point belongs to the suggestion with its ``_id``, else to the sample with its parameters; a point of other
        features is learnt from too. One without a finite value of the quantity or of a limited outcome is a failure.

        Raises
        ------
        ValueError
            A point has neither a known ``_id`` nor parameters nor features.
        """
        for point in points:
            names = {self.settings.quantity, *self.settings.limits}
            outcome = {name: _pair(point.get(name)) for name in sorted(names)}
            good = all(math.isfinite(value) for value, _ in outcome.values())
            k = self._candidate(point)
            if k is not None:
                self._pending.pop(k, None)
                if good:
                    self._found.setdefault(k, []).append(outcome)
                else:
                    self._failures[k] = _MAX_FAILURES
            elif not all(name in point for name in self.settings.features):
                raise ValueError(
                    f"found point {dict(point)}, expected a known {_ID}, or {', '.join(self.settings.parameters)} of "
                    f"a candidate, or {', '.join(self.settings.features)}"
                )
            elif good:
                self._others.append((self._features_of(point), outcome))

    def register_suggestions(self, suggestions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return samples that a person suggests by their parameters, with their ``_id``.

        Raises
        ------
        ValueError
            No candidate has these parameters.
        """
        registered: list[dict[str, Any]] = []
        for suggestion in suggestions:
            k = self._candidate({key: value for key, value in suggestion.items() if key != _ID})
            if k is None:
                raise ValueError(f"found {dict(suggestion)}, expected the parameters of a candidate")
            self._pending[k] = None
            registered.append({**suggestion, _ID: k})
        return registered

    def register_failures(self, suggestions: Sequence[Mapping[str, Any]]) -> None:
        """Note that samples could not be measured; each is suggested once more."""
        for suggestion in suggestions:
            if (k := self._candidate(suggestion)) is not None:
                self._pending.pop(k, None)
                self._failures[k] += 1

    def should_stop(self) -> tuple[bool, str | None]:
        """Return whether the search is over, and why."""
        settings, best = self.settings, self._best()
        if best is not None and settings.tolerance and not isinstance(settings.aim, str):
            value = self._means(best)[settings.quantity][0]
            if abs(value - settings.aim) <= settings.tolerance:
                return True, f"{self._named(best)}: {self._said(value)}, within {settings.tolerance:g} of the aim"
        left = self._left()
        if not left:
            return True, f"all {len(self._candidates)} samples are tried"
        if settings.min_gain and best is not None and len(self._found) >= settings.first:
            gain = max(p.gain for p in self._most_promising(left, 1).values())
            if gain < settings.min_gain:
                return True, f"the expected gain, {gain:.2g}{self._unit}, is below {settings.min_gain:g}{self._unit}"
        return False, None

    def get_best_points(self) -> list[tuple[int, dict[str, Any], dict[str, float]]]:
        """Return ``_id``, parameters and outcomes of the sample nearest to the aim; empty if none is good."""
        if (best := self._best()) is None:
            return []
        return [(best, self._parameters(best), {name: value for name, (value, _) in self._means(best).items()})]

    def state(self) -> dict[str, Any]:
        """Return what is known, as JSON can hold it; suggestions that wait for their outcomes are not."""
        found = [[k, outcomes] for k, outcomes in self._found.items()]
        return {
            "candidates": len(self._candidates),
            "found": found,
            "others": self._others,
            "failures": [*self._failures.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the state of another proposer of the same candidates.

        Raises
        ------
        ValueError
            The state is of another number of candidates.
        """
        if state["candidates"] != len(self._candidates):
            expected = f"expected {len(self._candidates)}"
            raise ValueError(f"found the state of {state['candidates']} candidates, {expected}")
        self._found = {k: list(outcomes) for k, outcomes in state["found"]}
        self._others = [(features, outcome) for features, outcome in state["others"]]
        self._failures = Counter(dict(state["failures"]))
        self._pending.clear()

    def checkpoint(self) -> None:
        """Write the state to the file, at once or not at all.

        Raises
        ------
        ValueError
            No file was named.
        """
        if self._file is None:
            raise ValueError("found no file for the checkpoint, expected SampleProposer(..., checkpoint=FILE)")
        written = self._file.with_name(self._file.name + ".part")
        written.write_text(json.dumps(self.state()), encoding="utf-8")
        os.replace(written, self._file)

    def _left(self) -> list[int]:
        given_up = {k for k, failures in self._failures.items() if failures >= _MAX_FAILURES}
        return [k for k in range(len(self._candidates)) if k not in self._found and k not in given_up]

    def _first(self, free: list[int], count: int) -> dict[int, Proposal]:
        """Return samples that are spread over the features, while too few are measured."""
        known = [*self._found, *self._pending]
        measured = len(self._found) + len(self._others)
        if measured >= self.settings.first or (measured >= 2 and len(known) >= self.settings.first):
            return {}
        chosen: dict[int, Proposal] = {}
        for _ in range(min(count, len(free))):
            near = self._features[[*known, *chosen]] if known or chosen else self._features.mean(0)[None]
            distance = np.linalg.norm(self._features[:, None] - near, axis=2).min(1)[free]
            distance = np.where(np.isin(free, [*chosen]), -np.inf, distance)
            k = free[int(np.argmax(distance) if known or chosen else np.argmin(distance))]
            where = "the farthest from those before" if known or chosen else "in the middle of all"
            reason = f"{self._named(k)}: {where}, to learn how {self.settings.quantity} depends on the features"
            chosen[k] = Proposal(math.nan, math.nan, math.nan, reason)
        return chosen

    def _most_promising(self, free: list[int], count: int) -> dict[int, Proposal]:
        quantities = [self.settings.quantity, *self.settings.limits]
        functions = {name: self._function(name) for name in quantities}
        waiting = [k for k in self._pending if k not in free]
        if waiting:
            functions = {name: f.believing(self._features[waiting]) for name, f in functions.items()}
        chosen: dict[int, Proposal] = {}
        for _ in range(min(count, len(free))):
            rest = [k for k in free if k not in chosen]
            mean, sd = functions[self.settings.quantity].predict(self._features[rest])
            gain, kept = self._gain(mean, sd), np.ones(len(rest))
            for name, (low, high) in self.settings.limits.items():
                kept *= probability_between(*functions[name].predict(self._features[rest]), low, high)
            promise = kept if self._best() is None else gain * kept
            at = int(np.argmax(promise))
            k = rest[at]
            chosen[k] = self._proposal(k, float(mean[at]), float(sd[at]), float(gain[at] * kept[at]), float(kept[at]))
            functions = {name: f.believing(self._features[[k]]) for name, f in functions.items()}
        return chosen

    def _function(self, name: str) -> SmoothFunction:
        measured = [(self._features[k], self._means(k)[name]) for k in self._found]
        measured += [((np.array(f) - self._low) / self._range, outcome[name]) for f, outcome in self._others]
        value, error = np.array([outcome for _, outcome in measured]).T
        return SmoothFunction(np.array([features for features, _ in measured]), value, error)

    def _gain(self, mean: Array, sd: Array) -> Array:
        aim, best = self.settings.aim, self._best()
        if best is None:
            return np.full(len(mean), math.nan)
        value = self._means(best)[self.settings.quantity][0]
        if aim == "largest":
            return gain_above(mean, sd, value)
        if aim == "smallest":
            return gain_above(-mean, sd, -value)
        return gain_nearer(mean, sd, aim, abs(value - aim))

    def _proposal(self, k: int, mean: float, sd: float, gain: float, kept: float) -> Proposal:
        best = self._best()
        expected = f"{self.settings.quantity} {mean:.3g} ± {sd:.2g}{self._unit} expected"
        parts = [f"{self._named(k)}: {expected}, {self._aim}"]
        if self.settings.limits:
            parts.append(f"the limits are kept with a probability of {kept:.2f}")
        if best is None:
            parts.append("no measured sample keeps the limits")
        else:
            parts.append(f"best so far {self._said(self._means(best)[self.settings.quantity][0])}")
            parts.append(f"expected gain {gain:.2g}{self._unit}")
        return Proposal(gain, mean, sd, "; ".join(parts))

    def _best(self) -> int | None:
        """Return the measured candidate nearest to the aim, of those that keep the limits."""
        good = [k for k in self._found if self._keeps_limits(k)]
        return min(good, key=lambda k: self._distance(self._means(k)[self.settings.quantity][0]), default=None)

    def _distance(self, value: float) -> float:
        aim = self.settings.aim
        if isinstance(aim, str):
            return -value if aim == "largest" else value
        return abs(value - aim)

    def _keeps_limits(self, k: int) -> bool:
        means = self._means(k)
        limits = self.settings.limits.items()
        return all(
            (low is None or means[name][0] >= low) and (high is None or means[name][0] <= high)
            for name, (low, high) in limits
        )

    def _means(self, k: int) -> dict[str, tuple[float, float]]:
        """Return the mean outcomes of a measured candidate, with their standard errors."""
        outcomes = self._found[k]
        means: dict[str, tuple[float, float]] = {}
        for name in outcomes[0]:
            values, errors = np.array([outcome[name] for outcome in outcomes]).T
            means[name] = float(values.mean()), float(np.linalg.norm(errors)) / len(outcomes)
        return means

    def _candidate(self, point: Mapping[str, Any]) -> int | None:
        """Return the candidate with the id of a point, else an untried one with its parameters, else any such."""
        id = point.get(_ID)
        if isinstance(id, int) and 0 <= id < len(self._candidates):
            return id
        names = self.settings.parameters
        same = [
            k
            for k in range(len(self._candidates))
            if all(name in point and point[name] == self._candidates[k][name] for name in names)
        ]
        return next((k for k in same if k not in self._found), same[0] if same else None)

    def _parameters(self, k: int) -> dict[str, Any]:
        return {name: self._candidates[k][name] for name in self.settings.parameters}

    def _features_of(self, row: Mapping[str, Any]) -> list[float]:
        features = [float(row[name]) for name in self.settings.features]
        if not all(map(math.isfinite, features)):
            raise ValueError(
                f"found features {features}, expected finite numbers: {', '.join(self.settings.features)}"
            )
        return features

    def _named(self, k: int) -> str:
        return ", ".join(f"{name} {value}" for name, value in self._parameters(k).items())

    def _said(self, value: float) -> str:
        return f"{value:.3g}{self._unit}"

    @property
    def _unit(self) -> str:
        return f" {self.settings.unit}" if self.settings.unit else ""

    @property
    def _aim(self) -> str:
        aim = self.settings.aim
        return f"the {aim} wanted" if isinstance(aim, str) else f"{self._said(aim)} wanted"


def _pair(value: Any) -> list[float]:
    """Return an outcome as value and standard error; NaN if it is missing."""
    if value is None:
        return [math.nan, 0.0]
    value, error = value if isinstance(value, Sequence | np.ndarray) else (value, 0.0)
    return [float(value), 0.0 if error is None or math.isnan(error) else float(error)]
