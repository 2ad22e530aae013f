"""A titration: a cell is charged in small steps and measured at rest; for some states the beam is weak."""

import math
from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ..cathode import CathodeSettings
from ..sample import Answers, Course, Gain
from .charge import Charge


class TitrationSettings(CathodeSettings):
    """A cell that is charged between frames and rests during them."""

    kind: Literal["titration"] = "titration"
    """Name of this experiment."""
    step_s: float = Field(default=60.0, gt=0)
    """Time for which the cell charges before each frame but the first, simulated s; in ``steps`` such steps, the
    nominal current extracts ``charge_x`` lithium per formula unit."""
    steps: int = Field(default=44, ge=1)
    """Number of steps in which ``charge_x`` is extracted."""
    weak_first: int = Field(default=15, ge=1)
    """First state that is measured with a weak beam."""
    weak_last: int = Field(default=30, ge=1)
    """Last state that is measured with a weak beam."""
    weak_flux: float = Field(default=0.05, gt=0, le=1)
    """Flux of the weak beam as a fraction of the full flux."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.weak_last < self.weak_first:
            raise ValueError(f"found weak_last {self.weak_last}, expected at least weak_first {self.weak_first}")
        return self

    @property
    def nominal_current_ma(self) -> float:
        """Current that extracts ``charge_x`` in ``steps`` steps, mA."""
        return super().nominal_current_ma * self.duration_s / (self.steps * self.step_s)

    def begin(self, seed: int) -> "Titration":
        return Titration(self, seed)

    def check_frames(self, frames: int) -> None:
        if min(self.weak_last, frames) <= self.weak_first:
            raise ValueError(
                f"found weak_first {self.weak_first} and weak_last {self.weak_last} with frames {frames}, "
                "expected at least 2 states with a weak beam among the frames"
            )

    def gain(self, open_loop: Course, closed_loop: Course, answers: Answers) -> Gain | None:
        true = {(row["run"], row["frame"]): row for row in closed_loop.frames}
        firsts: dict[int, float] = {}
        newest: dict[int, float] = {}
        for row in sorted(answers.frames, key=lambda row: row["seq_num"]):
            of = true.get((row["run_uid"], row["seq_num"]))
            if of is not None and of["weak"]:
                firsts.setdefault(of["state"], row["OS_mean"] - 4 + of["x"])
                newest[of["state"]] = row["OS_mean"] - 4 + of["x"]
        before, after = (scatter([by_state[state] for state in sorted(by_state)]) for by_state in (firsts, newest))
        states = len({row["state"] for row in closed_loop.frames})
        if states < len(open_loop.frames) or not math.isfinite(before - after):
            return None
        counted = [row["seconds"] for row in closed_loop.frames]
        factor, repeats = max(counted) / min(counted), len(closed_loop.frames) - states
        hours, longer = open_loop.end["time_s"] / 3600, closed_loop.end["time_s"] / 3600
        always = hours + (factor - 1) * sum(row["seconds"] for row in open_loop.frames) / 3600
        return Gain(
            f"the oxidation state scatters by {before:.3f} e in {len(firsts)} states with a weak beam; {hours:.1f} h",
            f"by {after:.3f} e, with {repeats} frames repeated; {longer:.1f} h",
            f"{before - after:.3f} e less scatter for {longer - hours:.1f} h; counting {factor:.0f} times longer "
            f"everywhere would take {always - hours:.1f} h",
            before - after,
            "e less scatter",
            {"open": before, "closed": after, "h_open": hours, "h_closed": longer, "h_always": always},
        )


def scatter(deviations: Sequence[float]) -> float:
    """Return the standard deviation between successive values, without their slow changes.

    >>> scatter([1.0, 2.0, 1.0, 2.0])
    0.7071067811865476
    """
    return float(np.sqrt(np.mean(np.square(np.diff(deviations))) / 2)) if len(deviations) > 1 else math.nan


class Titration(Charge):
    """A cell that rests in the beam, and is charged by a step before each planned frame."""

    def __init__(self, settings: TitrationSettings, seed: int) -> None:
        super().__init__(settings, seed)
        self._titration = settings
        self.state = 0
        """Number of the present state, from 1."""

    def prepare(self, frame: int) -> None:
        self.state = frame
        if frame > 1:
            self.cell.apply(self._titration.nominal_current_ma)
            self.advance(self._titration.step_s)
            self.cell.apply(0.0)

    def drive(self, on: bool) -> None:
        """Do nothing: the cell rests in the beam."""

    @property
    def weak(self) -> bool:
        """Whether the beam is weak."""
        return self._titration.weak_first <= self.state <= self._titration.weak_last

    @property
    def transmission(self) -> float:
        return self._titration.weak_flux if self.weak else 1.0

    def truth(self) -> dict[str, float]:
        return {**super().truth(), "state": self.state, "weak": self.weak}

    def known(self) -> dict[str, float]:
        return {}
