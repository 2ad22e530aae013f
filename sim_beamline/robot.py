"""The robot that assembles the cell and places it in the beam: scalar parameters, one run per sample."""

from collections.abc import Generator, Mapping
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
from bluesky.utils import Msg
from ophyd import Component, Device, Kind

from .devices import Quantity

_ELECTROLYTE_ML, _ELECTROLYTE_SD_ML = 0.10, 0.005
_ACTIVE_FRACTION = 0.9
"""Mass fraction of LiCoO2 in the electrode; the rest is carbon and binder."""
_ELECTRODE_MASS_SD_MG = 0.05
_ANNEAL_C, _ANNEAL_SD_C = 850.0, 2.0


class Robot(Device):
    """Parameters of the sample that a synthesis and transfer robot reports."""

    electrolyte_volume_ml = Component(Quantity, units="mL", kind=Kind.normal)
    electrode_mass_mg = Component(Quantity, units="mg", kind=Kind.normal)
    anneal_temperature_c = Component(Quantity, units="degC", kind=Kind.normal)

    def __init__(self, *, name: str, active_mass_mg: float, seed: int) -> None:
        super().__init__(name=name)
        normal = np.random.default_rng([seed, 4]).normal
        parameters = {
            self.electrolyte_volume_ml: normal(_ELECTROLYTE_ML, _ELECTROLYTE_SD_ML),
            self.electrode_mass_mg: normal(active_mass_mg / _ACTIVE_FRACTION, _ELECTRODE_MASS_SD_MG),
            self.anneal_temperature_c: normal(_ANNEAL_C, _ANNEAL_SD_C),
        }
        for signal, value in parameters.items():
            signal.name = signal.attr_name
            signal.put(round(float(value), 4))


def load_cell(robot: Robot, md: Mapping[str, Any]) -> Generator[Msg, Any, None]:
    """Plan: load the cell in one run and report the parameters of its assembly in one Event."""
    yield from bps.open_run({"plan_name": "load_cell", "purpose": "robot", **md})
    devices: Any = [robot]  # ophyd has no types
    yield from bps.trigger_and_read(devices)
    yield from bps.close_run(exit_status="success")
