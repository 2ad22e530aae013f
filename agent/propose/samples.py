"""Proposes which sample to measure next, from the results of the measured ones."""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..types import Array, validate_settings
from .search import Outcome, SampleSettings, SearchState, plain, read_number, read_outcome, read_state
from .smooth import SHORTEST, SmoothFunction, gain_above, gain_nearer, probability_between

_ID = "_id"
_REASON = "reason"
_MAX_FAILURES = 2
"""Number of failed measurements after which a sample is given up."""
_SURE = 0.9
"""Probability that a sample is within the tolerance and keeps the limits at which the search ends."""
_SPREAD = 10
"""Values whose spread is below this number of smallest gains do not show how much the quantity varies."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Why a sample is suggested."""

    gain: float
    """Expected gain, in the unit of the quantity: by how much the sample is expected to be closer to the aim than the
    best one so far; NaN if there is none."""
    expected: float
    """Expected value of the quantity; NaN before any outcome is known."""
    sd: float
    """Standard deviation of the expected value."""
    reason: str


class SampleProposer:
    """Suggests samples to measure, learns their outcomes, and decides when to stop.

    A Gaussian process models the quantity as a smooth function of the features. The next sample maximises the
    expected improvement times the probability that it keeps the limits. The class has the interface of an
    ``Optimizer`` of bluesky-adaptive and blop; it also registers samples that a person suggests, handles failures,
    decides when to stop, and writes checkpoints.

    Parameters
    ----------
    candidates : sequence of mappings
        The samples, each with its features (finite numbers) and its parameters.
    settings : SampleSettings
    checkpoint : path, optional
        JSON file for :meth:`checkpoint`. If it holds the state of an earlier process, that is taken over.

    Raises
    ------
    ValueError
        There is no candidate, one lacks a feature or a parameter, or the checkpoint belongs to another search.
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
        self._found: dict[int, list[Outcome]] = {}
        """Outcomes, each [value, standard error] by name, of each measured candidate."""
        self._others: list[tuple[list[float], Outcome]] = []
        """Features and outcomes of measured points that are not candidates."""
        self._failures: Counter[int] = Counter()
        self._pending: dict[int, None] = {}
        self.proposals: dict[int, Proposal] = {}
        """The latest proposal of each candidate."""
        self._file = Path(checkpoint) if checkpoint is not None else None
        if self._file is not None and self._file.exists():
            self._take_over(read_state(self._file), f"checkpoint {self._file}: ")

    def suggest(self, num_points: int | None = None) -> list[dict[str, Any]]:
        """Return up to ``num_points`` (default 1) samples to measure next, with ``_id``, parameters and ``reason``.

        Raises
        ------
        ValueError
            All samples have been tried, as :meth:`should_stop` reports in advance; or ``num_points`` is below 1.
        """
        count = 1 if num_points is None else num_points
        if count < 1:
            raise ValueError(f"found num_points = {num_points}, expected 1 or more")
        if not (left := self._left()):
            raise ValueError(f"found no sample to suggest: all {len(self._candidates)} are tried")
        free = [k for k in left if k not in self._pending] or left
        chosen = self._first(free, count) or self._most_promising(free, count)
        self.proposals |= chosen
        self._pending |= dict.fromkeys(chosen)
        return [{_ID: k, **self._parameters(k), _REASON: proposal.reason} for k, proposal in chosen.items()]

    def ingest(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Learn outcomes: numbers or pairs ``(mean, standard error)`` by name.

        A point belongs to the suggestion with its ``_id``, or otherwise to the sample with its parameters; points
        with other features are used too. A point without a finite value of the quantity or a limited outcome failed.

        Raises
        ------
        ValueError
            A point has neither a known ``_id`` nor parameters nor features, or lacks an outcome.
        """
        for point in points:
            outcome = read_outcome(point, self._outcomes)
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
        """Return the samples whose parameters a person suggests, with their ``_id``.

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
        """Record that samples could not be measured; each is suggested once more."""
        for suggestion in suggestions:
            if (k := self._candidate(suggestion)) is not None:
                self._pending.pop(k, None)
                self._failures[k] += 1

    def should_stop(self) -> tuple[bool, str | None]:
        """Return whether the search is over, and why."""
        settings, best = self.settings, self._best()
        within = ""
        if best is not None and settings.tolerance:
            sure, value = self._sure(best), self._said(self._means(best)[settings.quantity][0])
            within = f"{self._named(best)}: {value}, within {settings.tolerance:g} of the aim"
            within += " and the limits" if settings.limits else ""
            within += f" with a probability of {sure:.2f}"
            if sure >= _SURE:
                return True, within
        left = self._left()
        if not left:
            return True, f"all {len(self._candidates)} samples are tried" + (f"; {within}" if within else "")
        many = len(self._found) + len(self._others) >= 2 * settings.first
        if settings.min_gain and best is not None and many and self._told():
            gain = max(p.gain for p in self._most_promising(left, 1).values())
            if gain < settings.min_gain:
                low = f"the expected gain, {gain:.2g}{self._unit}, is below {settings.min_gain:g}{self._unit}"
                return True, low + (f"; {within}" if within else "")
        return False, None

    def get_best_points(self) -> list[tuple[int, dict[str, Any], dict[str, float]]]:
        """Return ``_id``, parameters and outcomes of the sample nearest to the aim; empty if none keeps limits."""
        if (best := self._best()) is None:
            return []
        return [(best, self._parameters(best), {name: value for name, (value, _) in self._means(best).items()})]

    def state(self) -> dict[str, Any]:
        """Return the state as JSON values, without the suggestions that wait for outcomes."""
        return {
            "features": [*self.settings.features],
            "outcomes": self._outcomes,
            "candidates": [plain(row) for row in self._rows],
            "found": [[k, outcomes] for k, outcomes in self._found.items()],
            "others": self._others,
            "failures": [*self._failures.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the state of another proposer with the same candidates.

        Raises
        ------
        ValueError
            The state is invalid, or its candidates, features or outcomes are others.
        """
        self._take_over(validate_settings(dict(state), SearchState, "state"), "")

    def _take_over(self, state: SearchState, source: str) -> None:
        own, rows = self._outcomes, [plain(row) for row in self._rows]
        if state.outcomes != own or state.features != [*self.settings.features]:
            found = f"found a search for {', '.join(state.outcomes)} by {', '.join(state.features)}"
            expected = f"expected one for {', '.join(own)} by {', '.join(self.settings.features)}"
            raise ValueError(f"{source}{found}, {expected}")
        if len(state.candidates) != len(rows):
            raise ValueError(f"{source}found {len(state.candidates)} candidates, expected {len(rows)}")
        for number, (row, other) in enumerate(zip(rows, state.candidates, strict=True)):
            if row != other:
                raise ValueError(f"{source}found candidate {number} as {other}, expected {row}")
        if not state.numbers <= {*range(len(rows))}:
            raise ValueError(f"{source}found candidates {sorted(state.numbers)}, expected 0 to {len(rows) - 1}")
        self._found = {k: [_lists(outcome) for outcome in outcomes] for k, outcomes in state.found}
        self._others = [(features, _lists(outcome)) for features, outcome in state.others]
        self._failures = Counter(dict(state.failures))
        self._pending.clear()

    def checkpoint(self) -> None:
        """Write the state to the file, completely or not at all.

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
        """Return samples spread over the features, while too few are measured."""
        known = [*self._found, *self._pending]
        enough = len(known) + len(self._others) >= self.settings.first
        if enough and len(self._found) + len(self._others) >= 2 and self._told():
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

    def _measured(self, name: str) -> tuple[Array, Array, Array, float]:
        """Return features, values and errors of an outcome, and the spread above which its values show variation."""
        measured = [(self._features[k], self._means(k)[name]) for k in self._found]
        measured += [((np.array(f) - self._low) / self._range, outcome[name]) for f, outcome in self._others]
        value, error = np.array([outcome for _, outcome in measured]).T
        own = name == self.settings.quantity
        least = max(self.settings.tolerance, _SPREAD * self.settings.min_gain) if own else 0.0
        return np.array([features for features, _ in measured]), value, error, max(least, float(np.median(error)))

    def _function(self, name: str) -> SmoothFunction:
        return SmoothFunction(*self._measured(name))

    def _told(self) -> bool:
        """Return whether the values show how much the quantity varies, or are too close together for it to vary."""
        features, value, _, least = self._measured(self.settings.quantity)
        if np.std(value) > least:
            return True
        nearest = np.linalg.norm(self._features[:, None] - features, axis=2).min(1)
        return bool(nearest.max() < SHORTEST)

    def _gain(self, mean: Array, sd: Array) -> Array:
        aim, best = self.settings.aim, self._best()
        if best is None:
            return np.full(len(mean), math.nan)
        distance = self._distance(best)
        if aim == "largest":
            return gain_above(mean, sd, -distance)
        if aim == "smallest":
            return gain_above(-mean, sd, -distance)
        return gain_nearer(mean, sd, aim, distance)

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
        """Return the measured candidate nearest to the aim that keeps the limits, preferably with certainty."""
        good = [k for k in self._found if self._keeps_limits(k)]
        sure = [k for k in good if self._sure(k) >= _SURE]
        return min(sure or good, key=self._distance, default=None)

    def _distance(self, k: int) -> float:
        """Return the distance of a measured candidate from the aim, including its error (RMS)."""
        aim, (value, error) = self.settings.aim, self._means(k)[self.settings.quantity]
        if isinstance(aim, str):
            return -value if aim == "largest" else value
        return math.hypot(value - aim, error)

    def _sure(self, k: int) -> float:
        """Return the probability that a measured candidate is within the tolerance and keeps the limits."""
        aim, tolerance = self.settings.aim, self.settings.tolerance * (1 + 1e-9)
        if isinstance(aim, str) or not tolerance:
            return 0.0
        bounds = {**self.settings.limits, self.settings.quantity: (aim - tolerance, aim + tolerance)}
        means = self._means(k)
        inside = [
            probability_between(np.array([means[name][0]]), np.array([means[name][1]]), low, high)[0]
            for name, (low, high) in bounds.items()
        ]
        return float(np.prod(inside))

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
        """Return the candidate with a point's id, or else one with its parameters, preferably untried; else None."""
        number = read_number(point.get(_ID))
        if number is not None and 0 <= number < len(self._candidates):
            return number
        names = self.settings.parameters
        same = [
            k
            for k in range(len(self._candidates))
            if all(name in point and point[name] == self._candidates[k][name] for name in names)
        ]
        return next((k for k in same if k not in self._found), same[0] if same else None)

    @property
    def _outcomes(self) -> list[str]:
        return sorted({self.settings.quantity, *self.settings.limits})

    @property
    def _rows(self) -> list[dict[str, Any]]:
        """Return features and parameters of each candidate."""
        names = {*self.settings.features, *self.settings.parameters}
        return [{name: row[name] for name in sorted(names)} for row in self._candidates]

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


def _lists(outcome: Mapping[str, Sequence[float]]) -> Outcome:
    return {name: [*pair] for name, pair in outcome.items()}
