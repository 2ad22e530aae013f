"""The charge of a LixCoO2 cell at constant current; a stop in time saves the cathode."""

from typing import Literal

import numpy as np
from pydantic import Field

from ..cathode import CathodeSettings, Cell, x_open_loop_end
from ..sample import Answers, Course, Experiment, Gain, Reading

_VOLTAGE_NOISE_V = 0.5e-3
"""σ of the noise of the measured cell voltage, V."""
_ROOM_TEMPERATURE_C, _TEMPERATURE_SWING_C, _TEMPERATURE_PERIOD_S = 25.0, 0.2, 5400.0
"""Mean (°C), amplitude (°C) and period (s) of the temperature beside the cell."""
_TEMPERATURE_NOISE_C = 0.02
"""σ of the noise of the thermometer, °C."""


class ChargeSettings(CathodeSettings):
    """A cell that charges in the beam with a constant current."""

    kind: Literal["charge"] = "charge"
    """Name of this experiment."""
    h1_3_x: float = Field(default=0.15, ge=0, lt=1)
    """Lithium content below which the H1-3 phase forms, which damages the cathode."""

    def begin(self, seed: int) -> "Charge":
        return Charge(self, seed)

    def gain(self, open_loop: Course, closed_loop: Course, answers: Answers) -> Gain:
        limit = self.h1_3_x
        opened, closed = (course.count(lambda row: row["x"] < limit) for course in (open_loop, closed_loop))
        x_open, x_closed = open_loop.end["x"], closed_loop.end["x"]
        used = (closed_loop.frames[0]["x"] - x_closed) / (closed_loop.frames[0]["x"] - limit)
        return Gain(
            f"{opened} of {len(open_loop.frames)} frames in the H1-3 range (x < {limit:g}); ends at x = {x_open:.2f}",
            f"{closed} of {len(closed_loop.frames)} frames in it; ends at x = {x_closed:.2f}",
            f"{opened - closed} frames less in the H1-3 range; {used:.0%} of the charge up to it is used",
            opened - closed,
            "frames outside of the H1-3 range",
            {"open": opened, "closed": closed, "x_open": x_open, "x_closed": x_closed, "charge_used": used},
        )


class Charge(Experiment):
    """A cell at constant current, which ``drive`` switches."""

    def __init__(self, settings: CathodeSettings, seed: int) -> None:
        self.cell = cell = Cell(settings, seed)
        super().__init__(settings, cell.edge_step)
        self._settings, self._seed = settings, seed
        self.cathode_mass_mg = settings.active_mass_mg
        self.readings = (
            Reading("voltage", "V", _VOLTAGE_NOISE_V, lambda: cell.voltage, precision=4),
            Reading("temperature", "degC", _TEMPERATURE_NOISE_C, self._temperature),
        )

    @property
    def x(self) -> float:
        """Lithium content, atoms per formula unit."""
        return self.cell.x

    def advance(self, seconds: float) -> tuple[float, float]:
        before_and_after = self.cell.advance(seconds)
        self.time_s = self.cell.time_s
        return before_and_after

    def drive(self, on: bool) -> None:
        self.cell.apply(self._settings.nominal_current_ma if on else 0.0)

    def truth(self) -> dict[str, float]:
        return {"current_ma": self.cell.current_ma, "charge_mah": self.cell.charge_mah}

    def known(self) -> dict[str, float]:
        """Return the lithium content at the end of the planned scan if no control stops it."""
        return {"x_open_loop_end": x_open_loop_end(self._settings, self._seed)}

    def _temperature(self) -> float:
        swing = _TEMPERATURE_SWING_C * float(np.sin(2 * np.pi * self.cell.time_s / _TEMPERATURE_PERIOD_S))
        return _ROOM_TEMPERATURE_C + swing
