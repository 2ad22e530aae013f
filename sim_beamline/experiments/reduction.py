"""A reduction in a furnace: while the temperature rises, Co is reduced in two steps through an intermediate."""

import math
from typing import Literal

import numpy as np
from pydantic import Field

from ...agent.types import Settings
from ..sample import Answers, Course, Experiment, Gain, Knob, Reading, SampleSettings, edge_step_of

_GAS_CONSTANT = 8.314
"""Molar gas constant, J/(mol K)."""
_ZERO_C_K = 273.15
_STEP_S = 5.0
"""Longest step of the integration, s."""
_TEMPERATURE_NOISE_C = 0.1
"""σ of the noise of the thermocouple, °C."""


class StepSettings(Settings):
    """One first-order reaction with an Arrhenius rate."""

    at_c: float = Field(gt=-_ZERO_C_K)
    """Temperature at which its time constant is ``time_s``, °C; the seed changes it by up to 10 °C."""
    time_s: float = Field(default=300.0, gt=0)
    """Time constant at this temperature, s."""
    activation_kj_mol: float = Field(default=140.0, gt=0)
    """Activation energy, kJ/mol."""

    def rate(self, temperature_c: float, shift_c: float) -> float:
        """Return the rate constant, 1/s; ``shift_c`` is added to the step's temperature ``at_c``."""
        inverse = 1 / (self.at_c + shift_c + _ZERO_C_K) - 1 / (temperature_c + _ZERO_C_K)
        return math.exp(self.activation_kj_mol * 1e3 / _GAS_CONSTANT * inverse) / self.time_s


class ReductionSettings(SampleSettings):
    """A sample that is reduced in two steps while a furnace ramps."""

    kind: Literal["reduction"] = "reduction"
    """Name of this experiment."""
    duration_s: float = Field(default=4590.0, gt=0)
    """Duration of all planned frames together, simulated s."""
    start_c: float = 180.0
    """Temperature of the first frame, °C."""
    end_c: float = 480.0
    """Temperature at which the ramp ends, °C."""
    ramp_c_per_min: float = Field(default=6.0, ge=0)
    """Rate of the ramp until a control sets another, °C/min."""
    x_oxidised: float = Field(default=0.1, ge=0, le=1)
    """Lithium content of LixCoO2 whose spectrum represents the oxidised sample; its oxidation state is 4 − x."""
    x_intermediate: float = Field(default=0.5, ge=0, le=1)
    """Lithium content for the intermediate."""
    x_reduced: float = Field(default=1.0, ge=0, le=1)
    """Lithium content for the reduced sample."""
    first: StepSettings = StepSettings(at_c=240.0)
    """Reduction of the oxidised sample to the intermediate."""
    second: StepSettings = StepSettings(at_c=400.0)
    """Reduction of the intermediate."""
    pure: float = Field(default=0.9, gt=0, lt=1)
    """Fraction of the intermediate above which a frame counts as showing it pure."""

    def begin(self, seed: int) -> "Reduction":
        return Reduction(self, seed)

    def gain(self, open_loop: Course, closed_loop: Course, answers: Answers) -> Gain:
        courses = (open_loop, closed_loop)
        opened, closed = ([row for row in course.frames if row["intermediate"] >= self.pure] for course in courses)
        minutes = [sum(row["seconds"] for row in rows) / 60 for rows in (opened, closed)]
        left = [course.end["x"] for course in courses]
        ends = [f"ends at an oxidation state of {4 - x:.2f} e" for x in left]
        return Gain(
            f"{len(opened)} of {len(open_loop.frames)} frames, {minutes[0]:.0f} min, on the intermediate "
            f"(at least {self.pure:.0%} pure); {ends[0]}",
            f"{len(closed)} of {len(closed_loop.frames)} frames, {minutes[1]:.0f} min, on it; {ends[1]}",
            f"{len(closed) - len(opened)} frames on the intermediate, {minutes[1] - minutes[0]:.0f} min",
            len(closed) - len(opened),
            "frames on the intermediate",
            {"open": len(opened), "closed": len(closed), "x_open": left[0], "x_closed": left[1]},
        )


class Reduction(Experiment):
    """A sample in a furnace whose rate ``furnace_ramp`` sets; ``drive`` off holds the temperature."""

    def __init__(self, settings: ReductionSettings, seed: int) -> None:
        draw = np.random.default_rng([seed, 0]).uniform
        super().__init__(settings, edge_step_of(settings, draw))
        self._settings = settings
        self._shift_c = draw(-10, 10)
        self._oxidised, self.intermediate = 1.0, 0.0
        self._ramp, self._on = settings.ramp_c_per_min, False
        self.temperature_c = settings.start_c
        self.knobs = {"furnace_ramp": Knob(0.0, 20.0, "degC/min", self._set_ramp)}
        self.readings = (
            Reading("temperature", "degC", _TEMPERATURE_NOISE_C, lambda: self.temperature_c),
            Reading("furnace_ramp", "degC/min", 0.0, lambda: self._ramp),
        )

    @property
    def x(self) -> float:
        """Lithium content whose spectrum represents the mixture of the three states."""
        s, reduced = self._settings, 1 - self._oxidised - self.intermediate
        return self._oxidised * s.x_oxidised + self.intermediate * s.x_intermediate + reduced * s.x_reduced

    def advance(self, seconds: float) -> tuple[float, float]:
        before = self.x
        steps = max(1, math.ceil(seconds / _STEP_S))
        for _ in range(steps):
            self._step(seconds / steps)
        self.time_s += seconds
        return before, self.x

    def _step(self, seconds: float) -> None:
        s = self._settings
        if self._on:
            self.temperature_c = min(self.temperature_c + self._ramp * seconds / 60, s.end_c)
        first, second = (step.rate(self.temperature_c, self._shift_c) for step in (s.first, s.second))
        formed = self._oxidised * -math.expm1(-first * seconds)
        reduced = self.intermediate * -math.expm1(-second * seconds)
        self._oxidised -= formed
        self.intermediate += formed - reduced

    def drive(self, on: bool) -> None:
        self._on = on

    def truth(self) -> dict[str, float]:
        return {"intermediate": self.intermediate, "temperature_c": self.temperature_c}

    def _set_ramp(self, c_per_min: float) -> None:
        self._ramp = c_per_min
