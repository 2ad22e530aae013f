"""Radiation damage: only the beam changes the sample, by a reduction that grows with the dose of each spot."""

import math
from collections import defaultdict
from typing import Literal

import numpy as np
from pydantic import Field

from ..sample import Answers, Course, Experiment, Gain, Knob, Reading, SampleSettings, edge_step_of


class DamageSettings(SampleSettings):
    """A sample at constant conditions, which the beam reduces."""

    kind: Literal["damage"] = "damage"
    """Name of this experiment."""
    x: float = Field(default=0.35, ge=0, lt=1)
    """Lithium content of LixCoO2 before the dose; the seed changes it by up to 0.02. Damage moves it towards 1."""
    dose_s: float = Field(default=35000.0, gt=0)
    """Time in the beam after which 63 % of a spot is damaged, s; the seed changes it by up to 20 %."""
    limit_e: float = Field(default=0.08, gt=0)
    """Largest change of the mean oxidation state at which a frame counts as undamaged, e."""
    spot_mm: float = Field(default=1.0, gt=0)
    """Distance between two spots, mm."""
    spots: int = Field(default=8, ge=1)
    """Number of spots on the sample; the first one is at 0 mm."""

    def begin(self, seed: int) -> "Damage":
        return Damage(self, seed)

    def gain(self, open_loop: Course, closed_loop: Course, answers: Answers) -> Gain:
        opened, closed = (
            course.count(lambda row: row["damage_e"] <= self.limit_e) for course in (open_loop, closed_loop)
        )
        worst = [max(row["damage_e"] for row in course.frames) for course in (open_loop, closed_loop)]
        spots = len({row["spot"] for row in closed_loop.frames})
        return Gain(
            f"{opened} of {len(open_loop.frames)} frames below the limit of {self.limit_e:g} e; "
            f"at most {worst[0]:.2f} e of damage",
            f"{closed} of {len(closed_loop.frames)} frames below it, on {spots} spots; at most {worst[1]:.2f} e",
            f"{closed - opened} frames on undamaged sample",
            closed - opened,
            "frames on undamaged sample",
            {"open": opened, "closed": closed, "worst_open_e": worst[0], "worst_closed_e": worst[1], "spots": spots},
        )


class Damage(Experiment):
    """A sample with several spots, each with its dose; ``sample_position`` brings one of them into the beam."""

    def __init__(self, settings: DamageSettings, seed: int) -> None:
        draw = np.random.default_rng([seed, 0]).uniform
        super().__init__(settings, edge_step_of(settings, draw))
        self._settings = settings
        self._fresh_x = settings.x + draw(-0.02, 0.02)
        self._dose_s = settings.dose_s * (1 + draw(-0.2, 0.2))
        self._seconds: defaultdict[int, float] = defaultdict(float)
        """Time of each spot in the beam, s."""
        self.position_mm = 0.0
        last_mm = (settings.spots - 1) * settings.spot_mm
        self.knobs = {"sample_position": Knob(0.0, last_mm, "mm", self._move)}
        self.readings = (Reading("sample_position", "mm", 0.0, lambda: self.position_mm),)

    @property
    def spot(self) -> int:
        """Number of the spot in the beam, from 0."""
        return round(self.position_mm / self._settings.spot_mm)

    @property
    def x(self) -> float:
        """Lithium content of the spot in the beam."""
        return self._x_of(self.spot)

    def _x_of(self, spot: int) -> float:
        damaged = 1 - math.exp(-self._seconds[spot] / self._dose_s)
        return self._fresh_x + damaged * (1 - self._fresh_x)

    def advance(self, seconds: float) -> tuple[float, float]:
        spot = self.spot  # a control may move the sample during the frame
        before = self._x_of(spot)
        self._seconds[spot] += seconds
        self.time_s += seconds
        return before, self._x_of(spot)

    def truth(self) -> dict[str, float]:
        return {"damage_e": self.x - self._fresh_x, "spot": self.spot}

    def _move(self, position_mm: float) -> None:
        self.position_mm = position_mm
